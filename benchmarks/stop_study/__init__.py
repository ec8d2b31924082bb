"""The comparison that chose the default, and the one that judged it."""
