"""Linear layers, products of matrices, Einstein sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_uppercase
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from infcop.collapse.broadcast import met, shares
from infcop.collapse.call import Call, Rule, unknown
from infcop.collapse.einsum import Contracted, Labelled, contract
from infcop.collapse.facts import Facts, Layer
from infcop.collapse.folding import Fold
from infcop.collapse.values import Value

__all__ = ["RULES", "fold_of", "numbered", "with_bias"]


def numbered(contracted: Contracted, order: str) -> list[Layer]:
    """Return units over letters as units over dimensions."""
    return [layer.renamed({x: at for at, x in enumerate(order)}) for layer in contracted.layers]


def fold_of(
    call: Call,
    inputs: Value,
    weight: Value,
    bias: Value | None,
    axis: int,
    rows: int,
    apply: Callable[[Tensor], Tensor],
    alone: Callable[[Tensor], Tensor] | None = None,
) -> Fold:
    """Return what is to be known of a layer that may have constant inputs."""
    name = None if bias is None else bias.name
    own = call.trace.used_once
    along = [layer.dims for layer in inputs.layers] == [(axis,)]
    has_bias = weight.name in call.trace.without_bias if bias is None else name in own
    possible = along and weight.name in own and has_bias
    fold = Fold(weight.name or "", name, possible, inputs, axis, rows, apply, alone)
    if possible and not bool(inputs.varies.all()):
        call.folds.append(fold)
    return fold


def with_bias(
    call: Call, layers: Sequence[Layer], varies: Tensor, bias: Value | None, axis: int
) -> Value:
    """Add a bias along a dimension of the result."""
    if bias is None:
        return call.gives(layers, varies)
    shape = (len(bias.tensor), *[1] * (call.result.ndim - axis - 1))
    layers = met(call, [(layers, call.shape), (bias.layers, shape)], call.shape)
    shared = torch.tensor(shares(call, layers, bias, [axis]))
    return call.gives(layers, varies | bias.varies.reshape(shape) | shared)


def _linear(call: Call) -> Value:
    inputs, weight, bias = call["input"], call["weight"], call["bias"]
    if weight.tensor.ndim == 1:
        return _matmul(call)
    batch = ascii_uppercase[: inputs.tensor.ndim - 1]
    last = len(batch)
    fold = fold_of(
        call,
        *(inputs, weight, bias, last, 0),
        lambda x: functional.linear(x, weight.tensor.double()),
    )
    found = contract(
        call.facts,
        Labelled(f"{batch}k", inputs),
        Labelled("ok", weight),
        f"{batch}o",
        call.reason("meets a tensor of fixed size"),
        fold,
    )
    return with_bias(call, numbered(found, f"{batch}o"), found.varies, bias, last)


def _matmul(call: Call) -> Value:
    a, b = call.values[:2]
    found, order = product(call.facts, a, b, call.reason("meets a tensor of fixed size"))
    return call.gives(numbered(found, order), found.varies)


def product(facts: Facts, a: Value, b: Value, reason: str) -> tuple[Contracted, str]:
    """Contract two values as ``torch.matmul`` does; return the letters of the result too."""
    rows = "l" if a.tensor.ndim > 1 else ""
    columns = "o" if b.tensor.ndim > 1 else ""
    batch_a, batch_b = a.shape[: -2 if rows else -1], b.shape[: -2 if columns else -1]
    ndim = max(len(batch_a), len(batch_b))
    letters = ascii_uppercase[:ndim]
    labels, apart = [], ""
    for own, other, spare in ((batch_a, batch_b, "abcdef"), (batch_b, batch_a, "uvwxyz")):
        text = ""
        for at, size in enumerate(own):
            back = len(own) - at
            repeated = size == 1 and back <= len(other) and other[-back] != 1
            text += spare[at] if repeated else letters[ndim - back]
            apart += spare[at] if repeated else ""
        labels.append(text)
    out = f"{letters}{rows}{columns}"
    found = contract(
        facts,
        Labelled(f"{labels[0]}{rows}k", a),
        Labelled(f"{labels[1]}k{columns}", b),
        out,
        reason,
        apart=apart,
    )
    return found, out


def _addmm(call: Call) -> Value:
    bias, inputs, weight = call["self"], call["mat1"], call["mat2"]
    plain = call["beta"] == call["alpha"] == 1 and bias.tensor.ndim == 1
    fold = None
    if plain:
        fold = fold_of(call, *(inputs, weight, bias, 1, 1), lambda x: x @ weight.tensor.double())
    found = contract(
        call.facts,
        Labelled("Ak", inputs),
        Labelled("ko", weight),
        "Ao",
        call.reason("meets a tensor of fixed size"),
        fold,
    )
    if bias.tensor.ndim == 1:
        return with_bias(call, numbered(found, "Ao"), found.varies, bias, 1)
    return _added_to(call, numbered(found, "Ao"), found.varies, bias)


def _added_to(call: Call, layers: Sequence[Layer], varies: Tensor, other: Value) -> Value:
    """Add a tensor that need not be a bias."""
    layers = met(call, [(layers, call.shape), (other.layers, other.shape)], call.shape)
    return call.gives(layers, varies | other.varies | torch.tensor(shares(call, layers, other, [])))


def _baddbmm(call: Call) -> Value:
    bias, a, b = call["self"], call["batch1"], call["batch2"]
    found, order = product(call.facts, a, b, call.reason("meets a tensor of fixed size"))
    return _added_to(call, numbered(found, order), found.varies, bias)


def _einsum(call: Call) -> Any:
    """Two operands without repeated letters; anything else is unknown."""
    rule, values = call["equation"].replace(" ", ""), call.values
    inputs, arrow, out = rule.partition("->")
    terms = inputs.split(",")
    repeated = any(len(set(term)) < len(term) for term in (*terms, out))
    if len(values) != 2 or not arrow or "." in rule or repeated:
        return unknown(call)
    a, b = (Labelled(term, value) for term, value in zip(terms, values, strict=True))
    found = contract(call.facts, a, b, out, call.reason("meets a tensor of fixed size"))
    return call.gives(numbered(found, out), found.varies)


RULES: dict[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "einsum": _einsum,
}
