"""The guide on comparing methods names every setting of a comparison, with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from infcop.core.compare import CompareConfig, LevelsChange, StudyMethod, StudySetting
from tests.docs.test_docs import tables_of

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "comparing.md").read_text(encoding="utf-8")


def defaults_of(cls: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        value = "required" if field.is_required() else field.get_default()
        inner = isinstance(value, BaseModel)
        found[name] = value.model_dump(exclude_none=True) if inner else value
    return found


def test_every_setting_is_in_the_guide() -> None:
    rows = tables_of(GUIDE)[("key", "default", "meaning")]
    told = {row["key"]: yaml.safe_load(row["default"]) for row in rows}
    real = defaults_of(CompareConfig) | defaults_of(StudyMethod)
    real = {key: list(v) if isinstance(v, tuple) else v for key, v in real.items()}
    assert {key: None if value == "none" else value for key, value in told.items()} == real


@pytest.mark.parametrize("cls", [StudySetting, LevelsChange])
def test_every_part_is_named(cls: type[BaseModel]) -> None:
    assert [name for name in cls.model_fields if f"`{name}`" not in GUIDE] == []
