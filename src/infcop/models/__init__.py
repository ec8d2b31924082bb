"""Models: what of them may be pruned, how their layers are connected, and small references."""
