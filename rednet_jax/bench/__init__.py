"""What `rednet bench` measures."""
