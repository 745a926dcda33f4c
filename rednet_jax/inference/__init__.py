"""Landmarks in pictures and videos: files in, the face found and followed, files out."""
