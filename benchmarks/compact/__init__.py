"""What collapse makes of pruned networks: sizes, times, and the same done by torch-pruning."""
