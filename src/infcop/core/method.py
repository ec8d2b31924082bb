"""A pruning method as a choice on each of its independent axes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infcop.core.rate import Rate, ScheduleRate, contradiction
from infcop.core.stop import (
    AccuracyTarget,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    FixedBudget,
    GradientFlow,
    InformationFlow,
    LossPlateau,
    MaskDistance,
    MatrixFlow,
    Plateau,
    RelativeGradientFlow,
    RelativeInformationFlow,
    Settling,
    ShockBudget,
    StopConfig,
    judges_pruning,
    rule_parts,
)
from infcop.core.values import Value

__all__ = [
    "AccuracyTarget",
    "Adaptive",
    "AllOf",
    "AnyOf",
    "AtLeast",
    "AtMost",
    "Cubic",
    "FixedBudget",
    "FlowConfig",
    "Fraction",
    "GradientFlow",
    "InformationFlow",
    "LossPlateau",
    "MaskDistance",
    "MatrixFlow",
    "MethodConfig",
    "OneShot",
    "Plateau",
    "RelativeGradientFlow",
    "RelativeInformationFlow",
    "Rewind",
    "Schedule",
    "Settling",
    "ShockBudget",
    "StopConfig",
    "judges_pruning",
    "rule_parts",
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


class Cubic(Value):
    """Remove much at first and ever less, in a fixed number of levels (arXiv 1710.01878)."""

    kind: Literal["cubic"] = "cubic"
    levels: Annotated[int, Field(ge=1)] = 20


class OneShot(Value):
    """Go to the target in a single level."""

    kind: Literal["one-shot"] = "one-shot"


Schedule = Annotated[Fraction | Adaptive | Cubic | OneShot, Field(discriminator="kind")]


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
    when: Literal["every-level", "end"] = "every-level"
    """Go back before each level, or search with the trained weights and go back once, before the
    final training."""
    restores: Literal["everything", "prunable-weights"] = "everything"
    """All parameters and buffers, or only the weights that pruning ranks, as in the public code of
    arXiv 2501.15592: biases, normalisation and its statistics then stay as trained."""

    @model_validator(mode="after")
    def _a_part_of_something(self) -> Rewind:
        if self.restores != "everything" and self.to in ("learning-rate", "none"):
            raise ValueError(
                f"restores '{self.restores}' needs a place to go back to, got to '{self.to}', "
                "which keeps all trained values; leave restores out, or rewind to 'warm-up', "
                "'epoch' or 'initialisation'"
            )
        return self

    @model_validator(mode="after")
    def _end_goes_back(self) -> Rewind:
        if self.when == "end" and self.to in ("learning-rate", "none"):
            raise ValueError(
                f"when 'end' needs a place to go back to before the final training, got to "
                f"'{self.to}', which keeps the trained weights"
            )
        return self


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
    every_reading: bool = False
    """Read flow at every reading, and everything that any rule could compare, whatever the stop
    rule needs: for records that other rules are to be tried on."""
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
    rate: Rate = ScheduleRate()
    """Learning rate of the levels; the dense and the final training have schedules of their own."""
    reference: Literal["warm-up", "dense", "pruned", "trained"] = "warm-up"
    """The reading that flow vectors are compared with: of the dense network after its warm-up or
    at its end, of the trained network under the new mask before rewinding, or of the network as it
    was last trained."""
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

    @model_validator(mode="after")
    def _rate_has_a_meaning(self) -> MethodConfig:
        problem = contradiction(
            self.rate,
            rewind=self.rewind.to,
            when=self.rewind.when,
            schedule=self.schedule.kind,
            rule=self.stop.rule,
        )
        if problem is not None:
            raise ValueError(problem)
        return self
