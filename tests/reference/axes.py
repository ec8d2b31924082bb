"""What is registered on each axis of a method.

Members are found in the unions of the settings, so that a new one is swept without a change here.
Arguments that have no default can't be found there: they have a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from itertools import product
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

Shapes = Mapping[str, tuple[int, ...]]


def _budgets(shapes: Shapes, density: float) -> dict[str, Any]:
    """Half the density for the first layer, and what is left for the others."""
    first, *others = (math.prod(shape) for shape in shapes.values())
    if not others:
        return {"densities": {"*": density}}
    rest = density * (first / 2 + sum(others)) / sum(others)
    return {"densities": {next(iter(shapes)): density / 2, "*": rest}}


def _listed(shapes: Shapes, density: float) -> dict[str, Any]:
    """Two densities on the way, and one below the target."""
    return {"densities": (0.9, (1 + density) / 2, density / 2)}


def _few_levels(shapes: Shapes, density: float) -> dict[str, Any]:
    """Enough to see the shape of a schedule."""
    return {"levels": 5}


ARGUMENTS: dict[str, Callable[[Shapes, float], dict[str, Any]]] = {
    "Budgets": _budgets,
    "Listed": _listed,
    "Linear": _few_levels,
    "Cubic": _few_levels,
}
"""By the class of settings, what has no default, or one that takes long: for these layers and this
density of a search."""

_ANY_SHAPES: Shapes = {"a": (4, 4), "b": (4, 4)}


def members(axis: Any) -> list[Any]:
    """Return what an axis may hold: classes of settings, and the words of a literal."""
    origin = get_origin(axis)
    if origin is Annotated:
        return members(get_args(axis)[0])
    if origin is Literal:
        return list(get_args(axis))
    if origin in (Union, UnionType):
        return [member for part in get_args(axis) for member in members(part)]
    return [axis]


def unprepared(axis: Any) -> str:
    """Return what to add to ``ARGUMENTS``, as a sentence; nothing if all members can be made."""
    lacking = [m.__name__ for m in members(axis) if not isinstance(m, str) and not _can_be_made(m)]
    if not lacking:
        return ""
    return f"add {', '.join(lacking)} to ARGUMENTS in tests/reference/axes.py, to sweep it"


def settings(axis: Any, shapes: Shapes = _ANY_SHAPES, density: float = 0.3) -> dict[str, Any]:
    """Return every member of an axis by a readable name, once for each choice of its words."""
    found: dict[str, Any] = {}
    for member in members(axis):
        if isinstance(member, str):
            found[member] = member
            continue
        if not _can_be_made(member):
            continue  # a test of its own says so
        given = ARGUMENTS.get(member.__name__, lambda *_: {})(shapes, density)
        choices = {
            name: words
            for name, field in member.model_fields.items()
            if name not in given and len(words := _words(field.annotation)) > 1
        }
        for chosen in product(*choices.values()):
            own = dict(zip(choices, chosen, strict=True))
            words = [name if word is True else word for name, word in own.items() if word]
            found["-".join([_kind(member), *words])] = member(**given, **own)
    return found


def kind_of(setting: Any) -> str:
    """Return the word that a member goes by."""
    return setting if isinstance(setting, str) else setting.kind


def without_twin(axis: Any, twins: Collection[str]) -> str:
    """Return which formulas are to be added to a table, as a sentence; nothing if none."""
    kinds = [member if isinstance(member, str) else _kind(member) for member in members(axis)]
    lacking = [kind for kind in kinds if kind not in twins]
    if not lacking:
        return ""
    return f"add a slow twin of {', '.join(lacking)} to tests/reference/axis_twins.py"


def _kind(member: Any) -> str:
    kind: str = member.model_fields["kind"].default
    return kind


def _can_be_made(member: Any) -> bool:
    required = any(field.is_required() for field in member.model_fields.values())
    return not required or member.__name__ in ARGUMENTS


def _words(annotation: Any) -> list[Any]:
    if annotation is bool:
        return [False, True]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []
