"""A pruning method as a choice on each of its independent axes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infcop.core.values import Value

__all__ = [
    "AccuracyTarget",
    "Adaptive",
    "AllOf",
    "AnyOf",
    "AtLeast",
    "AtMost",
    "FixedBudget",
    "FlowConfig",
    "Fraction",
    "GradientFlow",
    "InformationFlow",
    "MethodConfig",
    "Plateau",
    "RelativeGradientFlow",
    "RelativeInformationFlow",
    "Rewind",
    "Schedule",
    "StopConfig",
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Fraction(Value):
    """Remove the same fraction of the surviving entries at every level."""

    kind: Literal["fraction"] = "fraction"
    remove: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Adaptive(Value):
    """Remove what the PQ index of the surviving entries allows (SAP, arXiv 2302.05601)."""

    kind: Literal["sap"] = "sap"
    p: Positive = 0.5
    q: Positive = 1.0
    eta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    gamma: Positive = 1.0
    beta: Annotated[float, Field(gt=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _p_below_q(self) -> Adaptive:
        if self.p >= self.q:
            raise ValueError(f"expected 0 < p < q, got p={self.p:g}, q={self.q:g}")
        return self


Schedule = Annotated[Fraction | Adaptive, Field(discriminator="kind")]


class Rewind(Value):
    """Where the surviving weights and the learning-rate schedule go back to before a level.

    ===============  ==============================  =======================================
    ``to``           parameters and buffers          learning-rate schedule continues from
    ===============  ==============================  =======================================
    initialisation   values before any training      the start
    epoch            values after ``passes`` passes  ``passes``
    warm-up          values after the warm-up        the end of the warm-up
    learning-rate    kept                            the start
    none             kept                            the end of the dense training
    ===============  ==============================  =======================================

    The optimiser's state is always fresh.
    """

    to: Literal["initialisation", "epoch", "warm-up", "learning-rate", "none"] = "initialisation"
    passes: Annotated[int, Field(ge=1)] = 1
    """With ``epoch`` only: passes of dense training after which the values are kept."""


class FixedBudget(Value):
    """Stop after so many passes; by default the level's whole budget."""

    rule: Literal["fixed-budget"] = "fixed-budget"
    passes: Positive | None = None


class InformationFlow(Value):
    """Stop when the information flow lies within ``epsilon`` of the reference."""

    rule: Literal["information-flow"] = "information-flow"
    epsilon: Positive
    statistic: Literal["signed", "absolute"] = "signed"


class GradientFlow(Value):
    """Stop when the gradient flow lies within ``epsilon`` of the reference."""

    rule: Literal["gradient-flow"] = "gradient-flow"
    epsilon: Positive
    statistic: Literal["norm", "mean"] = "norm"


class RelativeInformationFlow(Value):
    """As information flow, with ``epsilon`` a fraction of the norm of the reference."""

    rule: Literal["relative-information-flow"] = "relative-information-flow"
    epsilon: Positive
    statistic: Literal["signed", "absolute"] = "signed"


class RelativeGradientFlow(Value):
    """As gradient flow, with ``epsilon`` a fraction of the norm of the reference."""

    rule: Literal["relative-gradient-flow"] = "relative-gradient-flow"
    epsilon: Positive
    statistic: Literal["norm", "mean"] = "norm"


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
    | AccuracyTarget
    | Plateau
    | AnyOf
    | AllOf
    | AtLeast
    | AtMost,
    Field(discriminator="rule"),
]


class FlowConfig(Value):
    """What flow is measured on."""

    edges: Literal["graph", "main-path"] | tuple[str, ...] = "graph"
    """Producer-consumer pairs of the traced graph, the longest chain of layers only, or the
    successive pairs of the layers named here."""
    gradient: Literal["full", "per-batch"] = "full"
    """Statistic of the gradient of the mean loss over the whole probe, or the average over
    batches of the statistic of each batch's gradient."""
    source: Literal["probe", "training"] = "probe"
    """Fixed examples in evaluation mode, or the last ones that were trained on before the reading,
    which costs hardly anything: ``probe_examples``, or as many as the shortest stretch holds."""
    standard_errors: bool = False
    """Also record how well the information flow is known from the examples it was read on."""
    precision: Positive | None = None
    """With the probe only, in random order: stop reading as soon as the distance between the
    information flow and its reference is known this well; by default the whole probe is read."""

    @model_validator(mode="after")
    def _precision_needs_a_probe(self) -> FlowConfig:
        if self.precision is not None and self.source != "probe":
            raise ValueError(
                f"precision {self.precision:g} needs source 'probe', got '{self.source}': what "
                "training computes can't be asked for more examples"
            )
        return self


class MethodConfig(Value):
    """One choice per axis; ``methods/`` holds the named combinations."""

    name: str
    score: Literal["magnitude"] = "magnitude"
    scope: Literal["layerwise", "global"] = "global"
    schedule: Schedule = Fraction()
    keep_per_layer: Annotated[int, Field(ge=0)] = 0
    """Entries that every layer keeps at least; 0 makes an emptied layer an error."""
    rewind: Rewind = Rewind()
    reference: Literal["warm-up", "dense"] = "warm-up"
    """The reading that later ones are compared with."""
    stop: StopConfig = FixedBudget()
    flow: FlowConfig = FlowConfig()

    @model_validator(mode="after")
    def _adaptive_is_global(self) -> MethodConfig:
        if self.schedule.kind == "sap" and self.scope != "global":
            raise ValueError(
                "schedule 'sap' counts over all layers together: it needs scope 'global', "
                f"got '{self.scope}'"
            )
        return self


for _model in (AnyOf, AllOf, AtLeast, AtMost, MethodConfig):
    _model.model_rebuild()
