"""Training: losses, state, one step, checkpoints, the loop."""
