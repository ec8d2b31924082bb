"""Rewinding: which values a level goes back to, and putting exactly those back."""
