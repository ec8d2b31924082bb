"""How far untrained networks can be pruned before a layer is emptied, beside published figures."""
