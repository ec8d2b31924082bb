"""Tasks: what a training step and an evaluation are."""
