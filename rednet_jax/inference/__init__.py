"""Landmarks in images and videos: files in, faces found and tracked, files out."""
