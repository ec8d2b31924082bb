"""Example inputs of a model, taken from the examples that flow is read on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from infcop.models.batches import resized
from infcop.models.calling import Inputs
from infcop.pipeline.probe import batch_to_trace
from infcop.tasks.base import Task

__all__ = ["probe_inputs"]

_MOST = 16
"""Examples enough to tell apart what varies, and few enough to keep."""


def probe_inputs(task: Task, batches: Sequence[Any]) -> tuple[Inputs, int]:
    """Return what the model is called with for the first examples of a probe, and how many.

    They are on the CPU.

    Args:
        task: Says what the inputs of a batch are.
        batches: At least one batch.
    """
    batch = batch_to_trace(batches, task)
    examples = task.batch_size(batch)
    inputs = task.inputs(batch)
    wanted = min(examples, _MOST)
    few = resized(inputs, examples, wanted)
    if few is None:
        few, wanted = inputs, examples
    return pytree.tree_map(_on_cpu, few), wanted


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf
