"""Values that are broadcast to one shape, and what they have in common there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from infcop.collapse.call import Call
from infcop.collapse.facts import Layer
from infcop.collapse.join import Operand, join
from infcop.collapse.values import Value

__all__ = ["met", "shares"]


def met(
    call: Call, operands: Sequence[tuple[Sequence[Layer], Sequence[int]]], shape: Sequence[int]
) -> list[Layer]:
    """Return the units of a result for which operands are broadcast to a shape.

    Args:
        call: The operation.
        operands: The units and the shape of each.
        shape: The shape of the result.
    """
    aligned = []
    for layers, own in operands:
        first = len(shape) - len(own)
        repeated = {at for at, size in enumerate(own) if size == 1 != shape[first + at]}
        whole = []
        for layer in layers:
            if repeated & set(layer.dims):
                call.facts.pin(layer.ids, call.reason("repeats a single unit"))
            else:
                whole.append(layer.renamed({at: first + at for at in range(len(own))}))
        filled = frozenset(first + at for at, size in enumerate(own) if size > 1)
        aligned.append(Operand(whole, filled))
    return join(call.facts, aligned, call.reason("meets a tensor of fixed size"))


def shares(call: Call, layers: Sequence[Layer], value: Value, covered: Collection[int]) -> bool:
    """Whether several units are made with the same entry of a parameter.

    Without one of these units the parameter would have another gradient. So constants that are
    made in this way count as varying, unless no unit can go anyway.

    Args:
        call: The operation.
        layers: The units of its result.
        value: An operand; only parameters, and what is computed from them alone, are shared.
        covered: The dimensions of the result along which it has an entry for each position.
    """
    fed = any(other.fed for other in call.values)
    if value.fed or not value.learned or not fed:
        return False
    free = [x for x in layers if len(x.ids) > 1 and not call.facts.settled(x)]
    return any(not set(layer.dims) <= set(covered) for layer in free)
