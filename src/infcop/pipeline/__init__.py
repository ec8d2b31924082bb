"""The order of the stages, the run folder, and resuming."""
