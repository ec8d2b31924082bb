"""Sizes that a model states in attributes of its own: numbers of heads, sizes of heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from infcop.collapse.dead import Survivors
from infcop.collapse.facts import Layer
from infcop.collapse.plan import living
from infcop.collapse.run import Findings, Sizes

__all__ = ["changed_sizes", "stated_sizes"]


def stated_sizes(
    model: nn.Module, findings: Findings, found: Survivors, places: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return which attributes of some modules to set to which value.

    An attribute is taken for a size if it is an integer equal to the old size of a dimension that
    goes through a reshaping of its module and changes there; lists of integers are looked into. If
    other dimensions of that size stay as they are, its name has to speak of heads. It is left alone
    if dimensions of that size change in different ways.

    Args:
        model: The model.
        findings: What a run has found out.
        found: What survives.
        places: The modules to look at, by name.
    """
    stated: dict[str, dict[str, Any]] = {}
    for place in places:
        new = _sizes_of(findings.sizes, found, place)
        own = {
            name: _restated(name, value, new)
            for name, value in vars(model.get_submodule(place)).items()
            if _is_size(value) or (isinstance(value, (list, tuple)) and all(map(_is_size, value)))
        }
        before = vars(model.get_submodule(place))
        changed = {name: value for name, value in own.items() if value != before[name]}
        if changed:
            stated[place] = changed
    return stated


def _is_size(value: object) -> bool:
    return type(value) is int


def _restated(name: str, value: Any, new: Mapping[int, set[int]]) -> Any:
    """Return what an attribute has to say, one size or several."""
    if not _is_size(value):
        return type(value)(_restated(name, one, new) for one in value)
    sizes = new.get(value, set())
    changed = sizes - {value}
    clear = value not in sizes or "heads" in name or "n_head" in name
    return next(iter(changed)) if len(changed) == 1 and clear else value


def changed_sizes(
    findings: Findings, found: Survivors, places: Collection[str], *, unclear: bool
) -> list[tuple[Layer, set[int]]]:
    """Return the dimensions that change in reshapings of some modules, with their units.

    Args:
        findings: What a run has found out.
        found: What survives.
        places: The modules to look at, by name.
        unclear: Whether to return only those of which others of the same size do not change: one
            attribute can't state two sizes.
    """
    changes = []
    for place in places:
        new = _sizes_of(findings.sizes, found, place)
        for sizes in findings.sizes:
            for shape, layers in sizes.values if sizes.place == place else ():
                changed = {
                    dim
                    for dim, old, kept in _kept(shape, layers, found)
                    if old != kept and (old in new[old] or not unclear)
                }
                changes += [(x, changed & set(x.dims)) for x in layers if changed & set(x.dims)]
    return changes


def _sizes_of(all_sizes: Collection[Sizes], found: Survivors, place: str) -> Mapping[int, set[int]]:
    new: dict[int, set[int]] = defaultdict(set)
    for sizes in all_sizes:
        if sizes.place == place:
            for shape, layers in sizes.values:
                for _, old, kept in _kept(shape, layers, found):
                    new[old].add(kept)
    return new


def _kept(
    shape: torch.Size, layers: Collection[Layer], found: Survivors
) -> Iterator[tuple[int, int, int]]:
    """Yield each dimension that has units, with its size before and after."""
    for dim in sorted({dim for layer in layers for dim in layer.dims}):
        yield dim, shape[dim], int(living(shape, layers, dim, found).count_nonzero())
