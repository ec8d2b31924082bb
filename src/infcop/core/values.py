"""The base of every configuration and record value."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Value"]


class Value(BaseModel):
    """An immutable value that refuses unknown fields and survives a round trip through JSON.

    Non-finite floats travel as the strings ``"NaN"`` and ``"Infinity"``, so the files stay
    standard JSON.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", validate_default=True
    )
