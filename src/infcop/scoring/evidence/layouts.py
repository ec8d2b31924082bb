"""Where a model has the examples, found by one process for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.edges import Layout, Tap
from infcop.models.layout import find_layouts, fingerprint
from infcop.models.trace import record_calls
from infcop.scoring.evidence.examples import Examples

__all__ = ["layouts_of"]

_PASSES = 3
"""Forward passes of one batch that tell where the examples are."""


def layouts_of(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples
) -> tuple[dict[Tap, Layout | None], int]:
    """Return where the examples are in the outputs, and how many examples it took to find out.

    The first process looks that has a batch of several examples: one alone does not show where it
    is.

    Args:
        model: The model.
        layers: Those whose calls are looked at, by name.
        examples: What the model is called with.

    Returns:
        Of every call on that batch the layout, None where the examples have no place of their own;
        and the examples of the forward passes.

    Raises:
        PruningError: There is no example.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> batch = (torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 1]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> layouts_of(model, {"0": model[0]}, examples)
        ({('0', 0): Layout(axis=0, fold=1, example_first=True)}, 6)
    """
    size, batch = _several(examples)
    together = examples.together
    with together.joining():
        rank, size = together.first(size)
    found: dict[Tap, Layout | None] = {}
    if together.rank == rank:
        inputs = examples.task.inputs(batch)
        calls = record_calls(model, inputs, layers, fingerprint)
        prints = {tap: one.observed for tap, one in calls.items()}
        # The autograd graph holds all activations; it goes before others are made.
        del calls
        layouts = find_layouts(model, inputs, layers, prints, size)
        found = {tap: layouts.get(tap) for tap in prints}
    with together.joining():
        told = together.summed(_packed(found, tuple(layers)) if found else None)
    return _unpacked(told, tuple(layers)), _PASSES * size


def _several(examples: Examples) -> tuple[int, Any]:
    """Return the first batch with several examples and its size, or the last with one."""
    found: tuple[int, Any] = (0, None)
    for found in examples:
        if found[0] > 1:
            break
    return found


def _packed(layouts: Mapping[Tap, Layout | None], names: Sequence[str]) -> Tensor:
    rows = []
    for (name, number), layout in layouts.items():
        place = Layout() if layout is None else layout
        known = layout is not None
        facts = (place.axis, place.fold, place.example_first)
        rows.append([names.index(name), number, known, *facts])
    return torch.tensor(rows, dtype=torch.float64).flatten()


def _unpacked(flat: Tensor, names: Sequence[str]) -> dict[Tap, Layout | None]:
    layouts: dict[Tap, Layout | None] = {}
    for row in flat.reshape(-1, 6).tolist():
        place, number, known, axis, fold, example_first = map(int, row)
        layout = Layout(axis, fold, bool(example_first)) if known else None
        layouts[names[place], number] = layout
    return layouts
