"""Loading a data set by name: where it is looked for, and what to do where it is not there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infcop.core.names import did_you_mean
from infcop.data.sets import DATA_SETS, DataSet
from infcop.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from infcop.data.arrays import ImageSet

__all__ = ["DATA_SETS", "ENVIRONMENT_VARIABLE", "Availability", "available", "find_set", "load_set"]

ENVIRONMENT_VARIABLE = "INFCOP_DATA"
"""The folder of all data sets, where none is given."""


@dataclass(frozen=True)
class Availability:
    """Whether a known set can be loaded.

    Attributes:
        name: Of the set.
        description: One line.
        published: Where to get it, by name.
        where: The folder it was found in, or what it comes with; None where it was not found.
    """

    name: str
    description: str
    published: str
    where: str | None


def load_set(name: str, data_dir: str | None = None) -> ImageSet:
    """Load a known set by name.

    It is looked for in ``data_dir``, by default the folder that ``INFCOP_DATA`` names, by default
    ``data``: first in the sub-folders with a customary name, then in the folder itself.

    Args:
        name: A key of ``DATA_SETS``.
        data_dir: The folder of all sets, or of this one.

    Raises:
        ConfigError: The name is unknown.
        MissingDataError: The set is not there; the message says which files to put where.
        DataError: A file is damaged.

    Example:
        >>> load_set("digits").channels
        1
        >>> load_set("cifar10")
        Traceback (most recent call last):
            ...
        infcop.errors.ConfigError: load_set: unknown data set 'cifar10'; did you mean 'cifar-10'...
    """
    folder = find_set(name, data_dir)
    return DATA_SETS[name].load(folder)


def find_set(name: str, data_dir: str | None = None) -> Path:
    """Return the folder that ``load_set`` would load a set from; nothing is loaded.

    Raises:
        ConfigError: The name is unknown.
        MissingDataError: The set is not there.

    Example:
        >>> find_set("mnist", "nowhere")
        Traceback (most recent call last):
            ...
        infcop.errors.MissingDataError: load_set: 'mnist' is not in 'nowhere' nor in its ...
    """
    if name not in DATA_SETS:
        raise ConfigError(f"load_set: unknown data set '{name}'; {did_you_mean(name, DATA_SETS)}")
    data_set = DATA_SETS[name]
    if not data_set.folders:
        return Path()
    root = _root(data_dir)
    folder = _find(data_set, root)
    if folder is None:
        raise MissingDataError(_how_to_get(name, data_set, root))
    return folder


def available(data_dir: str | None = None) -> list[Availability]:
    """Return for each known set whether it was found, and where; nothing is loaded.

    Args:
        data_dir: As for ``load_set``.

    Example:
        >>> [entry.name for entry in available()][:3]
        ['digits', 'mnist', 'fashion-mnist']
    """
    root = _root(data_dir)
    return [
        Availability(name, data_set.description, data_set.published, _where(data_set, root))
        for name, data_set in DATA_SETS.items()
    ]


def _root(data_dir: str | None) -> Path:
    return Path(data_dir or os.environ.get(ENVIRONMENT_VARIABLE) or "data").expanduser()


def _where(data_set: DataSet, root: Path) -> str | None:
    if not data_set.folders:
        return None if data_set.missing(root) else data_set.published
    folder = _find(data_set, root)
    return None if folder is None else str(folder)


def _find(data_set: DataSet, root: Path) -> Path | None:
    return next((path for path in _candidates(data_set, root) if not data_set.missing(path)), None)


def _candidates(data_set: DataSet, root: Path) -> list[Path]:
    inside = [root / folder for folder in data_set.folders]
    # MNIST and Fashion-MNIST have the same file names: a folder that is called like one of them
    # must not pass for the other.
    others = (other for other in DATA_SETS.values() if other is not data_set)
    taken = {folder for other in others for folder in other.folders}
    path = root.resolve()
    names = {path.name, f"{path.parent.name}/{path.name}"}
    return inside if names & taken else [*inside, root]


def _how_to_get(name: str, data_set: DataSet, root: Path) -> str:
    partial = [
        f"{path} lacks {', '.join(data_set.missing(path))}"
        for path in _candidates(data_set, root)
        if path != root and path.is_dir()
    ]
    return (
        f"load_set: '{name}' is not in '{root}' nor in its sub-folders "
        f"{', '.join(data_set.folders)}{''.join(f'; {part}' for part in partial)}. "
        f"Needed: {data_set.files}. Published: {data_set.published}. "
        f"Put the files into '{root / data_set.folders[0]}', or name their folder with "
        f"--data-dir or the environment variable {ENVIRONMENT_VARIABLE}."
    )
