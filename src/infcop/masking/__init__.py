"""Masks: how many entries survive (schedule, allocate), which (select), and that they hold (apply).

``prune`` puts the first three together; ``apply`` has the only code that enforces a mask.
"""
