"""From a YAML file and ``key=value`` words to the settings of a run. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from infcop.core.config import RunConfig
from infcop.core.validation import validated
from infcop.errors import ConfigError
from infcop.methods import resolve_method

__all__ = ["load_config", "read_yaml", "resolve_config"]


def load_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Return the settings of a file, changed by words such as ``training.lr=0.1``.

    Raises:
        ConfigError: The file is missing or no mapping, or a setting is wrong.
    """
    return resolve_config(read_yaml(path, "examples/digits.yaml"), overrides)


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """Return what a YAML file holds.

    Args:
        path: The file; an empty one holds no settings.
        example: A file to look at, for messages.

    Raises:
        ConfigError: The file is missing, can't be read, or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"'{path}': there is no such file; expected a YAML config") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"'{path}' can't be read as YAML: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"'{path}': expected a mapping of settings, got {type(content).__name__}; see {example}"
        )
    return content


def resolve_config(content: Mapping[str, Any], overrides: Iterable[str] = ()) -> RunConfig:
    """Return the settings of a mapping, changed by words.

    Example:
        >>> resolve_config({"method": "lth"}, ["density=0.1", "method.scope=global"]).density
        0.1
    """
    settings: Any = dict(content)
    settings.setdefault("method", "infcop")
    for word in overrides:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ConfigError(f"'{word}': expected key=value, for instance training.lr=0.1")
        settings = _with(settings, key.split("."), _parsed(value), key)
    method = resolve_method(settings["method"])
    return validated(RunConfig, {**settings, "method": method})


def _parsed(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _with(node: Any, path: list[str], value: Any, key: str) -> Any:
    """Return a copy of a nested mapping with one value replaced."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(node, list):
        if not head.isdecimal() or int(head) >= len(node):
            raise ConfigError(f"{key}: '{head}' is no place in a list of {len(node)} entries")
        return [
            _with(item, rest, value, key) if i == int(head) else item for i, item in enumerate(node)
        ]
    node = node or {}
    if head == "method" and rest and isinstance(node.get(head), str):
        node = {**node, head: {"name": node[head]}}
    if head in ("rule", "kind") and node.get(head, value) != value:
        node = {}  # settings of another rule or schedule have no meaning for this one
    inner = node.get(head)
    if rest and inner is not None and not isinstance(inner, dict | list):
        raise ConfigError(f"{key}: '{head}' holds {inner!r}, which has no '{rest[0]}' in it")
    return {**node, head: _with(inner if rest else None, rest, value, key)}
