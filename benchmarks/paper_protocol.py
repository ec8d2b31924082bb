"""The authors' protocol, scaled down: how often each rule stops at its minimum, and at its cap.

A narrow ResNet-18 on 10,000 images of Fashion-MNIST, both pairs (p, q), two thresholds of each
rule, with the quirks of the authors' code and without, and SAP at the full budget beside them. All
runs of a seed share the dense network. They are kept in ``runs/paper_protocol`` and go on where
they were interrupted; the result file is written after each of them. ``configs/paper`` has the
protocol at full size.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import data_dir, finish
from infcop.core.records import LevelRecord, RunRecord
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.workload import run_config

PAIRS = {"0.5, 1": (0.5, 1.0), "1, 2": (1.0, 2.0)}
"""(p, q) of the PQ index."""
EPSILONS = {"infcop-if": (0.08, 0.15), "infcop-gf": (0.3, 0.7)}
"""The ends of the authors' sweeps."""
PRESETS = {"reference code": "-reference-code", "corrected": ""}
UNIT, MAX_PASSES, LEVELS = 2, 6, 5
"""The authors: 2, 40 and 14."""
DENSE = {"passes": 22, "warmup_passes": 20}
"""The authors' warm-up, and the shortest dense level that their code allows after it."""
QUICK_DENSE = {"passes": 2, "warmup_passes": 1}


class Case(NamedTuple):
    """A row of the table."""

    pair: str
    rule: str
    epsilon: float | None
    preset: str


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows in the order of the table."""
    for pair in list(PAIRS)[1 if quick else 0 :]:
        yield Case(pair, "sap", None, "corrected")
        for rule, epsilons in EPSILONS.items():
            for epsilon in epsilons:
                for preset in PRESETS:
                    yield Case(pair, rule, epsilon, preset)


def _settings(case: Case, seed: int, quick: bool) -> dict[str, Any]:
    p, q = PAIRS[case.pair]
    method: dict[str, Any] = {"name": case.rule, "keep_per_layer": 1, "schedule": {"p": p, "q": q}}
    if case.epsilon is not None:
        method["name"] += PRESETS[case.preset]
        method["stop"] = {"epsilon": case.epsilon}
    return {
        "seed": seed,
        "density": 1e-4,
        "method": method,
        "data": {
            "name": "fashion-mnist",
            "dir": str(data_dir()),
            "train_examples": 1000 if quick else 10_000,
        },
        "model": {"name": "resnet-18", "options": {"width": 0.125, "stem_stride": 4}},
        # As the authors train, but at five times their rate: they start from trained weights.
        "training": {"lr": 0.05, "momentum": 0.0, "schedule": "constant", "batch_size": 64},
        "dense": QUICK_DENSE if quick else DENSE,
        "levels": {
            "unit": UNIT,
            "min_passes": UNIT,
            "max_passes": 4 if quick else MAX_PASSES,
            "max_levels": 1 if quick else LEVELS,
        },
        "final": {"passes": 0},
        "execution": {"threads": 1, "device": "cpu"},
    }


def _run(case: Case, seed: int, quick: bool) -> dict[str, Any]:
    folder = Path("runs") / ("paper_protocol_quick" if quick else "paper_protocol")
    words = [case.pair.replace(", ", "-"), case.rule, case.epsilon, case.preset, seed]
    name = "_".join(str(word).replace(" ", "-") for word in words if word is not None)
    config = resolve_config(_settings(case, seed, quick))
    result = run_config(config, run_dir=folder / name, dense_dir=folder / "dense")
    return {**case._asdict(), "seed": seed, **_facts(result.record)}


def _facts(record: RunRecord) -> dict[str, Any]:
    outcome, levels = record.outcome, record.levels
    assert outcome is not None
    warm = record.config["dense"]["warmup_passes"]
    target = max(r.main for r in record.dense.readings if r.passes <= warm and r.main is not None)
    first = [level.readings[1] for level in levels]
    decisions = [reading.decision for reading in first if reading.decision]
    most = record.config["levels"]["max_passes"]
    return {
        "levels": len(levels),
        "at_minimum": sum(level.passes <= UNIT for level in levels),
        "at_cap": sum(_ran_out(level, most) for level in levels),
        "back_at_first": sum(r.main is not None and r.main >= target for r in first),
        "first_distances": [d.evidence["distance"] for d in decisions if "distance" in d.evidence],
        "passes_per_level": [level.passes for level in levels],
        "level_passes": record.passes(sum(level.cost.training for level in levels)),
        "measuring_passes": record.passes(
            sum(level.cost.measuring + level.cost.measuring_gradient for level in levels)
        ),
        "accuracy": outcome.sparse["accuracy"],
        "dense_accuracy": outcome.dense["accuracy"],
        "density": outcome.density,
        "seconds": outcome.seconds,
    }


def _ran_out(level: LevelRecord, most: float) -> bool:
    """Whether the budget ended a level, and not its rule at the last moment."""
    return level.stopped_by is not None and level.stopped_by.reason == "budget"


def _table(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for case in cases():
        rows = [run for run in runs if all(run[key] == v for key, v in case._asdict().items())]
        if not rows:
            continue
        distances = [distance for row in rows for distance in row["first_distances"]]
        yield {
            **case._asdict(),
            "seeds": len(rows),
            **{
                key: sum(row[key] for row in rows)
                for key in ("levels", "at_minimum", "at_cap", "back_at_first")
            },
            "first_distance_least": min(distances, default=None),
            "first_distance_most": max(distances, default=None),
            **{
                key: statistics.mean(row[key] for row in rows)
                for key in ("level_passes", "measuring_passes", "accuracy", "density")
            },
        }


def markdown(table: list[dict[str, Any]]) -> str:
    """Return the table as Markdown, as it stands in the docs."""
    lines = [
        "| p, q | rule | epsilon | preset | levels at the minimum | at the cap | accuracy back "
        "| distance at the first reading | passes of the levels | measuring passes "
        "| test accuracy, % | density, % |",
        "|" + " --- |" * 12,
    ]
    for row in table:
        fixed = row["epsilon"] is None
        least, most = row["first_distance_least"], row["first_distance_most"]
        cells = [
            row["pair"],
            row["rule"],
            "-" if fixed else f"{row['epsilon']:g}",
            "-" if fixed else row["preset"],
            "-" if fixed else f"{row['at_minimum']} of {row['levels']}",
            *(f"{row[key]} of {row['levels']}" for key in ("at_cap", "back_at_first")),
            "-" if fixed else f"{least:.2f} to {most:.2f}",
            *(f"{row[key]:.1f}" for key in ("level_passes", "measuring_passes")),
            *(f"{100 * row[key]:.1f}" for key in ("accuracy", "density")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(table: list[dict[str, Any]]) -> dict[str, float]:
    """Return, by rule and preset, the shares of all levels that ended at either end."""
    figures = {}
    for rule in EPSILONS:
        for preset in PRESETS:
            rows = [row for row in table if (row["rule"], row["preset"]) == (rule, preset)]
            levels = sum(row["levels"] for row in rows)
            for key in ("at_minimum", "at_cap", "back_at_first"):
                name = f"{rule}_{preset.replace(' ', '_')}_{key}"
                figures[name] = round(sum(row[key] for row in rows) / levels, 4) if levels else 0.0
    return figures


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, for a check")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    if data_dir() is None:
        raise SystemExit("Fashion-MNIST is needed: set INFCOP_DATA to the folder that holds it")
    runs: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    for seed in range(1 if given.quick else given.seeds):
        for case in cases(given.quick):
            runs.append(_run(case, seed, given.quick))
            table = list(_table(runs))
            if given.out is not None:
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(json.dumps({"table": table, "runs": runs}, indent=1))
    print(markdown(table))
    finish(_figures(table), {"table": table, "runs": runs}, given.out)


if __name__ == "__main__":
    main()
