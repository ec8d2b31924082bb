"""What a search returns."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from infcop.core.mask import Masks
from infcop.core.records import Outcome, RunRecord
from infcop.pipeline.store import RunStore
from infcop.report.page import write_report
from infcop.report.summary import summary_lines
from infcop.rewinding.snapshot import Snapshot

__all__ = ["Result"]


class Result:
    """A finished search.

    Attributes:
        model: The sparse network: the user's own class with a plain ``state_dict``, pruned entries
            exactly zero, no hooks and no extra attributes; on the CPU, in evaluation mode.
        masks: What survives, by parameter name.
        record: Every level, reading, decision and cost.
        run_dir: The folder that holds all of it.
    """

    def __init__(self, model: nn.Module, store: RunStore, record: RunRecord) -> None:
        self._store = store
        self.run_dir: Path = store.root
        self.record = record
        self.masks = _masks(store, record)
        self.model = copy.deepcopy(model).cpu().eval()
        Snapshot(store.read_tensors(store.sparse)[0]).restore(self.model)
        for parameter in self.model.parameters():
            parameter.grad = None

    @property
    def outcome(self) -> Outcome:
        """Densities, metrics and cost of the finished run."""
        if self.record.outcome is None:
            raise AssertionError("a result is made of a finished run")
        return self.record.outcome

    @property
    def density(self) -> float:
        """Surviving over all prunable entries."""
        return self.outcome.density

    def summary(self) -> str:
        """Return the answer in a few lines of plain text."""
        return "\n".join(summary_lines(self.record))

    def report(self) -> Path:
        """Write the page anew and return its path."""
        return write_report(self.record, self._store.report)


def _masks(store: RunStore, record: RunRecord) -> Masks:
    if not record.levels:
        return Masks.full(record.model.prunable)
    masks = store.read_tensors(store.masks)[0]
    return Masks({name: masks[name] for name in record.model.prunable})
