"""The one training loop: device and precision, recipe, phases."""
