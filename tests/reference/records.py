"""Run records made up for tests: the numbers are plausible, and add up as a real run's would."""

from __future__ import annotations

import itertools
import math
import random
from typing import Literal

from infcop.core.config import DenseConfig, LevelsConfig, RunConfig
from infcop.core.method import (
    FixedBudget,
    Fraction,
    InformationFlow,
    MethodConfig,
    RelativeGradientFlow,
    StopConfig,
)
from infcop.core.records import (
    Cost,
    DataFacts,
    LevelRecord,
    ModelFacts,
    Outcome,
    PhaseRecord,
    Reading,
    RunRecord,
    StopDecision,
    StopReason,
)

__all__ = ["HOSTILE", "make_record"]

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>&\"'"
"""A name that takes over a page which forgets to escape it anywhere."""

TRAIN, PROBE, HELD_OUT, TEST = 1258, 512, 180, 360
DENSE_PASSES, MAX_PASSES, FINAL_PASSES = 8, 8, 8

FlowFamily = Literal["information", "gradient", "both", "none"]


def make_record(
    *,
    levels: int = 6,
    layers: int = 3,
    flow: FlowFamily = "information",
    finished: bool = True,
    hostile: bool = False,
    not_finite: bool = False,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    remove: float = 0.35,
    seed: int = 0,
) -> RunRecord:
    """Return the record of a search on the digits.

    Args:
        levels: How many levels were pruned; with ``finished`` false the last is still training.
        layers: 3 gives LeNet-300-100; more, a residual network with so many layers.
        flow: Which flow was read and decided on; ``none`` is a fixed budget without flow.
        finished: Whether there is a final training and an outcome.
        hostile: Put ``HOSTILE`` in every name and text.
        not_finite: Put NaN and infinity in the flows of one level.
        metric: Name of the main metric; ``accuracy`` lies in [0, 1], any other does not.
        higher_is_better: Direction of the main metric.
        remove: Fraction removed by each level.
        seed: Of the made-up noise.
    """
    return _Maker(
        levels, layers, flow, hostile, not_finite, metric, higher_is_better, remove, seed
    ).record(finished)


class _Maker:
    def __init__(
        self,
        levels: int,
        layers: int,
        flow: FlowFamily,
        hostile: bool,
        not_finite: bool,
        metric: str,
        higher_is_better: bool,
        remove: float,
        seed: int,
    ) -> None:
        self.levels, self.flow, self.not_finite = levels, flow, not_finite
        self.mark = HOSTILE if hostile else ""
        self.metric, self.higher_is_better = metric, higher_is_better
        self.keep = 1 - remove
        self.noise = random.Random(seed)
        self.shapes = _shapes(layers, self.mark)
        self.total = sum(math.prod(shape) for shape in self.shapes.values())
        names = [name.removesuffix(".weight") for name in self.shapes]
        self.edges = tuple(itertools.pairwise(names))
        self.reference_flows = self._flows(0, 0.0)

    def record(self, finished: bool) -> RunRecord:
        dense = self._dense()
        levels = [self._level(number) for number in range(1, self.levels + 1)]
        if not finished and levels:
            last = levels[-1]
            levels[-1] = last.model_copy(
                update={"stopped_by": None, "readings": last.readings[:-1]}
            )
        final = self._final(levels) if finished else None
        record = RunRecord(
            config=self._config().model_dump(mode="json"),
            versions={"infcop": "0.1.0", "torch": "2.13.0", "numpy": "2.4.1"} | self._also(),
            hardware={"device": "cpu", "processor": "8 cores", "threads": "2"} | self._also(),
            model=self._model(),
            data=self._data(),
            dense=dense,
            reference=dense.readings[-1],
            levels=tuple(levels),
            final=final,
            warnings=(f"the data loader shuffles with its own generator{self.mark}",),
        )
        return record.model_copy(update={"outcome": self._outcome(record)}) if finished else record

    def _also(self) -> dict[str, str]:
        return {self.mark: self.mark} if self.mark else {}

    def _config(self) -> RunConfig:
        stops: dict[str, StopConfig] = {
            "information": InformationFlow(epsilon=0.11),
            "gradient": RelativeGradientFlow(epsilon=0.11),
            "both": InformationFlow(epsilon=0.11),
            "none": FixedBudget(),
        }
        method = MethodConfig(
            name=f"infcop-{self.flow}{self.mark}",
            schedule=Fraction(remove=1 - self.keep),
            stop=stops[self.flow],
        )
        return RunConfig(
            method=method,
            density=max(self.keep**self.levels, 1e-6),
            dense=DenseConfig(passes=DENSE_PASSES),
            levels=LevelsConfig(max_passes=MAX_PASSES, unit=0.5, min_passes=0.5),
        )

    def _model(self) -> ModelFacts:
        biases = {name.replace("weight", "bias"): "a bias" for name in self.shapes}
        return ModelFacts(
            name=("lenet-300-100" if len(self.shapes) == 3 else "resnet") + self.mark,
            parameters=self.total + sum(shape[0] for shape in self.shapes.values()),
            prunable=self.shapes,
            excluded={name: reason + self.mark for name, reason in biases.items()},
            edges=self.edges,
        )

    def _data(self) -> DataFacts:
        return DataFacts(
            name="digits" + self.mark,
            train=TRAIN,
            probe=PROBE,
            held_out=HELD_OUT,
            test=TEST,
            main_metric=self.metric,
            higher_is_better=self.higher_is_better,
            split={"seed": 0},
        )

    def _value(self, accuracy: float) -> float:
        """Turn an accuracy into a value of the main metric that is as good."""
        accuracy = min(accuracy + self.noise.gauss(0, 0.002), 1.0)
        if self.metric == "accuracy":
            return accuracy
        return 40 * accuracy if self.higher_is_better else 40 * (1 - accuracy)

    def _flows(self, level: int, progress: float) -> dict[str, tuple[float, ...]]:
        """Make flows that lie further from the reference at later levels, nearer after training."""
        off = 0.28 * level / max(self.levels, 1) * (0.4 + math.exp(-progress / 2)) if level else 0
        base = random.Random(7)
        signed = _away([0.04 + base.gauss(0, 0.06) for _ in self.edges], off, self.noise)
        norms = _away([0.06 + abs(base.gauss(0, 0.05)) for _ in self.shapes], off, self.noise)
        norms = tuple(map(abs, norms))
        if self.not_finite and level == 2:
            signed = (math.nan, *signed[1:])
            norms = (math.inf, *norms[1:])
        information = {
            "information.signed": signed,
            "information.absolute": tuple(abs(value) + 0.1 for value in signed),
        }
        gradient = {"gradient.norm": norms, "gradient.mean": tuple(x / 100 for x in norms)}
        chosen = {"information": information, "gradient": gradient, "none": {}}
        return chosen.get(self.flow, information | gradient)

    def _distance(self, flows: dict[str, tuple[float, ...]]) -> float:
        name = "gradient.norm" if self.flow == "gradient" else "information.signed"
        return math.dist(flows[name], self.reference_flows[name])

    def _reading(self, phase: str, level: int, passes: float, accuracy: float, trained: int = 0):
        main = self._value(accuracy)
        flows = self.reference_flows if not level else self._flows(level, passes)
        gradient = "gradient.norm" in flows
        return Reading(
            phase=phase,
            level=level,
            passes=passes,
            flows=flows,
            metrics={self.metric: main, "loss": 1.2 - accuracy},
            main=main,
            train_loss=None if phase == "pruned" else 1.1 - accuracy,
            probe_examples=PROBE if flows else 0,
            cost=Cost(
                training=trained,
                measuring=PROBE if "information.signed" in flows else 0,
                measuring_gradient=PROBE if gradient else 0,
                evaluating=HELD_OUT,
            ),
        )

    def _dense(self) -> PhaseRecord:
        readings = tuple(
            self._reading("dense", 0, step, 0.978 - 0.5 * math.exp(-step), TRAIN)
            for step in range(1, DENSE_PASSES + 1)
        )
        return _phase(readings, 0.9 * DENSE_PASSES)

    def _level(self, number: int) -> LevelRecord:
        best = 0.978 - 0.0015 * number**1.5
        shock = 0.978 - 0.012 * number**2.2 if number < 7 else 0.2
        readings = [self._reading("pruned", number, 0.0, max(shock, 0.1))]
        decision = None
        while decision is None or not decision.stop:
            passes = 0.5 * len(readings)
            accuracy = best - 0.08 * math.exp(-2 * passes)
            reading = self._reading("level", number, passes, accuracy, TRAIN // 2)
            decision = self._decide(reading)
            readings.append(reading.model_copy(update={"decision": decision}))
        kept = self._kept(number)
        before = sum(self._kept(number - 1).values())
        phase = _phase(tuple(readings), 0.9 * passes)
        return LevelRecord(
            level=number,
            kept=sum(kept.values()),
            density=sum(kept.values()) / self.total,
            kept_per_layer=kept,
            removed=before - sum(kept.values()),
            rewound_to="initialisation",
            readings=phase.readings,
            stopped_by=decision,
            cost=phase.cost,
            seconds=phase.seconds,
        )

    def _decide(self, reading: Reading) -> StopDecision:
        budget = {"passes": reading.passes, "budget": float(MAX_PASSES)}
        evidence: dict[str, float] = budget
        if self.flow != "none":
            distance = self._distance(reading.flows)
            evidence = {"distance": distance, "threshold": 0.11}
            if not math.isfinite(distance):
                evidence = {"non_finite_entries": 1.0, "threshold": 0.11}
                stop = reading.passes >= 2
                reason = StopReason.BUDGET if stop else StopReason.NON_FINITE
                return StopDecision(stop=stop, reason=reason, evidence=evidence)
            if distance < 0.11:
                return StopDecision(stop=True, reason=StopReason.FLOW, evidence=evidence)
        if reading.passes >= MAX_PASSES:
            return StopDecision(stop=True, reason=StopReason.BUDGET, evidence=evidence | budget)
        return StopDecision(stop=False, reason=StopReason.NOT_YET, evidence=evidence)

    def _kept(self, number: int) -> dict[str, int]:
        """Keep more of small layers, as global magnitude pruning does."""
        kept = {}
        for place, (name, shape) in enumerate(self.shapes.items()):
            size = math.prod(shape)
            share = self.keep ** (number * (1.15 - 0.6 * place / len(self.shapes)))
            kept[name] = max(round(size * share), 1) if number else size
        return kept

    def _final(self, levels: list[LevelRecord]) -> PhaseRecord:
        readings = tuple(
            self._reading("final", self.levels, step, 0.974 - 0.2 * math.exp(-step), TRAIN)
            for step in range(1, FINAL_PASSES + 1)
        )
        return _phase(readings, 0.9 * FINAL_PASSES)

    def _outcome(self, record: RunRecord) -> Outcome:
        phases = [record.dense, *record.levels, *([record.final] if record.final else [])]
        kept = record.levels[-1].kept if record.levels else self.total
        return Outcome(
            density=kept / self.total,
            kept=kept,
            prunable=self.total,
            dense={self.metric: self._value(0.978), "loss": 0.08},
            sparse={self.metric: self._value(0.972), "loss": 0.11},
            measured_on="test",
            cost=sum((phase.cost for phase in phases), Cost(evaluating=2 * TEST)),
            full_budget_training=len(record.levels) * MAX_PASSES * TRAIN,
            seconds=sum(phase.seconds for phase in phases) + 1.5,
        )


def _away(values: list[float], distance: float, noise: random.Random) -> tuple[float, ...]:
    """Move a vector by a distance in a random direction."""
    direction = [noise.gauss(0, 1) for _ in values]
    length = math.hypot(*direction) or 1.0
    return tuple(v + distance * d / length for v, d in zip(values, direction, strict=True))


def _shapes(layers: int, mark: str) -> dict[str, tuple[int, ...]]:
    if layers == 3:
        sizes = [64, 300, 100, 10]
        return {f"fc{i}{mark}.weight": (sizes[i], sizes[i - 1]) for i in range(1, 4)}
    blocks = [
        f"stage{1 + 3 * i // layers}.{i % max(layers // 3, 1)}.conv{mark}" for i in range(layers)
    ]
    return {f"{block}.weight": (16 + i // 2, 16, 3, 3) for i, block in enumerate(blocks)}


def _phase(readings: tuple[Reading, ...], seconds: float) -> PhaseRecord:
    cost = sum((reading.cost for reading in readings), Cost())
    return PhaseRecord(readings=readings, cost=cost, seconds=seconds)
