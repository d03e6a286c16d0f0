"""Images, the training loop and its step, checkpoints, accuracy."""
