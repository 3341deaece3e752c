"""What a training step and an evaluation read: crops, DALI graphs, loaders."""
