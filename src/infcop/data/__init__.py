"""Data sets: readers that refuse what they can't prove sound, splits and the in-memory loader."""
