"""What any segmentation run needs: optimiser, metrics, checkpoints, logs, pictures. Knows nothing of the method."""
