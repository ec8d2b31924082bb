"""From a YAML file to the settings of a comparison. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infcop.core.compare import CompareConfig, StudySetting
from infcop.core.config import DataConfig
from infcop.core.validation import validated
from infcop.data.registry import find_set
from infcop.errors import ConfigError, DataError
from infcop.methods import resolve_method
from infcop.pipeline.configure import read_yaml

__all__ = ["check_data", "load_comparison", "resolve_comparison", "with_data_dir"]


def load_comparison(path: Path) -> CompareConfig:
    """Return the settings of a file.

    Raises:
        ConfigError: The file is missing or no mapping, or a setting is wrong.
    """
    return resolve_comparison(read_yaml(path, "examples/compare.yaml"))


def resolve_comparison(content: Mapping[str, Any]) -> CompareConfig:
    """Return the settings of a mapping, methods being named as in the settings of a run.

    Raises:
        ConfigError: Names each wrong key, and what was expected.

    Example:
        >>> settings = {"baseline": "lth", "densities": [0.1], "settings": {"digits": {}}}
        >>> resolve_comparison({**settings, "methods": {"lth": {"method": "lth"}}}).seeds
        (0, 1, 2)
        >>> resolve_comparison({**settings, "methods": {"lth": {"method": "lht"}}})
        Traceback (most recent call last):
        ...
        infcop.errors.ConfigError: methods.lth.method: got 'lht'; did you mean 'lth'? ...
    """
    methods = content.get("methods")
    if isinstance(methods, Mapping):
        methods = {label: _resolved(f"methods.{label}", entry) for label, entry in methods.items()}
        content = {**content, "methods": methods}
    return validated(CompareConfig, content)


def with_data_dir(config: CompareConfig, folder: str | None) -> CompareConfig:
    """Return the same comparison with data from another folder."""
    if folder is None:
        return config

    def moved(setting: StudySetting) -> StudySetting:
        data = DataConfig.model_validate({**setting.data.model_dump(), "dir": folder})
        return setting.model_copy(update={"data": data})

    settings = {label: moved(setting) for label, setting in config.settings.items()}
    return config.model_copy(update={"settings": settings})


def check_data(config: CompareConfig) -> None:
    """Make sure that the data of every setting is there, without loading it.

    Raises:
        ConfigError: A data set is unknown.
        DataError: A data set is not where it was looked for.
    """
    for label, setting in config.settings.items():
        try:
            find_set(setting.data.name, setting.data.dir)
        except (ConfigError, DataError) as error:
            raise type(error)(f"settings.{label}.data: {error}") from None


def _resolved(at: str, entry: Any) -> Any:
    if not isinstance(entry, Mapping) or "method" not in entry:
        return entry
    try:
        return {**entry, "method": resolve_method(entry["method"])}
    except ConfigError as error:
        lines = "\n".join(f"{at}.{line}" for line in str(error).splitlines())
        raise ConfigError(lines) from None
