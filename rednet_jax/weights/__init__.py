"""Released weights, and files of weights."""
