"""What is pruned together, as settings of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from infcop.core.values import Value, named

__all__ = [
    "Block",
    "Channel",
    "CoupledChannels",
    "Heads",
    "NofM",
    "Pattern",
    "Reduce",
    "Unstructured",
]

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


class CoupledChannels(Value):
    """Whole channels, with the outputs of all layers that make them and the inputs of all that read
    them.

    What is left can be collapsed completely, so that the density may be one of FLOPs or of latency.
    """

    kind: Literal["coupled-channels"] = "coupled-channels"
    reduce: Reduce = "mean"
    normalise: bool = True
    """Divide the score of a channel by the mean size of those that are coupled alike. Layers with
    small weights would lose most of their channels otherwise."""
    multiple: Size = 1
    """Keep multiples of so many channels where any of a kind go: processors compute 8 or 16 at
    once, and 11 are as slow as 16."""


Pattern = Annotated[
    Annotated[
        Unstructured | NofM | Block | Channel | CoupledChannels | Heads,
        Field(discriminator="kind"),
    ],
    BeforeValidator(named),
]
