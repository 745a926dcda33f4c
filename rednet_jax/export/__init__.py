"""A checkpoint in other forms, one file a form, each checked against the network it came from."""
