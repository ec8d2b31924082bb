"""Every key of a variant of an axis is in the reference of settings, with its default."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from infcop.core.pattern import Pattern
from infcop.core.regrow import Regrow
from infcop.core.scope import Scope
from infcop.core.score import Score
from infcop.core.start import Start

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "configuration.md"
AXES: dict[str, Any] = {"start": Start, "score": Score, "pattern": Pattern, "scope": Scope}


def classes_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the classes of settings that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = typing.get_args(annotation)
    return list(dict.fromkeys(cls for part in parts for cls in classes_in(part)))


def keys_of(cls: type[BaseModel]) -> dict[str, Any]:
    fields = {name: field for name, field in cls.model_fields.items() if name != "kind"}
    return {n: "required" if f.is_required() else f.get_default() for n, f in fields.items()}


def rows_of(header: str) -> list[list[str]]:
    """Return the rows of the table with these heads, marks of code removed."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = []
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def test_classes_are_found() -> None:
    assert {len(classes_in(axis)) for axis in AXES.values()} == {3, 10, 6, 1}


@pytest.mark.parametrize("axis", AXES)
def test_keys_of_variants_are_documented_with_their_defaults(axis: str) -> None:
    rows = rows_of("| variant | key | default | meaning |")
    shown = {
        (variant, key): yaml.safe_load(default)
        for variant, key, default, _ in rows
        if variant.split()[0] == axis
    }
    real = {
        (f"{axis} {cls.model_fields['kind'].default}", key): default
        for cls in classes_in(AXES[axis])
        for key, default in keys_of(cls).items()
    }
    assert shown == real
    assert {row[0].split()[0] for row in rows} == set(AXES)


def test_keys_of_regrowth_are_documented_with_their_defaults() -> None:
    rows = rows_of("| key of `regrow` | default | meaning |")
    assert {key: yaml.safe_load(default) for key, default, _ in rows} == keys_of(Regrow)
