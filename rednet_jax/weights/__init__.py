"""Released weights and the files that carry weights."""
