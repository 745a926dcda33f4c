"""Where the faces are in an image."""
