"""Operations that act on each entry alone, with one operand or with several that meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from infcop.collapse.broadcast import met, shares
from infcop.collapse.call import Call, Rule
from infcop.collapse.facts import Layer
from infcop.collapse.values import Value, gathered, spread, tidied

__all__ = ["FRESH", "RULES", "pointwise"]


def pointwise(call: Call) -> Value:
    """Unite the units that meet."""
    layers = met(call, [(value.layers, value.shape) for value in call.values], call.shape)
    varies = torch.tensor(_shared(call, layers))
    for value in call.values:
        varies = varies | value.varies
    return call.gives(layers, varies)


def _shared(call: Call, layers: Sequence[Layer]) -> bool:
    """Whether several units have an entry of a parameter in common."""
    last = len(call.shape)
    return any(
        shares(call, layers, value, [last - value.tensor.ndim + at for at in _filled(value)])
        for value in call.values
    )


def _filled(value: Value) -> list[int]:
    return [at for at, size in enumerate(value.shape) if size > 1]


def _product(call: Call) -> Value:
    """Zero times anything is zero."""
    given = pointwise(call)
    factors = call.values
    if len(factors) != 2:
        return given
    one, other = factors
    varies = (one.varies & other.nonzero) | (one.nonzero & other.varies)
    if _shared(call, given.layers):
        varies = varies | (one if one.fed else other).nonzero
    fed = one.fed or other.fed
    surviving = None if fed else (one.nonzero & other.nonzero).expand(call.shape)
    return replace(call.gives(given.layers, varies), surviving=surviving)


def _first_only(call: Call) -> Value:
    """Only the first operand is looked into, for instance when it takes another's type."""
    (value, *_) = call.values
    return replace(call.gives(value.layers, value.varies), surviving=value.surviving)


def _like(call: Call) -> Value:
    """Something of the same size, with the same value everywhere."""
    value, *filling = call.values
    return call.gives(value.layers, torch.tensor(not all(one.constant for one in filling)))


def _fresh(call: Call) -> Value:
    """Only the type of the operand is looked at."""
    return call.gives((), torch.zeros((), dtype=torch.bool))


def _dropout(call: Call) -> Value:
    (value,) = call.values
    return call.gives(value.layers, value.varies | torch.tensor(bool(call["train"])))


def _prelu(call: Call) -> Value:
    value, slopes = call.values
    if value.tensor.ndim < 2 or slopes.tensor.numel() == 1:
        return pointwise(call)
    shape = (len(slopes.tensor), *[1] * (value.tensor.ndim - 2))
    layers = met(call, [(value.layers, value.shape), (slopes.layers, shape)], call.shape)
    moved = slopes.varies.reshape(shape) & value.nonzero
    return call.gives(
        layers, value.varies | moved | torch.tensor(shares(call, layers, slopes, [1]))
    )


def _glu(call: Call) -> Value:
    """One half of the units is multiplied by a function of the other half."""
    (value,) = call.values
    dim = call["dim"] % value.tensor.ndim
    halves: list[tuple[Tensor, Tensor]] = []
    for layer in value.layers:
        one, other = spread(layer, value.shape).chunk(2, dim)
        halves.append((one, other))
    reason = call.reason("reads a single unit")
    operands = [
        (tidied(call.facts, [gathered(call.facts, x[at], reason) for x in halves]), call.shape)
        for at in (0, 1)
    ]
    one, other = value.varies.expand(value.shape).chunk(2, dim)
    return call.gives(met(call, operands, call.shape), one | other)


_SAME = (
    *("hardswish", "hardsigmoid", "log_sigmoid", "where", "__and__", "__or__", "__xor__"),
    *("negative", "subtract", "divide", "floor_divide", "clip", "square", "absolute"),
    *("logaddexp", "polar", "hardtanh", "selu", "masked_fill"),
)
_TYPE = ("to", "type_as", "contiguous", "clone", "detach", "alias", "lift_fresh_copy")
_LIKE = ("zeros_like", "ones_like", "full_like", "fill", "zero")
_FRESH = ("new_zeros", "new_ones", "new_full", "new_empty")

FRESH = frozenset((*_FRESH, "zeros_like", "ones_like", "full_like", "zero"))
"""What these give depends on no parameter, since only sizes and types are looked at."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, pointwise),
    **dict.fromkeys(("mul", "multiply"), _product),
    **dict.fromkeys(_TYPE, _first_only),
    **dict.fromkeys(_LIKE, _like),
    **dict.fromkeys(_FRESH, _fresh),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    "prelu": _prelu,
    "glu": _glu,
}
