"""When to stop training a level: pure functions of readings."""
