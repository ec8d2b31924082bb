"""How strongly signals and gradients pass through a network, measured without touching it."""
