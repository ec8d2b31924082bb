"""Keeping layers dense that could be pruned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from infcop.core.names import did_you_mean
from infcop.errors import ConfigError
from infcop.models.prunable import Prunable
from infcop.models.unwrap import unwrapped

__all__ = ["leave_out"]


def leave_out(model: nn.Module, prunable: Prunable, patterns: Iterable[str]) -> Prunable:
    """Return what is prunable without the weights that the patterns name.

    A pattern is ``first`` or ``last``, for the places in the order of definition; the class of a
    layer, its bases included, for instance ``Conv2d``; or the name of a weight or of its layer,
    where ``*`` stands for any characters. The two words always mean the places: a layer that is
    itself called ``first`` goes by the name of its weight, ``first.weight``.

    Args:
        model: The model.
        prunable: What ``find_prunable(model)`` returned.
        patterns: What to leave out.

    Raises:
        ConfigError: A pattern names nothing, or nothing is left to prune.

    Example:
        >>> from infcop.models.prunable import find_prunable
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> leave_out(model, find_prunable(model), ["Conv2d", "last"]).names
        ('1.weight',)
    """
    names = prunable.names
    reasons: dict[str, str] = {}
    for pattern in patterns:
        found = [n for place, n in enumerate(names) if _means(pattern, n, place, names, model)]
        if not found:
            classes = {own for name in names for own in _classes(model, name)}
            known = [*names, *map(_layer, names), *sorted(classes), "first", "last"]
            raise ConfigError(
                f"method.exclude: '{pattern}' names no prunable layer; "
                f"{did_you_mean(pattern, known)}"
            )
        reasons |= dict.fromkeys(found, f"left out by method.exclude '{pattern}'")
    if len(reasons) == len(names):
        raise ConfigError(
            f"method.exclude: expected to leave something to prune, but all {len(names)} prunable "
            "weights are left out; name fewer of them"
        )
    kept = tuple(name for name in names if name not in reasons)
    shapes = {name: prunable.shapes[name] for name in kept}
    return Prunable(kept, shapes, {**prunable.excluded, **reasons})


def _means(pattern: str, name: str, place: int, names: Sequence[str], model: nn.Module) -> bool:
    if pattern in ("first", "last"):
        return place == (0 if pattern == "first" else len(names) - 1)
    by_class = pattern in _classes(model, name)
    return by_class or fnmatchcase(name, pattern) or fnmatchcase(_layer(name), pattern)


def _classes(model: nn.Module, name: str) -> set[str]:
    """Return the names of the class of a weight's layer and of its bases."""
    layer = unwrapped(model).get_submodule(_layer(name))
    return {base.__name__ for base in type(layer).__mro__} - {"Module", "object"}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
