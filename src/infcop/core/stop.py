"""Stop rules, as settings of a method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from infcop.core.comparison import Anchor, Combine, Measure, Units
from infcop.core.values import Value

__all__ = [
    "AccuracyTarget",
    "AllOf",
    "AnyOf",
    "AtLeast",
    "AtMost",
    "FixedBudget",
    "GradientFlow",
    "InformationFlow",
    "LossPlateau",
    "MaskDistance",
    "MatrixFlow",
    "Plateau",
    "RelativeGradientFlow",
    "RelativeInformationFlow",
    "Settling",
    "ShockBudget",
    "StopConfig",
    "judges_pruning",
    "rule_parts",
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FixedBudget(Value):
    """Stop after so many passes; by default the level's whole budget, and with 0 at once."""

    rule: Literal["fixed-budget"] = "fixed-budget"
    passes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class InformationFlow(Value):
    """Stop when the information flow lies within ``epsilon`` of the reference."""

    rule: Literal["information-flow"] = "information-flow"
    epsilon: Positive
    statistic: Literal["signed", "absolute", "cka"] = "signed"


class GradientFlow(Value):
    """Stop when the gradient flow lies within ``epsilon`` of the reference."""

    rule: Literal["gradient-flow"] = "gradient-flow"
    epsilon: Positive
    statistic: Literal["norm", "mean"] = "norm"
    reference_statistic: Literal["norm", "mean"] | None = None
    """Of the reference; by default the same. The public code of arXiv 2501.15592 compares present
    norms with means of the reference."""


class RelativeInformationFlow(Value):
    """As information flow, with ``epsilon`` a fraction of the norm of the reference."""

    rule: Literal["relative-information-flow"] = "relative-information-flow"
    epsilon: Positive
    statistic: Literal["signed", "absolute", "cka"] = "signed"


class RelativeGradientFlow(Value):
    """As gradient flow, with ``epsilon`` a fraction of the norm of the reference."""

    rule: Literal["relative-gradient-flow"] = "relative-gradient-flow"
    epsilon: Positive
    statistic: Literal["norm", "mean"] = "norm"


class MatrixFlow(Value):
    """Stop when the correlation matrices have come close to those of another state.

    Either ``epsilon`` fixes the distance, or ``kappa`` makes it a multiple of the noise floor: of
    what the reference itself varies by.
    """

    rule: Literal["matrix-flow"] = "matrix-flow"
    reference: Anchor = "trained"
    """``trained``: the network as it was last trained, before this pruning."""
    measure: Measure = "frobenius"
    combine: Combine = "together"
    """All edges as one matrix, the mean of their distances, or the largest."""
    units: Units = "all"
    epsilon: Positive | None = None
    kappa: Positive | None = None
    floor: Literal["drift", "halves", "larger"] = "drift"
    """``drift``: between the ends of the last dense passes; ``halves``: between two halves of the
    probe in the dense network; or the larger of both."""
    floor_readings: Annotated[int, Field(ge=2)] | None = None
    """How many of the last changes between dense readings the drift is averaged over; by default
    all."""
    untrained: Positive | None = None
    """Another threshold, ``epsilon`` or ``kappa`` as above, for the reading right after pruning,
    at which a level can end without any training; by default the same."""

    @model_validator(mode="after")
    def _one_threshold(self) -> MatrixFlow:
        if (self.epsilon is None) == (self.kappa is None):
            raise ValueError(
                "expected either epsilon, a distance, or kappa, a multiple of the noise floor, got "
                + ("neither" if self.epsilon is None else "both")
            )
        if self.measure == "cosine" and self.epsilon is not None and self.epsilon > 2:
            raise ValueError(f"expected epsilon of at most 2 for a cosine, got {self.epsilon:g}")
        return self


class ShockBudget(Value):
    """Train a level for as long as the shock of its pruning asks for.

    ``fraction * shock ** power`` of the dense training, where the shock is the distance of the
    correlation matrices right after pruning from those of the network as it was last trained.
    """

    rule: Literal["shock-budget"] = "shock-budget"
    fraction: Positive = 0.35
    """Of the dense training, for a level whose pruning moves the flow by its own size."""
    power: Positive = 3.0
    least: Annotated[float, Field(ge=0, lt=1)] = 0.005
    """A level that would get a smaller part of the dense training than this gets none, and its
    shock adds to that of the next level."""
    measure: Measure = "frobenius"
    combine: Combine = "together"
    units: Units = "all"


class Settling(Value):
    """Stop when the flow has stopped changing, against how fast it changed first in the level."""

    rule: Literal["settling"] = "settling"
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Of the first change, per pass, below which the flow counts as settled."""
    readings: Annotated[int, Field(ge=1)] = 2
    """Successive changes that are averaged."""
    measure: Measure = "frobenius"
    combine: Combine = "together"
    units: Units = "all"


class MaskDistance(Value):
    """Stop when the mask that would be drawn next no longer changes (arXiv 1909.11957)."""

    rule: Literal["mask-distance"] = "mask-distance"
    epsilon: Annotated[float, Field(gt=0, le=2)] = 0.1
    """Entries that changed since the reading before, over the entries that the mask keeps."""
    readings: Annotated[int, Field(ge=1)] = 1
    """Successive readings that must all lie below."""


class LossPlateau(Value):
    """Stop when the training loss has not fallen for so many passes."""

    rule: Literal["loss-plateau"] = "loss-plateau"
    patience: Positive = 2.0
    improvement: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    """What counts as a fall: below the best by more than this fraction of its size."""


class AccuracyTarget(Value):
    """Stop when the held-out main metric is as good as a target."""

    rule: Literal["accuracy-target"] = "accuracy-target"
    target: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """By default the best value seen in the warm-up of the dense network."""
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How far short of the target is good enough, in the metric's units."""


class Plateau(Value):
    """Stop when the held-out main metric has not improved for so many passes."""

    rule: Literal["plateau"] = "plateau"
    patience: Positive = 2.0
    """Passes without an improvement after which the level stops."""
    improvement: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """What counts as one: better than the best by more than this fraction of its size."""


class AnyOf(Value):
    """Stop as soon as one rule does; the first in the list gives the reason."""

    rule: Literal["any-of"] = "any-of"
    rules: Annotated[tuple[StopConfig, ...], Field(min_length=1)]


class AllOf(Value):
    """Stop when all rules do at the same reading."""

    rule: Literal["all-of"] = "all-of"
    rules: Annotated[tuple[StopConfig, ...], Field(min_length=1)]


class AtLeast(Value):
    """Let a rule stop the level only after so many passes."""

    rule: Literal["at-least"] = "at-least"
    passes: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    of: StopConfig


class AtMost(Value):
    """Stop after so many passes if a rule has not done so before."""

    rule: Literal["at-most"] = "at-most"
    passes: Positive
    of: StopConfig


StopConfig = Annotated[
    FixedBudget
    | InformationFlow
    | GradientFlow
    | RelativeInformationFlow
    | RelativeGradientFlow
    | MatrixFlow
    | ShockBudget
    | Settling
    | MaskDistance
    | AccuracyTarget
    | Plateau
    | LossPlateau
    | AnyOf
    | AllOf
    | AtLeast
    | AtMost,
    Field(discriminator="rule"),
]


for _model in (AnyOf, AllOf, AtLeast, AtMost):
    _model.model_rebuild()


def rule_parts(config: StopConfig) -> Iterator[StopConfig]:
    """Yield a rule and all rules that it is made of.

    Example:
        >>> [part.rule for part in rule_parts(AtLeast(passes=1, of=FixedBudget()))]
        ['at-least', 'fixed-budget']
    """
    yield config
    inner = config.rules if isinstance(config, AnyOf | AllOf) else ()
    if isinstance(config, AtLeast | AtMost):
        inner = (config.of,)
    for part in inner:
        yield from rule_parts(part)


def judges_pruning(config: StopConfig) -> bool:
    """Return whether a rule looks at what pruning did, so that a level may need no training.

    Example:
        >>> judges_pruning(ShockBudget()), judges_pruning(FixedBudget())
        (True, False)
        >>> judges_pruning(FixedBudget(passes=0))
        True
    """
    return any(
        isinstance(part, ShockBudget | MatrixFlow)
        or (isinstance(part, FixedBudget) and part.passes == 0)
        for part in rule_parts(config)
    )
