"""infcop: sparse neural networks with little training.

The public names are loaded when they are first used, so that ``import infcop`` and the command
line's help stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infcop.collapse import Compact, compact, restore_into
    from infcop.collapse.load import load_compact
    from infcop.core.mask import Masks
    from infcop.core.method import MethodConfig
    from infcop.core.records import RunRecord
    from infcop.core.study import StudyResults
    from infcop.export.sparse_read import load_sparse
    from infcop.export.sparse_write import save_sparse
    from infcop.flow.meter import FlowMeter
    from infcop.masking.apply import MaskEnforcer
    from infcop.methods import METHODS, resolve_method
    from infcop.pipeline.measure import measure
    from infcop.pipeline.measurement import Measurement
    from infcop.pipeline.result import Result
    from infcop.pipeline.search import search
    from infcop.pipeline.store import load_record
    from infcop.study.compare import compare
    from infcop.tasks.base import Metrics, Task
    from infcop.tasks.classification import Classification

_HOMES = {
    "Classification": "tasks.classification",
    "Compact": "collapse",
    "FlowMeter": "flow.meter",
    "METHODS": "methods",
    "MaskEnforcer": "masking.apply",
    "Masks": "core.mask",
    "Measurement": "pipeline.measurement",
    "MethodConfig": "core.method",
    "Metrics": "tasks.base",
    "Result": "pipeline.result",
    "RunRecord": "core.records",
    "StudyResults": "core.study",
    "Task": "tasks.base",
    "compact": "collapse",
    "compare": "study.compare",
    "load_compact": "collapse.load",
    "load_record": "pipeline.store",
    "load_sparse": "export.sparse_read",
    "measure": "pipeline.measure",
    "resolve_method": "methods",
    "restore_into": "collapse",
    "save_sparse": "export.sparse_write",
    "search": "pipeline.search",
}

__all__ = [
    "Classification",
    "Compact",
    "FlowMeter",
    "METHODS",
    "MaskEnforcer",
    "Masks",
    "Measurement",
    "MethodConfig",
    "Metrics",
    "Result",
    "RunRecord",
    "StudyResults",
    "Task",
    "compact",
    "compare",
    "load_compact",
    "load_record",
    "load_sparse",
    "measure",
    "resolve_method",
    "restore_into",
    "save_sparse",
    "search",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("infcop")
    if name not in _HOMES:
        raise AttributeError(f"module 'infcop' has no attribute '{name}'")
    return getattr(import_module(f"infcop.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
