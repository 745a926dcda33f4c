"""Ablations: arms trained over seeds, measured alike, and the claims that they decide."""
