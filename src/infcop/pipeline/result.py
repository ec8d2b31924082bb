"""What a search returns."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from infcop.collapse import Compact, compact
from infcop.core.mask import Masks
from infcop.core.records import Outcome, RunRecord
from infcop.errors import CollapseError
from infcop.models.calling import Inputs
from infcop.pipeline.exporting import Exported, Source, export_files
from infcop.pipeline.pages import write_page
from infcop.pipeline.store import RunStore
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
        example_inputs: What the model is called with for some examples of the probe, on the CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        store: RunStore,
        record: RunRecord,
        example_inputs: Inputs | None = None,
        examples: int | None = None,
    ) -> None:
        self._store = store
        self.run_dir: Path = store.root
        self.record = record
        self.example_inputs = example_inputs
        self._examples = examples
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
        return write_page(self._store, self.record)

    def export(
        self,
        to: str | Sequence[str],
        *,
        example_inputs: Inputs | None = None,
        network: str | None = None,
        out: str | os.PathLike[str] | None = None,
        licence: str | None = None,
    ) -> tuple[Exported, ...]:
        """Write the network in formats that others read, each with its manifest beside it.

        Args:
            to: ``onnx``, ``safetensors``, ``sparse``, ``torch-export`` or ``state-dict``; several
                in a list, or with commas between.
            example_inputs: A tuple of positional arguments or a mapping of keyword arguments; by
                default some examples of the probe.
            network: ``masked`` or ``compact``; by default the compact one as ONNX and as a program
                of ``torch.export``, and the masked one as weights.
            out: Folder for the files; by default ``export`` in the run folder.
            licence: Of the weights, for the manifest.

        Raises:
            ConfigError: A format or the network is unknown.
            ExportError: The network can't be exported, or a file can't be written.
            CollapseError: The network can't be made smaller.
        """
        own = example_inputs is None
        inputs = self.example_inputs if own else example_inputs
        source = Source(
            record=self.record,
            masked=self.model,
            compact=lambda: self.compact(inputs).model,
            inputs=inputs,
            examples=self._examples if own else None,
        )
        if out is not None:
            return export_files(source, to, Path(out), network=network, licence=licence)
        with self._store.locked():
            return export_files(source, to, self._store.exports, network=network, licence=licence)

    def compact(self, example_inputs: Inputs | None = None) -> Compact:
        """Return the smallest dense network that does what the sparse network does.

        Args:
            example_inputs: A tuple of positional arguments or a mapping of keyword arguments; by
                default some examples of the probe.

        Raises:
            CollapseError: The model can't be traced or nothing could be verified, or no inputs are
                known.
        """
        inputs = self.example_inputs if example_inputs is None else example_inputs
        if inputs is None:
            raise CollapseError(
                "compact: expected example inputs, got none, and this result knows no data; pass "
                "result.compact(example_inputs), for instance a tuple with one batch"
            )
        return compact(self.model, self.masks, inputs)


def _masks(store: RunStore, record: RunRecord) -> Masks:
    if not record.levels:
        return Masks.full(record.model.prunable)
    masks = store.read_tensors(store.masks)[0]
    return Masks({name: masks[name] for name in record.model.prunable})
