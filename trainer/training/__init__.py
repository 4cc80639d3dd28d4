"""The training loop and what it needs: recipe, checkpoints, schedule, averaging, validation."""
