"""Where the examples are in the outputs of layers, found by changing one example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.edges import Layout, Tap
from infcop.errors import ModelError
from infcop.models.calling import Inputs
from infcop.models.kinds import channel_axis
from infcop.models.nested import mapped, tensors_in
from infcop.models.trace import record_calls

__all__ = ["changed_inputs", "count_examples", "find_layouts", "fingerprint"]

_NOISE = 1e-4
"""Changes smaller than this share of the largest one are taken for rounding."""


def count_examples(inputs: Inputs) -> int:
    """Return how many examples a model's inputs hold: the length that most first axes have.

    Example:
        >>> count_examples((torch.zeros(4, 3), {"lengths": torch.ones(4), "table": torch.ones(2)}))
        4
    """
    lengths = Counter(tensor.shape[0] for tensor in _batched(inputs))
    return lengths.most_common(1)[0][0] if lengths else 0


def changed_inputs(inputs: Inputs, examples: int) -> Iterator[tuple[int, Inputs]]:
    """Yield two examples' numbers, each with the inputs in which this example alone is changed.

    It gets the values of the first example that differs from it in most of the tensors; where all
    are equal, floating point values get noise. Nothing is yielded for one that can't be changed.
    The examples are along the first axes that have their number; where no tensor has, along the
    first axis of each that does.

    Example:
        >>> tokens = torch.tensor([[1, 2], [3, 4], [5, 4]])
        >>> [(number, changed[0].tolist()) for number, changed in changed_inputs((tokens,), 3)]
        [(1, [[1, 2], [1, 2], [5, 4]]), (2, [[1, 2], [3, 4], [1, 2]])]
    """
    if examples < 2:
        return
    given = dict(inputs) if isinstance(inputs, Mapping) else inputs
    for number in sorted({1, examples - 1} if examples > 2 else {0, 1}):
        change = _change(given, examples, number)
        if change is not None:
            yield number, mapped(given, change)


def fingerprint(module: nn.Module, output: Any) -> Tensor | None:
    """Return a layer's output with its channels drawn together, of which one is left.

    The weights are random but always the same, so a change in any channel shows.

    Example:
        >>> fingerprint(nn.Linear(2, 3), torch.zeros(4, 5, 3)).shape
        torch.Size([4, 5, 1])
    """
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim == 0:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(output):
        # Inside of torch.vmap and the like, where an axis is hidden.
        return None
    axis = channel_axis(module, output.ndim)
    values = output.detach().movedim(axis, -1)
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(values.shape[-1], generator=generator).to(values)
    return torch.nan_to_num(values @ weights).unsqueeze(axis)


def find_layouts(
    model: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, nn.Module],
    prints: Mapping[Tap, Tensor | None],
    examples: int | None,
) -> dict[Tap, Layout]:
    """Change one example, twice, and return where the examples are in the output of each call.

    A call is left out if its output is no tensor, or if the examples have no place in it.

    Args:
        model: The model that was traced.
        inputs: What it was called with.
        layers: The modules that were watched.
        prints: The fingerprint of each call.
        examples: How many examples there are; by default the length that most first axes have.
    """
    number_of = count_examples(inputs) if examples is None else examples
    changed: dict[int, dict[Tap, Tensor | None]] = {}
    for number, other in changed_inputs(inputs, number_of):
        # The model may reject what no batch holds; then this change tells nothing.
        with suppress(ModelError):
            calls = record_calls(model, other, layers, fingerprint)
            changed[number] = {tap: call.observed for tap, call in calls.items()}
            del calls
    layouts = {}
    for tap, before in prints.items():
        if before is None:
            continue
        after = {number: others.get(tap) for number, others in changed.items()}
        moved = {
            number: _moved(before, one)
            for number, one in after.items()
            if one is not None and one.shape == before.shape
        }
        channels = channel_axis(layers[tap[0]], before.ndim)
        if layout := _layout(number_of, tuple(before.shape), channels, moved):
            layouts[tap] = layout
    return layouts


def _layout(
    examples: int,
    shape: tuple[int, ...],
    channels: int,
    moved: Mapping[int, Sequence[set[int]]],
) -> Layout | None:
    """Choose the layout that explains all changes and has the fewest places left unchanged."""
    usual = Layout() if channels != 0 else None
    if not moved:
        return usual
    best, coverage = None, 0.0
    if any(places for axes in moved.values() for places in axes):
        for layout in _candidates(examples, shape, channels):
            share = _coverage(examples, shape, layout, moved)
            if share > coverage:
                best, coverage = layout, share
    if best is None and shape[0] == examples:
        # Nothing moved (it is constant), or everything did (examples are mixed).
        return usual
    return best


def _candidates(examples: int, shape: tuple[int, ...], channels: int) -> Iterator[Layout]:
    for axis, length in enumerate(shape):
        fold, rest = divmod(length, examples)
        if fold and not rest and axis != channels:
            yield Layout(axis, fold)
            if fold > 1:
                yield Layout(axis, fold, example_first=False)


def _coverage(
    examples: int, shape: tuple[int, ...], layout: Layout, moved: Mapping[int, Sequence[set[int]]]
) -> float:
    """Return the share of the changed examples' places that did change, 0 if others did too."""
    found = 0
    for number, axes in moved.items():
        start = number * layout.fold
        own = (
            range(start, start + layout.fold)
            if layout.example_first
            else range(number, shape[layout.axis], examples)
        )
        if not axes[layout.axis] <= set(own):
            return 0.0
        found += len(axes[layout.axis])
    return found / (len(moved) * layout.fold)


def _moved(before: Tensor, after: Tensor) -> list[set[int]]:
    """Return, for each axis, the indices at which anything has changed."""
    change = (after - before).abs()
    large = change > _NOISE * change.max() if change.numel() else change > 0
    return [
        set(_rows(large, axis).any(dim=1).nonzero().flatten().tolist())
        for axis in range(large.ndim)
    ]


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def _change(inputs: Inputs, examples: int, number: int) -> Callable[[Tensor], Tensor] | None:
    first = any(tensor.shape[0] == examples for tensor in _batched(inputs))

    def rows(tensor: Tensor) -> Tensor | None:
        """Return a view of the tensor with the examples first, None if it holds none."""
        shape = tuple(tensor.shape[:1] if first else tensor.shape)
        return tensor.movedim(shape.index(examples), 0) if examples in shape else None

    ours = [found for tensor in _batched(inputs) if (found := rows(tensor)) is not None]
    differences = [(one != one[number]).reshape(examples, -1).any(dim=1).cpu() for one in ours]
    differing = torch.stack([torch.zeros(examples, dtype=torch.bool), *differences]).sum(dim=0)
    # The example itself where no other differs from it.
    partner = int(differing.argmax()) if differing.any() else number
    if partner == number and not any(one.is_floating_point() for one in ours):
        return None
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.detach().clone()
        place = rows(changed) if _dense(tensor) else None
        if place is not None:
            place[number] = place[partner].clone()
            if partner == number and tensor.is_floating_point():
                place[number] += torch.randn(place[number].shape, generator=generator).to(tensor)
        return changed.requires_grad_(tensor.requires_grad)

    return change


def _batched(inputs: Inputs) -> Iterator[Tensor]:
    return (tensor for tensor in tensors_in(inputs) if tensor.ndim > 0 and _dense(tensor))


def _dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested
