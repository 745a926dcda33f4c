"""Exports of a checkpoint to other formats, each checked against the network."""
