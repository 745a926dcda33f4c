"""Landmark schemes, landmark files, bounding boxes, crops and heat maps."""
