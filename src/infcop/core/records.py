"""What a run remembers: readings, decisions, levels, costs. Pure values, JSON on disk."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from infcop.core.values import Value

__all__ = [
    "FLOWS",
    "SCHEMA_VERSION",
    "Comparison",
    "Cost",
    "DataFacts",
    "Flow",
    "LevelRecord",
    "Milestone",
    "ModelFacts",
    "Outcome",
    "PhaseRecord",
    "Reading",
    "RunRecord",
    "StopDecision",
    "StopReason",
]

SCHEMA_VERSION = 1
"""Raised whenever a record written by older code can no longer be read as it is."""

Flow = Literal[
    "information.signed",
    "information.absolute",
    "information.cka",
    "gradient.norm",
    "gradient.mean",
]
"""Names of flow vectors: an entry per edge for information, per prunable tensor for gradient."""

FLOWS: tuple[Flow, ...] = (
    "information.signed",
    "information.absolute",
    "information.cka",
    "gradient.norm",
    "gradient.mean",
)


class StopReason(str, Enum):
    """Why a level stopped or went on; ``sentence`` says it to a human."""

    FLOW = "flow"
    UNDISTURBED = "undisturbed"
    SHOCK = "shock"
    SETTLED = "settled"
    MASK = "mask"
    ACCURACY = "accuracy"
    PLATEAU = "plateau"
    LOSS = "loss"
    BUDGET = "budget"
    UNTRAINED = "untrained"
    NOT_YET = "not-yet"
    MINIMUM = "minimum"
    NON_FINITE = "non-finite"

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return _SENTENCES[self]


_SENTENCES = {
    StopReason.FLOW: "the flow has come back to that of the reference",
    StopReason.UNDISTURBED: "pruning has hardly disturbed the flow",
    StopReason.SHOCK: "it has trained as long as the shock of its pruning asks for",
    StopReason.SETTLED: "the flow has stopped changing",
    StopReason.MASK: "the mask that would be drawn next has stopped changing",
    StopReason.ACCURACY: "the held-out metric has reached its target",
    StopReason.PLATEAU: "the held-out metric has stopped improving",
    StopReason.LOSS: "the training loss has stopped falling",
    StopReason.BUDGET: "the budget of passes is used up",
    StopReason.UNTRAINED: "pruning begins at the initialisation",
    StopReason.NOT_YET: "no rule asks to stop yet",
    StopReason.MINIMUM: "a rule asks to stop, but the minimum of passes is not reached",
    StopReason.NON_FINITE: "the reading is not finite, so nothing can be decided from it",
}


class StopDecision(Value):
    """Stop or go on, why, and the numbers that were compared."""

    stop: bool
    reason: StopReason
    evidence: dict[str, float] = {}
    """For instance ``{"distance": 0.04, "threshold": 0.11}``."""
    until: float | None = None
    """Training passes of the level at which the rule wants to be asked again, if it knows."""


class Cost(Value):
    """Examples processed, by purpose; divide by the size of the training set to get passes.

    A training example counts three forward equivalents (forward, and backward at twice the
    price), a measured example one, or three where its gradient was needed.
    """

    training: int = 0
    measuring: int = 0
    measuring_gradient: int = 0
    evaluating: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            training=self.training + other.training,
            measuring=self.measuring + other.measuring,
            measuring_gradient=self.measuring_gradient + other.measuring_gradient,
            evaluating=self.evaluating + other.evaluating,
        )

    @property
    def forward_equivalents(self) -> int:
        """Everything in units of one example's forward pass."""
        return 3 * (self.training + self.measuring_gradient) + self.measuring + self.evaluating


class Comparison(Value):
    r"""How the correlation matrices of a network differ from those of another state of it.

    Per edge, squared Frobenius norms of float64 matrices: enough for relative distances and
    cosines, of each edge and of all together, without keeping a matrix. With :math:`A` the present
    and :math:`B` the reference matrix,
    :math:`\langle A, B\rangle = (\|A\|^2 + \|B\|^2 - \|A - B\|^2) / 2`.
    """

    difference: tuple[float, ...]
    present: tuple[float, ...]
    reference: tuple[float, ...]


class Reading(Value):
    """One measurement, with its place in training, the examples used and what it cost."""

    phase: Literal["dense", "pruned", "level", "final"]
    """``pruned``: right after the mask was applied to the trained weights, before any rewinding."""
    level: int
    passes: float
    """Training passes since the phase began."""
    flows: dict[Flow, tuple[float, ...]] = {}
    dead_units: dict[str, int] = {}
    """Per layer, the output units that did not vary over the probe."""
    metrics: dict[str, float] = {}
    """Of the held-out split."""
    main: float | None = None
    """The task's main metric on the held-out split."""
    train_loss: float | None = None
    """Mean training loss since the reading before."""
    probe_examples: int = 0
    """Examples that the flow was read on."""
    source: Literal["probe", "training"] | None = None
    """Where they came from, if flow was read."""
    standard_errors: dict[Flow, tuple[float, ...]] = {}
    """Of the information flow, where asked for."""
    comparisons: dict[str, Comparison] = {}
    """With other states of the network, by the names that ``core.comparison`` gives them."""
    mask_change: float | None = None
    """Entries in which the mask that would be drawn now differs from the one that would have been
    drawn at the reading before, over the entries it keeps."""
    decision: StopDecision | None = None
    cost: Cost = Cost()
    """Training since the reading before, and the measuring and evaluating of this one."""


class PhaseRecord(Value):
    """Dense or final training."""

    readings: tuple[Reading, ...] = ()
    stopped_by: StopDecision | None = None
    """Why a dense training ended before its passes were used up."""
    exchanged: int = 0
    """Entries that were dropped and grown elsewhere in its course."""
    trained_parameters: int | None = None
    """Parameters of the smaller network that was trained; ``None`` for the network itself."""
    cost: Cost = Cost()
    seconds: float = 0.0


class LevelRecord(Value):
    """One level: what was pruned, what was read, why it stopped."""

    level: int
    kept: int
    density: float
    kept_per_layer: dict[str, int]
    removed: int
    """Entries that this level removed."""
    pruned_norm: float = 0.0
    """Norm of the removed entries over the norm of all that were alive before, in [0, 1]."""
    size: float | None = None
    """What is left of the multiply-adds or of the time of a forward pass, in [0, 1], where the
    density of the search is one of these; counted or measured at the last level alone."""
    rewound_to: str
    readings: tuple[Reading, ...] = ()
    stopped_by: StopDecision | None = None
    """``None`` while the level is being trained."""
    trained_parameters: int | None = None
    """Parameters of the smaller network that was trained; ``None`` for the network itself."""
    cost: Cost = Cost()
    seconds: float = 0.0

    @property
    def passes(self) -> float:
        """Training passes of this level up to its last reading."""
        return self.readings[-1].passes if self.readings else 0.0


class Milestone(Value):
    """A sparse network on the way: what the search would have given had it ended here."""

    level: int
    """The level after which the final training branched off."""
    kept: int
    density: float
    final: PhaseRecord = PhaseRecord()
    metrics: dict[str, float] = {}
    """Of the sparse network on the split that the outcome is measured on; empty until then."""
    cost: Cost = Cost()
    """Dense training, all levels up to here and this final training."""
    seconds: float = 0.0


class ModelFacts(Value):
    """What the model is and what of it may be pruned."""

    name: str
    parameters: int
    prunable: dict[str, tuple[int, ...]]
    """Names and shapes of the prunable tensors, in execution order where it is known."""
    excluded: dict[str, str] = {}
    """Names of the other parameters, with the reason."""
    edges: tuple[tuple[str, str], ...] = ()
    """Producer and consumer of every entry of the information flow, in its order."""


class DataFacts(Value):
    """Which data was used and how it was split."""

    name: str
    train: int
    probe: int
    held_out: int
    test: int
    main_metric: str
    higher_is_better: bool
    split: dict[str, Any] = {}
    """The recipe of the split, and a hash of the indices it gave."""


class Outcome(Value):
    """The answer of a finished run."""

    density: float
    kept: int
    prunable: int
    dense: dict[str, float]
    """Metrics of the dense network on the split that ``measured_on`` names; empty where none was
    trained."""
    sparse: dict[str, float]
    measured_on: Literal["test", "held-out"]
    cost: Cost
    """Of the whole search: dense training, levels, final training, measuring and evaluating."""
    full_budget_training: int
    """Training examples that the same levels would have cost with the full budget each; 0 where no
    level trains by design."""
    seconds: float


class RunRecord(Value):
    """Everything a run knows about itself; written to ``record.json`` after each step."""

    schema_version: int = SCHEMA_VERSION
    config: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, str]
    model: ModelFacts
    data: DataFacts
    dense: PhaseRecord = PhaseRecord()
    reference: Reading | None = None
    levels: tuple[LevelRecord, ...] = ()
    milestones: tuple[Milestone, ...] = ()
    """Sparse networks at the densities that ``milestones`` of the settings names."""
    final: PhaseRecord | None = None
    outcome: Outcome | None = None
    """``None`` while the run is going on."""
    warnings: tuple[str, ...] = ()

    def passes(self, examples: int) -> float:
        """Convert a count of examples into passes over the training split."""
        return examples / self.data.train
