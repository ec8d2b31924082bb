"""Named methods: each a short composition of the independent axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infcop.core.method import MethodConfig
from infcop.core.names import did_you_mean
from infcop.core.validation import merged, validated
from infcop.errors import ConfigError
from infcop.methods.infcop import infcop_gf, infcop_if
from infcop.methods.lth import lth
from infcop.methods.sap import sap

__all__ = ["METHODS", "NamedMethod", "resolve_method"]


@dataclass(frozen=True)
class NamedMethod:
    """A method and what ``infcop methods`` says about it."""

    build: Callable[[], MethodConfig]
    summary: str


METHODS: dict[str, NamedMethod] = {
    "infcop-gf": NamedMethod(
        infcop_gf, "adaptive pruning; a level stops when the gradient flow has come back"
    ),
    "infcop-if": NamedMethod(
        infcop_if, "adaptive pruning; a level stops when the information flow has come back"
    ),
    "lth": NamedMethod(
        lth, "iterative magnitude pruning, a fixed fraction per level, the full budget each time"
    ),
    "sap": NamedMethod(sap, "adaptive pruning by the PQ index, the full budget at every level"),
}


def resolve_method(method: str | Mapping[str, object] | MethodConfig) -> MethodConfig:
    """Return the axes of a named method, changed as asked for.

    Args:
        method: A name; a mapping with a ``name`` and the axes to change; or the axes themselves.

    Raises:
        ConfigError: The name or an axis is unknown.

    Example:
        >>> resolve_method({"name": "lth", "scope": "global"}).scope
        'global'
    """
    if isinstance(method, MethodConfig):
        return method
    if not isinstance(method, str | Mapping):
        raise ConfigError(
            f"method: expected a name, or a mapping with a name and the axes to change, got "
            f"{method!r}; {did_you_mean(method, METHODS)}"
        )
    changes = {"name": method} if isinstance(method, str) else dict(method)
    name = changes.get("name")
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method: got {name!r}; {did_you_mean(name, METHODS)}")
    base = METHODS[name].build().model_dump()
    return validated(MethodConfig, merged(base, changes), at="method")
