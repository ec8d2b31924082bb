"""A pruning method as a choice on each of its independent axes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infcop.core.pattern import Pattern, Unstructured
from infcop.core.rate import Rate, ScheduleRate, contradiction
from infcop.core.regrow import Regrow
from infcop.core.schedule import (
    Adaptive,
    Cubic,
    Fraction,
    Linear,
    Listed,
    OneShot,
    Schedule,
)
from infcop.core.scope import Scope
from infcop.core.score import Magnitude, Score
from infcop.core.start import EarlyBird, Start, Trained
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
    "Linear",
    "Listed",
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
    passes: Positive = 1.0
    """With ``epoch`` only: passes of dense training after which the values are kept, in whole
    steps; 0.25 is an iteration a quarter of a pass from the start."""
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


_OF_THE_DENSE = (
    InformationFlow,
    GradientFlow,
    RelativeInformationFlow,
    RelativeGradientFlow,
    MatrixFlow,
    ShockBudget,
)


_SIGNED = ("grasp", "movement", "random")


class MethodConfig(Value):
    """One choice per axis; ``methods/`` holds the named combinations."""

    name: str
    start: Start = Trained()
    exclude: tuple[str, ...] = ()
    """Weights that stay dense: names, with ``*`` for any characters, classes of layers such as
    ``Conv2d``, or ``first`` and ``last``. Density is of the others."""
    score: Score = Magnitude()
    pattern: Pattern = Unstructured()
    scope: Scope = "global"
    schedule: Schedule = Fraction()
    rounds: Annotated[int, Field(ge=1)] = 1
    """Scorings of a level, each followed by a part of its pruning, without training between."""
    spacing: Literal["exponential", "linear"] = "exponential"
    """Of the densities of the rounds: by a constant factor, or by a constant difference."""
    keep_per_layer: Annotated[int, Field(ge=0)] = 0
    """Entries that every layer keeps at least; 0 makes an emptied layer an error."""
    empty_layers: Literal["error", "report"] = "error"
    """What comes of a layer that would lose all its weights: refuse it, or prune it and warn."""
    regrow: Regrow | None = None
    """Exchange entries while the sparse network trains; by default masks only shrink."""
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
    def _start_has_what_is_needed(self) -> MethodConfig:
        problem = None
        if self.start.kind != "trained":
            problem = self._needs_a_trained_network()
        if self.start.kind == "early-bird" and self.score.kind == "random":
            problem = (
                "start 'early-bird' waits until the masks settle, which drawn ones do at once; use "
                "another score, or start 'initialisation'"
            )
        if self.start.kind == "initialisation" and self.score.kind == "movement":
            problem = (
                "score 'movement' is what training has done to the weights: it needs start "
                "'trained' or 'early-bird', got 'initialisation'"
            )
        if problem is not None:
            raise ValueError(problem)
        return self

    def _needs_a_trained_network(self) -> str | None:
        """Return what of this method looks at a dense network that isn't trained to the end."""
        start, rewind = self.start, self.rewind
        for part in rule_parts(self.stop):
            target = isinstance(part, AccuracyTarget) and part.target is None
            if target or isinstance(part, _OF_THE_DENSE):
                return (
                    f"stop rule '{part.rule}' compares with the trained dense network, which start "
                    f"'{start.kind}' does not train to the end; use 'fixed-budget'"
                )
        allowed = ("none", "learning-rate", "initialisation")
        early = isinstance(start, EarlyBird) and rewind.passes <= start.window
        if early and rewind.to == "epoch":
            return None
        if rewind.to not in allowed:
            return (
                f"start '{start.kind}' may end the dense training before the place that rewind.to "
                f"'{rewind.to}' goes back to; use 'none' or 'initialisation'"
            )
        return None

    @model_validator(mode="after")
    def _lamp_squares(self) -> MethodConfig:
        if self.scope == "lamp" and self.score.kind in _SIGNED:
            raise ValueError(
                f"scope 'lamp' compares squares: it needs a score that is never negative, got "
                f"'{self.score.kind}'; use scope 'global'"
            )
        return self

    @model_validator(mode="after")
    def _regrows_single_entries(self) -> MethodConfig:
        if self.regrow is not None and self.pattern.kind != "unstructured":
            raise ValueError(
                f"regrow exchanges single entries: it needs pattern 'unstructured', got "
                f"'{self.pattern.kind}'"
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
