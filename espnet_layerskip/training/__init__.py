"""Training: the model with its losses, the task, checkpoints."""
