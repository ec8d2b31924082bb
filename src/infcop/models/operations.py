"""What operations do with the places of channels, by the names of their autograd nodes.

Each operation that is known to keep channels in their places, or to move them in a known way, has
a rule. Through any other operation every channel may come from everywhere: so the channels that
are attributed to a producer may be too many, never too few.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.autograd.graph import Node

from infcop.models.span import Span

__all__ = ["WHOLE", "Step", "picked", "spans_before"]

Shape = tuple[int, ...]

WHOLE = Span((0, 0), None)
"""All of a tensor matters."""


@dataclass(frozen=True)
class Step:
    """An operation, seen from one of its outputs.

    Attributes:
        node: The operation.
        index: Which of its outputs.
        known: The shape of this output, None where it is not known.
        before: The shapes of its inputs; None where one has no history.
        span: What is followed in the output.
    """

    node: Node
    index: int
    known: Shape | None
    before: tuple[Shape | None, ...]
    span: Span = WHOLE

    @property
    def name(self) -> str:
        """The operation's name, without the number of its variant."""
        return re.sub(r"Backward\d*$", "", self.node.name())

    @property
    def shape(self) -> Shape:
        """The shape of the output; empty where it is not known."""
        return self.known or ()

    @property
    def axis(self) -> int:
        """The axis of what is followed."""
        return self.span.axis if self.span.axis is not None else -1

    def saved(self, name: str) -> Any:
        """Return what the operation noted of its arguments."""
        return getattr(self.node, f"_saved_{name}")

    def axes(self, name: str, ndim: int | None = None) -> tuple[int, ...]:
        """Return noted axes, counted from the first, of a tensor shaped as the output or not."""
        noted = self.saved(name)
        several = (noted,) if isinstance(noted, int) else tuple(noted or ())
        return tuple(signed(axis) % (ndim or len(self.shape)) for axis in several)


Spans = list[Span | None]
"""The span in each input of an operation; None where no channel comes from it."""


def signed(number: int) -> int:
    """Return a number that autograd noted without its sign.

    Example:
        >>> signed(2**64 - 1), signed(3)
        (-1, 3)
    """
    return number - 2**64 if number >= 2**63 else number


def spans_before(step: Step, span: Span) -> Spans:
    """Return the span in each input of an operation, given the one in its output."""
    step = replace(step, span=span)
    if span.axis is None or step.known is None:
        return _anywhere(step)
    try:
        return _spans(step, step.name)
    except AttributeError:  # a version of PyTorch that notes other things of this operation
        return _anywhere(step)


def picked(step: Step) -> Span:
    """Return the positions that an operation picks of its input, whole where it takes all."""
    try:
        return _PICKS[step.name](step) if step.name in _PICKS and step.shape else WHOLE
    except AttributeError:
        return WHOLE


def _spans(step: Step, name: str) -> Spans:
    if name in _ELEMENTWISE:
        return [_broadcast(step, shape) for shape in step.before]
    if name in _RULES:
        return _RULES[name](step)
    if spatial := _SPATIAL.fullmatch(name):
        count = int(spatial["axes"])
        return _mixing(step, range(len(step.shape) - count, len(step.shape)))
    return _anywhere(step)


_ELEMENTWISE = frozenset(
    [
        *("Abs", "Add", "Addcdiv", "Addcmul", "Alias", "Atan", "Celu"),
        *("Clamp", "ClampMax", "ClampMin", "Clone", "Cos", "Cosh", "Div"),
        *("Elu", "Erf", "Exp", "Expand", "Expm1", "FusedDropout", "Gelu"),
        *("Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Lerp", "Log"),
        *("Log1P", "LogSigmoid", "MaskedFill", "Maximum", "Minimum", "Mish", "Mul"),
        *("NanToNum", "NativeDropout", "Neg", "Pow", "PreluKernel", "Reciprocal", "Relu"),
        *("RreluWithNoise", "Rsqrt", "Rsub", "Sigmoid", "Silu", "Sin", "Sinh"),
        *("Softplus", "Softshrink", "Sqrt", "Sub", "Tanh", "Threshold", "ToCopy"),
        "Where",
    ]
)

_SPATIAL = re.compile(
    r"((Avg|AdaptiveAvg|Max|AdaptiveMax|FractionalMax)Pool|Upsample[A-Za-z]+|ReflectionPad"
    r"|ReplicationPad)(?P<axes>[123])D(WithIndices)?"
)


def _anywhere(step: Step) -> Spans:
    return [step.span.anywhere()] * len(step.before)


def _broadcast(step: Step, shape: Shape | None) -> Span | None:
    if shape is None:
        return None
    axis = step.axis - (len(step.shape) - len(shape))
    same = axis >= 0 and shape[axis] == step.shape[step.axis]
    return step.span.along(axis) if same else step.span.anywhere()


def _mixing(step: Step, axes: Iterable[int]) -> Spans:
    """Return the spans of an operation that leaves the axes in place and mixes along some."""
    spans = _anywhere(step)
    if step.axis not in axes:
        spans[0] = _broadcast(step, step.before[0])
    return spans


def _mixing_along(argument: str) -> Callable[[Step], Spans]:
    # No axis noted means all.
    return lambda step: _mixing(step, step.axes(argument) or range(len(step.shape)))


def _batch_norm(step: Step) -> Spans:
    return _mixing(step, [axis for axis in range(len(step.shape)) if axis != 1])


def _layer_norm(step: Step) -> Spans:
    count, ndim = len(step.saved("normalized_shape")), len(step.shape)
    return _mixing(step, range(ndim - count, ndim))


def _reduction(step: Step) -> Spans:
    shape = step.before[0]
    if shape is None:
        return _anywhere(step)
    reduced = step.axes("dim", len(shape)) or tuple(range(len(shape)))
    if step.saved("keepdim"):
        return _mixing(step, reduced)
    left = [axis for axis in range(len(shape)) if axis not in reduced]
    return [step.span.along(left[step.axis])]


def _reshape(step: Step) -> Spans:
    shape = step.before[0]
    return [step.span.reshaped(step.shape, shape) if shape is not None else None]


def _permute(step: Step) -> Spans:
    return [step.span.along(step.axes("dims")[step.axis])]


def _transpose(step: Step) -> Spans:
    (one,), (other,) = step.axes("dim0"), step.axes("dim1")
    return [step.span.along({one: other, other: one}.get(step.axis, step.axis))]


def _t(step: Step) -> Spans:
    return [step.span.along(len(step.shape) - 1 - step.axis)]


def _start(step: Step) -> int:
    """Return the first position that a slice or split takes along its axis."""
    (axis,) = step.axes("dim")
    if step.name == "Split":
        return int(step.index * step.saved("split_size"))
    if step.name == "SplitWithSizes":
        return sum(step.saved("split_sizes")[: step.index])
    start, size = signed(step.saved("start")), step.saved("self_sym_sizes")[axis]
    return max(start + size, 0) if start < 0 else start


def _cut(step: Step) -> Spans:
    if step.axes("dim") != (step.axis,):
        return [step.span]
    if step.name == "Slice" and step.saved("step") != 1:
        return _anywhere(step)
    return [step.span.shifted(_start(step))]


def _select(step: Step) -> Spans:
    (axis,) = step.axes("dim", len(step.shape) + 1)
    return [step.span.along(step.axis + (axis <= step.axis))]


def _picked_range(step: Step) -> Span:
    (axis,) = step.axes("dim")
    if step.name == "Slice" and step.saved("step") != 1:
        return WHOLE
    start = _start(step)
    return Span(WHOLE.channels, axis, (start, start + step.shape[axis]))


def _picked_one(step: Step) -> Span:
    (axis,) = step.axes("dim", len(step.shape) + 1)
    if step.name == "Unbind":
        place = step.index
    else:
        place = signed(step.saved("index")) % step.saved("self_sym_sizes")[axis]
    return Span(WHOLE.channels, axis, (place, place + 1))


def _pad(step: Step) -> Spans:
    # Pairs of widths, from the last axis on; a negative one crops.
    widths, place = step.saved("pad"), 2 * (len(step.shape) - 1 - step.axis)
    shape = step.before[0]
    if shape is None or place >= len(widths):
        return [step.span]
    return [step.span.shifted(-signed(widths[place])).within(0, shape[step.axis])]


def _stack(step: Step) -> Spans:
    (axis,) = step.axes("dim")
    if axis != step.axis:
        return [step.span.along(step.axis - (axis < step.axis))] * len(step.before)
    found = [step.span.within(place, place + 1) for place in range(len(step.before))]
    return [span and span.anywhere() for span in found]


def _cat(step: Step) -> Spans:
    (axis,) = step.axes("dim")
    if axis != step.axis:
        fits = [shape is not None and len(shape) == len(step.shape) for shape in step.before]
        return [step.span if fit else None for fit in fits]
    sizes = [_size(shape, axis) for shape in step.before]
    lost = step.shape[axis] - sum(size for size in sizes if size is not None)
    return [_branch(step, sizes, lost, place) for place in range(len(sizes))]


def _size(shape: Shape | None, axis: int) -> int | None:
    if shape is None:
        return None
    # Empty tensors of one axis are let through by cat, whatever the shapes of the others.
    return shape[axis] if len(shape) > axis else 0


def _branch(step: Step, sizes: Sequence[int | None], lost: int, place: int) -> Span | None:
    size = sizes[place]
    if not size:
        return None
    before, after = sizes[:place], sizes[place + 1 :]
    start = sum(one or 0 for one in before)
    if None not in before or None not in after:
        # Where it starts is known, though not the size of each branch without history.
        start += lost if None in before else 0
        found = step.span.within(start, start + size)
        return found and found.shifted(-start)
    found = step.span.within(start, start + lost + size)
    return found and found.anywhere()


_RULES: dict[str, Callable[[Step], Spans]] = {
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias"), _reshape),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Mean", "Sum", "Amax", "Amin", "Logsumexp", "LinalgVectorNorm"), _reduction),
    **dict.fromkeys(("Max", "Min"), _reduction),
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"), _batch_norm),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Cumsum", "Glu", "IndexSelect"), _mixing_along("dim")
    ),
    **dict.fromkeys(("Roll", "Flip"), _mixing_along("dims")),
    "NativeLayerNorm": _layer_norm,
    "Permute": _permute,
    "Transpose": _transpose,
    "T": _t,
    **dict.fromkeys(("Select", "Unbind"), _select),
    **dict.fromkeys(("Slice", "Split", "SplitWithSizes"), _cut),
    "ConstantPadNd": _pad,
    "Stack": _stack,
    "Cat": _cat,
}

_PICKS: dict[str, Callable[[Step], Span]] = {
    **dict.fromkeys(("Select", "Unbind"), _picked_one),
    **dict.fromkeys(("Slice", "Split", "SplitWithSizes"), _picked_range),
}
