"""Methods of every family side by side, and scores and scopes within one search."""
