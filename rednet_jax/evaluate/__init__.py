"""Metrics and protocols: how far landmarks are from the truth, and on which faces."""
