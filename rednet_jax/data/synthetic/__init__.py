"""Rendered faces with exact landmarks, which show no real person."""
