"""The base of every configuration and record value."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Value", "named"]


class Value(BaseModel):
    """An immutable value that refuses unknown fields and survives a round trip through JSON.

    Non-finite floats travel as the strings ``"NaN"`` and ``"Infinity"``, so the files stay
    standard JSON.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", validate_default=True
    )


def named(value: Any) -> Any:
    """Return the mapping that a bare name stands for: the kind, and the defaults of the rest.

    For use before the validation of a union of settings that are told apart by ``kind``.

    Example:
        >>> named("cubic")
        {'kind': 'cubic'}
        >>> named({"kind": "cubic", "levels": 5})
        {'kind': 'cubic', 'levels': 5}
    """
    return {"kind": value} if isinstance(value, str) else value
