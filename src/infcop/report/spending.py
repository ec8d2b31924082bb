"""What a run cost and what it left of the network, counted from its record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infcop.core.records import Cost, LevelRecord, RunRecord

__all__ = [
    "CostRow",
    "Spending",
    "cost_rows",
    "dense_examples",
    "dense_trainings",
    "dense_main",
    "kept_per_layer",
    "main_after_pruning",
    "main_at_end",
    "prunable_entries",
    "search_cost",
    "spending",
    "total_cost",
]


@dataclass(frozen=True)
class CostRow:
    """One line of the cost table, in passes over the training split."""

    label: str
    training: float
    measuring: float
    measuring_gradient: float
    evaluating: float
    forward_equivalents: float
    """In passes: three for a pass of training or of measuring gradients, one for any other."""
    dense_trainings: float
    """``forward_equivalents`` over those of the dense training's own steps."""
    seconds: float | None


@dataclass(frozen=True)
class Spending:
    """Training passes of a run, against those of the same levels with the full budget each."""

    dense: float
    levels: float
    final: float
    full_levels: float | None
    """``None`` while the run is going on, and where no level trains by design."""

    @property
    def total(self) -> float:
        """Training passes of the whole run."""
        return self.dense + self.levels + self.final

    @property
    def full_total(self) -> float | None:
        """Training passes of the whole run, had every level used its full budget."""
        if self.full_levels is None:
            return None
        return self.dense + self.full_levels + self.final

    @property
    def saved(self) -> float | None:
        """Fraction of the levels' full budget that was not needed."""
        return 1 - self.levels / self.full_levels if self.full_levels else None


def spending(record: RunRecord) -> Spending:
    """Return the training passes of a run, apart for its three parts."""
    outcome = record.outcome
    return Spending(
        dense=record.passes(record.dense.cost.training),
        levels=record.passes(_levels_cost(record).training),
        final=record.passes(record.final.cost.training if record.final else 0),
        full_levels=_full_levels(record, outcome.full_budget_training) if outcome else None,
    )


def total_cost(record: RunRecord) -> Cost:
    """Return the cost of the whole search, or of what there is of it so far."""
    return record.outcome.cost if record.outcome else _phases_cost(record)


def _full_levels(record: RunRecord, examples: int) -> float | None:
    """Return the passes of a full budget, unless the levels have none by design."""
    return record.passes(examples) if examples or not record.levels else None


def search_cost(record: RunRecord) -> float | None:
    """Return the cost of the whole search as a multiple of the dense training.

    ``None`` before the dense network has trained.
    """
    return dense_trainings(record, total_cost(record))


def dense_trainings(record: RunRecord, cost: Cost) -> float | None:
    """Return a cost as a multiple of the dense training.

    Forward equivalents of everything, measuring and evaluating included, over three times the
    training examples of the dense network: of all its passes, also where it stopped early or was
    not trained at all. ``None`` before the dense network has trained.
    """
    dense = dense_examples(record)
    return cost.forward_equivalents / (3 * dense) if dense else None


def dense_examples(record: RunRecord) -> int:
    """Return the training examples of a whole dense training; 0 if that isn't known yet."""
    whole = record.dense.stopped_by is None and bool(record.dense.cost.training)
    if whole or not record.dense.readings:
        return record.dense.cost.training
    passes: int = record.config["dense"]["passes"]
    return passes * record.data.train


def cost_rows(record: RunRecord) -> tuple[CostRow, ...]:
    """Return the cost of the dense training, each level, the final training, and of everything.

    What the outcome counts beyond these phases, such as evaluating on the test split, has a row
    of its own, so that the column sums hold.
    """
    rows = [_row(record, "Dense training", record.dense.cost, record.dense.seconds)]
    rows += [_row(record, f"Level {x.level}", x.cost, x.seconds) for x in record.levels]
    if record.final:
        rows.append(_row(record, "Final training", record.final.cost, record.final.seconds))
    total = total_cost(record)
    rest = _minus(total, _phases_cost(record))
    if rest != Cost():
        rows.append(_row(record, "Other", rest, None))
    seconds = record.outcome.seconds if record.outcome else sum(row.seconds or 0 for row in rows)
    label = "Whole search" if record.outcome else "So far"
    return (*rows, _row(record, label, total, seconds))


def prunable_entries(record: RunRecord) -> int:
    """Return the number of entries of all prunable tensors."""
    sizes = [math.prod(shape) for shape in record.model.prunable.values()]
    return sum(sizes)


def kept_per_layer(record: RunRecord) -> dict[str, tuple[float, ...]]:
    """Return the density of each prunable tensor, in [0, 1], after each level.

    An entry of a tensor without elements, or of one that a level does not mention, is NaN.
    """
    sizes = {name: math.prod(shape) for name, shape in record.model.prunable.items()}
    return {
        name: tuple(
            level.kept_per_layer[name] / size if size and name in level.kept_per_layer else math.nan
            for level in record.levels
        )
        for name, size in sizes.items()
    }


def dense_main(record: RunRecord) -> float | None:
    """Return the held-out main metric of the trained dense network."""
    measured = [reading.main for reading in record.dense.readings if reading.main is not None]
    if measured:
        return measured[-1]
    return record.reference.main if record.reference else None


def main_after_pruning(level: LevelRecord) -> float | None:
    """Return the held-out main metric right after the mask was applied, before any rewinding."""
    measured = [reading.main for reading in level.readings if reading.phase == "pruned"]
    return measured[0] if measured else None


def main_at_end(level: LevelRecord) -> float | None:
    """Return the held-out main metric at the last reading of a level's training."""
    measured = [reading.main for reading in level.readings if reading.phase == "level"]
    return measured[-1] if measured else None


def _row(record: RunRecord, label: str, cost: Cost, seconds: float | None) -> CostRow:
    multiple = dense_trainings(record, cost)
    return CostRow(
        label=label,
        training=record.passes(cost.training),
        measuring=record.passes(cost.measuring),
        measuring_gradient=record.passes(cost.measuring_gradient),
        evaluating=record.passes(cost.evaluating),
        forward_equivalents=record.passes(cost.forward_equivalents),
        dense_trainings=math.nan if multiple is None else multiple,
        seconds=seconds,
    )


def _levels_cost(record: RunRecord) -> Cost:
    return sum((level.cost for level in record.levels), Cost())


def _phases_cost(record: RunRecord) -> Cost:
    final = record.final.cost if record.final else Cost()
    return record.dense.cost + _levels_cost(record) + final


def _minus(whole: Cost, part: Cost) -> Cost:
    return Cost(
        training=whole.training - part.training,
        measuring=whole.measuring - part.measuring,
        measuring_gradient=whole.measuring_gradient - part.measuring_gradient,
        evaluating=whole.evaluating - part.evaluating,
    )
