"""What is pruned together, as settings of a method."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from infcop.core.values import Value

__all__ = ["Block", "Channel", "Heads", "NofM", "Pattern", "Reduce", "Unstructured"]

Reduce = Literal["mean", "sum", "norm", "max"]
"""How the scores of the surviving entries of a group become one: their mean, sum, Euclidean norm
or largest."""

Size = Annotated[int, Field(ge=1)]


class Unstructured(Value):
    """Each entry by itself."""

    kind: Literal["unstructured"] = "unstructured"


class NofM(Value):
    """At most ``n`` of every ``m`` successive entries along the reduction dimension (2:4, 4:8).

    That is the dimension which a matrix product sums over: the inputs of a linear layer, and of a
    convolution its input channels. Every layer then has the density ``n / m``, and so has the
    search.
    """

    kind: Literal["n-of-m"] = "n-of-m"
    n: Size = 2
    m: Size = 4

    @model_validator(mode="after")
    def _some_but_not_all(self) -> NofM:
        if self.n >= self.m:
            raise ValueError(
                f"expected n below m, got n={self.n}, m={self.m}: of every m entries n are kept, "
                "for instance 2 of 4"
            )
        return self


class Block(Value):
    """Rectangles of a weight seen as a matrix: outputs times everything else, flattened."""

    kind: Literal["block"] = "block"
    rows: Size = 4
    columns: Size = 4
    reduce: Reduce = "mean"


class Channel(Value):
    """Whole output channels of convolutions and rows of linear layers."""

    kind: Literal["channel"] = "channel"
    reduce: Reduce = "mean"


class Heads(Value):
    """Whole heads of attention: their part of the four projections goes together."""

    kind: Literal["heads"] = "heads"
    reduce: Reduce = "mean"


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Pattern = Annotated[
    Annotated[Unstructured | NofM | Block | Channel | Heads, Field(discriminator="kind")],
    BeforeValidator(_from_name),
]
