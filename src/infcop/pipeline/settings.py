"""The settings of a run as its folder keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infcop.core.config import RunConfig, SearchConfig

__all__ = ["MAY_CHANGE", "differences", "read_back", "written"]

_OWN = "custom"
_DECIDED_BY_OWN_CODE = ("batch_size", "label_smoothing")

MAY_CHANGE = (
    "data.dir",
    "execution.checkpoint_seconds",
    "execution.device",
    "execution.threads",
)
"""Where a run computes and where its data lies may change on the way; what it does may not."""


def written(config: SearchConfig, model_name: str) -> dict[str, Any]:
    """Return the settings that were in force, as plain values.

    A search with a user's own model and loaders keeps no batch size, because the loaders decide
    it, and names the data as custom, so that nobody takes the file for a run of its own.
    """
    settings = config.model_dump(mode="json")
    if not isinstance(config, RunConfig):
        for key in _DECIDED_BY_OWN_CODE:
            del settings["training"][key]
        settings |= {"data": {"name": _OWN}, "model": {"name": model_name}}
    return settings


def read_back(stored: Mapping[str, Any], config: SearchConfig) -> dict[str, Any]:
    """Return stored settings with today's defaults for those that did not exist then.

    Raises:
        ValueError: They are no settings of this version.
    """
    own = not isinstance(config, RunConfig)
    names = {key: stored.get(key) for key in ("data", "model")} if own else {}
    known = {key: value for key, value in stored.items() if key not in names}
    settings = type(config).model_validate(known).model_dump(mode="json")
    if own:
        for key in _DECIDED_BY_OWN_CODE:
            del settings["training"][key]
    return {**settings, **names}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say in words which settings differ, but for those that may."""
    return [
        f"{key} is {old!r} there, {new!r} now"
        for key, old, new in _differing(there, here)
        if key not in MAY_CHANGE
    ]


def _differing(
    there: Mapping[str, Any], here: Mapping[str, Any], at: str = ""
) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*there, *here}):
        old, new = there.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differing(old, new, f"{at}{key}.")
        elif old != new:
            found.append((f"{at}{key}", old, new))
    return found
