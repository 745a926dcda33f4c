"""The benchmarks of `rednet bench`."""
