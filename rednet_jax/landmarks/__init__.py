"""Landmark schemes, files, bounding boxes, crops and heat maps; no model."""
