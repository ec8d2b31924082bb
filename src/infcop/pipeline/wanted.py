"""What a run has to measure so that its stop rule can decide."""

from __future__ import annotations

from itertools import product

from infcop.core.comparison import ANCHORS, Anchor, Units
from infcop.core.config import SearchConfig
from infcop.core.method import ShockBudget, rule_parts
from infcop.errors import ConfigError
from infcop.pipeline.context import Run
from infcop.stopping.build import needed_comparisons, needed_floors, needed_flows
from infcop.stopping.floor import FEWEST_CHANGES

__all__ = ["check_wanted", "needs_information", "wanted_comparisons", "wants_halves"]


def wanted_comparisons(config: SearchConfig) -> frozenset[tuple[Anchor, Units]]:
    """Return the states that readings are compared with, and over which units."""
    method = config.method
    if method.flow.every_reading:
        every: tuple[Units, ...] = ("all", "alive")
        return frozenset(product(ANCHORS, every))
    drifts: set[tuple[Anchor, Units]] = {
        ("last", floor.units) for floor in needed_floors(method.stop) if floor.kind != "halves"
    }
    return needed_comparisons(method.stop) | drifts


def wants_halves(run: Run) -> bool:
    """Return whether the two halves of the probe are to be compared."""
    method = run.config.method
    if any(floor.kind != "drift" for floor in needed_floors(method.stop)):
        return True
    every = method.flow.every_reading and method.flow.source == "probe"
    return every and _splits(run) and bool(run.states.wanted)


def needs_information(config: SearchConfig) -> bool:
    """Return whether the stop rule can't do without an edge to measure information flow on."""
    flows = needed_flows(config.method.stop)
    return any(f.startswith("information") for f in flows) or bool(
        needed_comparisons(config.method.stop)
    )


def check_wanted(run: Run) -> None:
    """Refuse a stop rule that could never decide, before any training.

    Raises:
        ConfigError: There are too few readings for a noise floor, the probe has no two halves, or
            the reading right after pruning is needed where flow comes from training.
    """
    method, dense = run.config.method, run.config.dense
    floors = needed_floors(method.stop)
    fewest = FEWEST_CHANGES + 1
    if any(floor.kind != "halves" for floor in floors) and dense.passes < fewest:
        raise ConfigError(
            f"method.stop: the noise floor needs at least {fewest} readings of the dense "
            f"network, one per pass, got dense.passes {dense.passes}; train it for at least "
            f"{fewest} passes, or give epsilon, a fixed distance, instead of kappa"
        )
    if any(floor.kind != "drift" for floor in floors):
        if method.flow.source != "probe":
            raise ConfigError(
                "method.stop.floor: the halves of a probe need method.flow.source 'probe', got "
                f"'{method.flow.source}'; choose the floor 'drift'"
            )
        if not _splits(run):
            raise ConfigError(
                "method.stop.floor: expected a probe of at least two batches, to be halved, got "
                "one; raise probe_examples, lower the batch size, or choose the floor 'drift'"
            )
    shocked = any(isinstance(part, ShockBudget) for part in rule_parts(method.stop))
    if shocked and (method.flow.source == "training" or run.config.min_passes > 0):
        raise ConfigError(
            "method.stop: 'shock-budget' decides at the reading right after pruning, so it needs "
            f"method.flow.source 'probe' and levels.min_passes 0, got '{method.flow.source}' and "
            f"{run.config.min_passes:g}"
        )
    anchors = {anchor for anchor, _ in needed_comparisons(method.stop)}
    vectors = method.reference == "pruned" and needed_flows(method.stop)
    if method.flow.source == "training" and ("pruned" in anchors or vectors):
        raise ConfigError(
            "method: the reference 'pruned' is read without training, so it needs "
            "method.flow.source 'probe', got 'training'; choose another reference or source"
        )


def _splits(run: Run) -> bool:
    return len(run.probe) > 1
