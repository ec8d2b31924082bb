"""Masks: how many entries survive, which, in which pattern, and that they hold.

==========================================  ======================================================
``schedule``, ``adaptive``, ``rounds``      how many a level and its rounds keep, over all layers
``limits``, ``allocate``, ``densities``     how many each layer keeps, by the scope
``select``, ``rank``, ``lamp``              which entries these are
``groups``, ``tiles``, ``prune_groups``     what a pattern ties together, and which of it survives
``entries``, ``n_of_m``, ``units``          one pruning of single entries, of n in m, of groups
``prune``                                   one level, of all these parts
``regrow``                                  exchanging entries while the sparse network trains
``apply``                                   the only code that enforces a mask
==========================================  ======================================================
"""
