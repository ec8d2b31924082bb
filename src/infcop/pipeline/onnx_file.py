"""The network that was exported as ONNX, as one more to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.errors import ExportError
from infcop.export.onnx import onnx_session, onnx_weights
from infcop.models.calling import Inputs

__all__ = ["OnnxFile", "onnx_file"]


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX file that runs.

    Attributes:
        file: The file.
        session: Given a number of threads, returns what runs it on tensors.
    """

    file: Path
    session: Callable[[int], Callable[[tuple[Tensor, ...]], list[Tensor]]]

    def as_module(self, output: Any) -> nn.Module:
        """Return a module that gives what the file gives, for a task to evaluate.

        Args:
            output: What the network gives that was exported, for the structure around its tensors.
        """
        return _Runs(_arranged(self.session(1), output))

    def weights(self) -> tuple[int, int]:
        """Return how many entries its weights have, and how many of them are not zero.

        Raises:
            ExportError: onnx is not installed or can't read the file.
        """
        sizes = [(x.numel(), int(x.count_nonzero())) for x in onnx_weights(self.file)]
        return sum(size for size, _ in sizes), sum(kept for _, kept in sizes)


def onnx_file(file: Path, batches: Iterable[Inputs]) -> OnnxFile | str:
    """Return what runs an ONNX file, or why it can't be measured.

    Args:
        file: The file; it may be missing.
        batches: Inputs that it has to take.
    """
    if not file.exists():
        return "not exported yet; infcop export RUN --to onnx does that"
    found = OnnxFile(file, lambda threads: onnx_session(file, threads))
    try:
        run = found.session(1)
        for inputs in batches:
            run(_tensors(inputs))
    except Exception as error:  # whatever is wrong with it, the other networks are measured
        return f"not measured: {error}"
    return found


class _Runs(nn.Module):
    def __init__(self, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self._run = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run((args, kwargs))


def _arranged(
    run: Callable[[tuple[Tensor, ...]], list[Tensor]], example: Any
) -> Callable[[Any], Any]:
    """Return what gives the tensors of a program in the structure of an example."""
    known, structure = pytree.tree_flatten(example)
    places = [at for at, leaf in enumerate(known) if isinstance(leaf, Tensor)]

    def arranged(inputs: Any) -> Any:
        given = _tensors(inputs)
        outputs = run(given)
        if len(places) != len(outputs):
            raise ExportError(
                f"onnx: expected {len(places)} tensors, as the network gives, got {len(outputs)}; "
                "export the network again"
            )
        leaves = list(known)
        for at, output in zip(places, outputs, strict=True):
            leaves[at] = output.to(given[0].device)
        return pytree.tree_unflatten(leaves, structure)

    return arranged


def _tensors(inputs: Any) -> tuple[Tensor, ...]:
    return tuple(leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
