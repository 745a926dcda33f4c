"""Ablations: arms that are trained over seeds and measured alike, and verdicts on claims."""
