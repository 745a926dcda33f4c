"""Landmarks of the faces in images and videos."""
