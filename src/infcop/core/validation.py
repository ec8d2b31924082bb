"""Turning what a user wrote into settings, or into a message that names the key and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from infcop.core.names import did_you_mean
from infcop.errors import ConfigError

__all__ = ["merged", "validated"]

Model = TypeVar("Model", bound=BaseModel)

_DISCRIMINATORS = ("rule", "kind")


def validated(cls: type[Model], data: Mapping[str, object], at: str = "") -> Model:
    """Return a validated model.

    Args:
        cls: The class of settings.
        data: What the user wrote.
        at: The key under which ``data`` stands in the whole, for messages.

    Raises:
        ConfigError: Names each wrong key, its value, what was expected and the nearest valid name.

    Example:
        >>> from infcop.core.config import DenseConfig
        >>> validated(DenseConfig, {"pases": 3}, at="dense")
        Traceback (most recent call last):
        ...
        infcop.errors.ConfigError: dense.pases: unknown setting; did you mean 'passes'? ...
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        details = error.errors()
        told = [d for d in details if not _confuses(d, details)] or details
        lines = [_explained(cls, data, detail, at) for detail in told]
        raise ConfigError("\n".join(lines)) from None


def _confuses(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Whether a mistake only follows from another one, and would hide it.

    A list with a wrong entry counts as too short as well, and a misspelt name as no mapping where a
    mapping may stand too.
    """
    beside = {d["loc"][:-1] for d in details if d["type"] == "literal_error"}
    no_mapping = detail["type"] == "model_type" and detail["loc"][:-1] in beside
    return no_mapping or detail["type"] == "too_short"


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with nested changes; another ``rule`` or ``kind`` replaces its whole mapping.

    Example:
        >>> merged({"stop": {"rule": "plateau", "patience": 2}}, {"stop": {"patience": 3}})
        {'stop': {'rule': 'plateau', 'patience': 3}}
        >>> merged({"stop": {"rule": "plateau", "patience": 2}}, {"stop": {"rule": "any-of"}})
        {'stop': {'rule': 'any-of'}}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _other(old, value):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def _other(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(key in new and new[key] != old.get(key) for key in _DISCRIMINATORS)


def _explained(
    cls: type[BaseModel], data: Mapping[str, object], detail: ErrorDetails, at: str
) -> str:
    location = detail["loc"]
    fields = _fields_at(cls, location[:-1])
    keys = [at, *_keys(data, location)]
    if detail["type"] == "missing":
        keys.append(location[-1])
    key = ".".join(str(part) for part in keys if part != "")
    where = key or "settings"
    kind, got, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: unknown setting; {did_you_mean(location[-1], fields)}"
    if kind == "missing":
        return f"{where}: a value is required and none was given"
    if kind == "literal_error":
        return f"{where}: got {got!r}; {did_you_mean(got, _quoted(context['expected']))}"
    if kind == "union_tag_invalid":
        tag = context["tag"]
        return f"{where}: got {tag!r}; {did_you_mean(tag, _quoted(context['expected_tags']))}"
    if kind == "union_tag_not_found":
        return f"{where}: got {got!r}; expected a mapping with the key {context['discriminator']}"
    if kind == "value_error":
        return f"{where}: {context['error']}" if key else str(context["error"])
    message = detail["msg"].replace("Input should be", "expected").replace("Value", "value")
    return f"{where}: got {got!r}; {message[0].lower()}{message[1:]}{_hint(location, got)}"


def _hint(location: tuple[int | str, ...], got: object) -> str:
    """Return a remedy for the slip that everybody makes once."""
    if location[-1:] == ("density",) and isinstance(got, int | float) and 1 < got <= 100:
        return f". Density is the fraction kept: write {got / 100:g} for {got:g} %"
    return ""


def _quoted(text: str) -> list[str]:
    """Return the names in pydantic's ``'a', 'b' or 'c'``."""
    return [part for index, part in enumerate(text.split("'")) if index % 2]


def _fields_at(cls: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    models: list[type[BaseModel]] = [cls]
    for part in location:
        inner = [
            nested
            for model in models
            if part in model.model_fields
            for nested in _models_in(model.model_fields[str(part)].annotation)
        ]
        tagged = [model for model in models if part in _tags(model)]
        models = inner or tagged or models
    return sorted({field for model in models for field in model.model_fields})


def _keys(data: Any, location: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield the keys that the user wrote: pydantic also lists which member of a union failed."""
    for part in location:
        if _holds(data, part):
            data = data[part]
            yield part


def _holds(data: object, key: int | str) -> bool:
    if isinstance(data, Mapping):
        return key in data
    return isinstance(data, list | tuple) and isinstance(key, int) and key < len(data)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _tags(model: type[BaseModel]) -> set[object]:
    return {model.model_fields[key].default for key in _DISCRIMINATORS if key in model.model_fields}
