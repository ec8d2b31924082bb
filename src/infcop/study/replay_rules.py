"""Which rules are replayed: those of a file, or a catalogue of all there are. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infcop.core.comparison import Anchor
from infcop.core.replay import ReplayRule
from infcop.core.validation import validated
from infcop.errors import ConfigError
from infcop.pipeline.configure import read_yaml

__all__ = ["Rules", "catalogue", "rules_of"]

Rules = str | os.PathLike[str] | Mapping[str, ReplayRule | Mapping[str, Any]]

_EXAMPLE = "examples/replay.yaml"

_FIXED = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_PATIENCE = (0.5, 1, 2, 4)


def rules_of(rules: Rules) -> dict[str, ReplayRule]:
    """Return the rules of a YAML file or a mapping: a label, and what stands behind it.

    Raises:
        ConfigError: The file can't be read, there is no rule, or a setting is wrong.

    Example:
        >>> rules_of({"mean 0.1": {"stop": {"rule": "information-flo", "epsilon": 0.1}}})
        Traceback (most recent call last):
        ...
        infcop.errors.ConfigError: mean 0.1.stop: got 'information-flo'; did you mean
        'information-flow'? ...
    """
    if isinstance(rules, str | os.PathLike):
        content: Mapping[Any, Any] = read_yaml(Path(rules), _EXAMPLE)
        where = f"'{os.fspath(rules)}': "
    else:
        content, where = rules, ""
    if not content:
        raise ConfigError(f"{where}expected at least one rule, got none; see {_EXAMPLE}")
    return {str(label): _rule(str(label), entry, where) for label, entry in content.items()}


def catalogue(
    *, budget: float, unit: float, share: bool, warmed_apart: bool
) -> dict[str, ReplayRule]:
    """Return every criterion there is with a few thresholds each.

    Args:
        budget: Passes of the levels; no rule asks for more.
        unit: Passes between readings; no rule asks for less.
        share: Whether the main metric lies in [0, 1], so that margins of a point make sense.
        warmed_apart: Whether the warm-up of the dense network ends before its training.

    Example:
        >>> rules = catalogue(budget=8, unit=1, share=True, warmed_apart=False)
        >>> rules["signed mean 0.1"].stop.epsilon, len(rules) > 40
        (0.1, True)
    """
    anchors: tuple[Anchor, ...] = ("dense", "trained", "pruned")
    if warmed_apart:
        anchors = ("warm-up", *anchors)
    entries = [
        *_vectors(anchors),
        *_matrices(anchors, min(1.0, budget)),
        *_calibrated(),
        *_others(min(1.0, budget)),
        *_rivals(budget, unit, share),
    ]
    return {label: ReplayRule.model_validate(entry) for label, entry in entries}


Entry = tuple[str, dict[str, Any]]


def _vectors(anchors: tuple[Anchor, ...]) -> Iterator[Entry]:
    """Yield the published rules: distances between flow vectors, absolute and relative."""
    for epsilon in (0.1, 0.2, 0.4):
        rule = {"rule": "information-flow", "epsilon": epsilon}
        yield f"signed mean {epsilon}", {"stop": rule, "reference": anchors[0]}
    for epsilon in (0.25, 0.5, 1):
        rule = {"rule": "gradient-flow", "epsilon": epsilon}
        yield f"gradient norm {epsilon}", {"stop": rule, "reference": anchors[0]}
    for anchor in anchors:
        for name, kind, statistic, epsilon in (
            ("signed mean", "information", "signed", 0.25),
            ("absolute mean", "information", "absolute", 0.1),
            ("CKA", "information", "cka", 0.1),
            ("gradient norm", "gradient", "norm", 0.5),
        ):
            rule = {
                "rule": f"relative-{kind}-flow",
                "statistic": statistic,
                "epsilon": epsilon,
            }
            label = f"{name}, relative {epsilon}, to {anchor}"
            yield label, {"stop": rule, "reference": anchor}


def _matrices(anchors: tuple[Anchor, ...], least: float) -> Iterator[Entry]:
    """Yield fixed distances between matrices, with a minimum: all references on equal terms.

    Without one, the reading right after pruning is compared with the trained network whatever the
    reference is.
    """
    thresholds = {"frobenius": (0.2, 0.4, 0.6, 0.8), "cosine": (0.05, 0.1, 0.2, 0.3)}
    for anchor in anchors:
        for measure, epsilons in thresholds.items():
            rule = {"rule": "matrix-flow", "reference": anchor, "measure": measure}
            for epsilon in epsilons:
                stop = {**rule, "epsilon": epsilon}
                yield f"{measure} {epsilon}, to {anchor}", {"stop": stop, "min_passes": least}
            alive = {**rule, "epsilon": epsilons[2], "units": "alive"}
            label = f"{measure} {epsilons[2]}, to {anchor}, alive"
            yield label, {"stop": alive, "min_passes": least}


def _calibrated() -> Iterator[Entry]:
    for floor, kappas in (("drift", (0.7, 1, 1.3)), ("halves", (1, 2, 4))):
        for kappa in kappas:
            stop = {"rule": "matrix-flow", "kappa": kappa, "floor": floor}
            yield f"{kappa} x {floor}, to trained", {"stop": stop}
    for fraction in (0.1, 0.2, 0.4):
        stop = {"rule": "shock-budget", "fraction": fraction}
        yield f"shock budget {fraction}", {"stop": stop}


def _others(least: float) -> Iterator[Entry]:
    for fraction in (0.2, 0.3, 0.5):
        yield f"settling {fraction}", {"stop": {"rule": "settling", "fraction": fraction}}
    matrix = {"rule": "matrix-flow", "epsilon": 0.6}
    for epsilon in (0.05, 0.1, 0.2):
        mask = {"rule": "mask-distance", "epsilon": epsilon}
        yield f"mask {epsilon}", {"stop": mask}
        both = {"rule": "all-of", "rules": [matrix, mask]}
        yield f"frobenius 0.6 and mask {epsilon}", {"stop": both, "min_passes": least}


def _rivals(budget: float, unit: float, share: bool) -> Iterator[Entry]:
    for passes in (*(p for p in _FIXED if unit <= p < budget), budget):
        stop = {"rule": "fixed-budget", "passes": passes}
        # Without a minimum, so that a budget below one pass is what it says.
        yield f"fixed {passes:g}", {"stop": stop, "min_passes": min(unit, passes)}
    for margin in (0, 0.01, 0.02) if share else (0,):
        label = f"accuracy target - {margin}" if margin else "accuracy target"
        yield label, {"stop": {"rule": "accuracy-target", "margin": margin}}
    for patience in (p for p in _PATIENCE if unit <= p < budget):
        yield f"plateau {patience:g}", {"stop": {"rule": "plateau", "patience": patience}}
        loss = {"rule": "loss-plateau", "patience": patience}
        yield f"loss plateau {patience:g}", {"stop": loss}


def _rule(label: str, entry: Any, where: str) -> ReplayRule:
    if isinstance(entry, ReplayRule):
        return entry
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"{where}{label}: expected a mapping with the key stop, got {type(entry).__name__}; "
            f"see {_EXAMPLE}"
        )
    try:
        return validated(ReplayRule, entry, at=label)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}{line}" for line in str(error).splitlines())) from None
