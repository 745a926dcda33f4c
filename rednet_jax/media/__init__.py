"""Reading image files, videos and cameras, and writing videos."""
