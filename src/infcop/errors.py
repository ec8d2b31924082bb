"""Every error and warning infcop raises.

InfcopError
├── ConfigError            a setting is unknown, malformed or out of range
├── DataError              a data file or loader can't be used
│   └── MissingDataError   the data set is not where it was looked for
├── ModelError             the model can't be searched (nothing prunable, half precision, ...)
├── FlowError              flow can't be measured (no edge, empty probe, non-finite reference, ...)
├── PruningError           a mask or a budget can't be honoured
│   └── LayerCollapseError a layer would lose all its weights
├── CollapseError          a masked network can't be made a smaller dense one
├── ExportError            a network can't be written in a format, or a file can't be read
├── TrainingError          training went wrong (non-finite loss, ...)
└── RunFolderError         a run folder is locked, unwritable, newer, or belongs to another run

InfcopWarning
└── NoEffectWarning        a step that was asked for changed nothing

Each message says what was expected, what came, and what to change.
"""

from __future__ import annotations

__all__ = [
    "CollapseError",
    "ConfigError",
    "DataError",
    "ExportError",
    "FlowError",
    "InfcopError",
    "InfcopWarning",
    "LayerCollapseError",
    "MissingDataError",
    "ModelError",
    "NoEffectWarning",
    "PruningError",
    "RunFolderError",
    "TrainingError",
]


class InfcopError(Exception):
    """Base of all infcop errors."""

    exit_code = 2
    """What the command line exits with: 2 for bad input, 3 for a run that failed midway."""


class ConfigError(InfcopError, ValueError):
    """A setting is unknown, malformed or out of range."""


class DataError(InfcopError, ValueError):
    """A data file or loader can't be used."""


class MissingDataError(DataError, FileNotFoundError):
    """A data set is not where it was looked for."""


class ModelError(InfcopError, ValueError):
    """The model can't be searched as it is."""


class FlowError(InfcopError, ValueError):
    """Flow can't be measured."""


class PruningError(InfcopError, ValueError):
    """A mask or a pruning budget can't be honoured."""


class LayerCollapseError(PruningError):
    """A layer would lose all its weights."""


class CollapseError(InfcopError, ValueError):
    """A masked network can't be made a smaller dense one that does the same."""

    exit_code = 3


class ExportError(InfcopError, ValueError):
    """A network can't be written in a format, or a file that was written can't be read."""


class TrainingError(InfcopError, RuntimeError):
    """Training went wrong; everything saved before stays readable."""

    exit_code = 3


class RunFolderError(InfcopError, RuntimeError):
    """A run folder is locked, unwritable, newer than this version, or of another run."""


class InfcopWarning(UserWarning):
    """Base of all infcop warnings."""


class NoEffectWarning(InfcopWarning):
    """A step that was asked for changed nothing."""
