"""Training: experiments, losses, the training step, checkpoints and the loop."""
