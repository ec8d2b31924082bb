"""Importance scores, as settings of a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from infcop.core.values import Value, named

__all__ = [
    "Correlation",
    "Fisher",
    "Grasp",
    "Magnitude",
    "Movement",
    "RandomScore",
    "Score",
    "Snip",
    "SynFlow",
    "Taylor",
    "Wanda",
]

Mode = Literal["eval", "train"]
"""In which the model computes the gradients: normalisation by stored or by batch statistics."""


class Magnitude(Value):
    """The size of a weight (Han et al., arXiv 1506.02626)."""

    kind: Literal["magnitude"] = "magnitude"


class RandomScore(Value):
    """Independent normal numbers: what any other score must beat."""

    kind: Literal["random"] = "random"


class Snip(Value):
    """Connection sensitivity: how much the loss depends on a connection (arXiv 1810.02340)."""

    kind: Literal["snip"] = "snip"
    mode: Mode = "eval"


class Grasp(Value):
    """How much removing a weight leaves of the gradient flow (arXiv 2002.07376)."""

    kind: Literal["grasp"] = "grasp"
    mode: Mode = "eval"
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 200.0
    """Divides the outputs of the model."""


class SynFlow(Value):
    """The synaptic flow through a weight, without data (arXiv 2006.05467)."""

    kind: Literal["synflow"] = "synflow"
    any_activation: bool = False
    """Also score networks that are not positively homogeneous, for which nothing is conserved."""


class Taylor(Value):
    """First-order change of the loss by removing a weight (Molchanov et al., arXiv 1611.06440)."""

    kind: Literal["taylor"] = "taylor"
    mode: Mode = "eval"


class Fisher(Value):
    """Second-order change of the loss, by the diagonal of the empirical Fisher information."""

    kind: Literal["fisher"] = "fisher"


class Wanda(Value):
    """The size of a weight times the norm of its input (Sun et al., arXiv 2306.11695)."""

    kind: Literal["wanda"] = "wanda"


class Correlation(Value):
    """The size of a weight times the correlation of the units that it connects."""

    kind: Literal["correlation"] = "correlation"


class Movement(Value):
    """Whether training moves a weight away from zero (Sanh et al., arXiv 2005.07683)."""

    kind: Literal["movement"] = "movement"


Score = Annotated[
    Annotated[
        Magnitude
        | RandomScore
        | Snip
        | Grasp
        | SynFlow
        | Taylor
        | Fisher
        | Wanda
        | Correlation
        | Movement,
        Field(discriminator="kind"),
    ],
    BeforeValidator(named),
]
