"""A replay in sentences, and its numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from infcop.core.method import AtLeast, AtMost, StopConfig
from infcop.core.replay import Correlation, Replay, ReplayedRule
from infcop.report import words

__all__ = [
    "CLOCK",
    "better_than_fixed",
    "deciding",
    "findings",
    "gain",
    "is_share",
    "kind_of",
    "loss",
    "metric",
    "metric_name",
    "notices",
    "number",
    "scope",
]

CLOCK = "passes left"
"""The distance for which nothing is measured."""


def is_share(replay: Replay) -> bool:
    """Return whether the main metric is an accuracy, a share of examples in [0, 1]."""
    return replay.main_metric.endswith("accuracy")


def metric_name(replay: Replay) -> str:
    """Return what the main metric is called."""
    return f"held-out {replay.main_metric.replace('_', ' ')}"


def metric(replay: Replay, value: float | None) -> str:
    """Return a value of the main metric."""
    if value is None:
        return "none"
    return words.percent(value) if is_share(replay) else words.number(value)


def loss(replay: Replay, value: float | None, *, unit: bool = True) -> str:
    """Return a loss of the main metric: of an accuracy in points."""
    if value is None:
        return "none"
    if not is_share(replay):
        return words.number(value)
    points = f"{100 * value:.2f}".replace("-0.00", "0.00")
    return f"{points} points" if unit else points


def number(value: float | None) -> str:
    """Return passes or a coefficient with two decimals.

    Example:
        >>> number(-0.004), number(1.5), number(None)
        ('0.00', '1.50', 'none')
    """
    return "none" if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def gain(rule: ReplayedRule) -> float | None:
    """Return how much less a rule loses than a fixed budget of as many passes at every level."""
    if rule.lost is None or rule.lost_by_fixed is None:
        return None
    return rule.lost_by_fixed - rule.lost


def kind_of(rule: StopConfig) -> str:
    """Return the name of a rule, of one inside a minimum or a maximum that of the inner one.

    Example:
        >>> from infcop.core.method import Settling
        >>> kind_of(AtLeast(passes=1, of=Settling()))
        'settling'
    """
    return kind_of(rule.of) if isinstance(rule, AtLeast | AtMost) else rule.rule


def scope(replay: Replay) -> str:
    """Say what was replayed on what."""
    levels = sum(record.levels for record in replay.records)
    readings = sum(record.readings for record in replay.records)
    return (
        f"{words.plural(len(replay.rules), 'rule')} replayed on {words.plural(levels, 'level')} "
        f"of {words.plural(len(replay.records), 'record')} with {words.count(readings)} readings"
    )


def findings(replay: Replay) -> list[str]:
    """Say what the rules and the distances came to, the most useful first."""
    return [*_of_cheapest(replay), *_of_rules(replay), *_of_distances(replay), *_of_levels(replay)]


def notices(replay: Replay) -> list[str]:
    """Say what a reader must know before trusting the numbers."""
    return list(_notices(replay))


def better_than_fixed(replay: Replay) -> str:
    """Say how many rules lose less than a fixed budget of as many passes."""
    gains = [found for rule in deciding(replay) if (found := gain(rule)) is not None]
    return (
        f"{sum(found > 0 for found in gains)} of {words.plural(len(gains), 'rule')} would have "
        "lost less than a fixed budget of as many passes."
    )


def deciding(replay: Replay) -> list[ReplayedRule]:
    """Return the rules that look at something, which fixed budgets don't."""
    return [rule for rule in replay.rules if kind_of(rule.rule.stop) != "fixed-budget"]


def _of_cheapest(replay: Replay) -> Iterator[str]:
    """Name the cheapest rule that loses no more than the tolerance."""
    tolerance = fmean(record.tolerance for record in replay.records)
    fine = [rule for rule in deciding(replay) if rule.lost is not None and rule.lost <= tolerance]
    budgets = [passes for passes, lost in replay.fixed if lost <= tolerance]
    told = "At the tolerance of " + loss(replay, tolerance)
    fixed = f"a fixed budget of {words.passes(budgets[0])} would do" if budgets else ""
    if fine:
        best = min(fine, key=lambda rule: rule.passes)
        yield (
            f"{told}, the cheapest rule is {best.label} with {words.plural(best.passes, 'pass')} "
            f"per level{'; ' + fixed if fixed else ''}."
        )
    else:
        yield f"{told}, no rule that was replayed is good enough{'; ' + fixed if fixed else ''}."


def _of_rules(replay: Replay) -> Iterator[str]:
    rules = deciding(replay)
    if rules:
        yield better_than_fixed(replay)
    least, most = (sum(getattr(r, at) == 1 for r in rules) for at in ("at_minimum", "at_budget"))
    if least or most:
        yield (
            f"{words.plural(least, 'rule')} stopped every level at the first reading possible, "
            f"and {most} used up the budget at every level: they decided nothing here."
        )


def _of_levels(replay: Replay) -> Iterator[str]:
    recovered = [c.recovered for c in replay.courses if c.recovered is not None]
    if recovered:
        spared = sum(course.spared for course in replay.courses)
        yield (
            f"The {metric_name(replay)} had recovered after {words.passes(fmean(recovered))} of "
            f"{words.passes(fmean(r.budget for r in replay.records))} passes on average, and at "
            f"{spared} of {words.plural(len(replay.courses), 'level')} it was as good right after "
            "pruning."
        )


def _of_distances(replay: Replay) -> Iterator[str]:
    flows = [c for c in replay.correlations if c.mean is not None and c.name != CLOCK]
    clock = next((c for c in replay.correlations if c.name == CLOCK), None)
    if not flows or clock is None or clock.mean is None:
        return
    more = sum(_mean(found) > clock.mean for found in flows)
    yield (
        f"Within a level, {flows[0].name} goes best with what the metric lacks: rank correlation "
        f"{number(flows[0].mean)} on average. Time alone has {number(clock.mean)}; "
        f"{more} of {words.plural(len(flows), 'distance')} tell more than that."
    )


def _mean(found: Correlation) -> float:
    return -1.0 if found.mean is None else found.mean


def _notices(replay: Replay) -> Iterator[str]:
    for record in replay.records:
        if not record.finished:
            yield f"{record.name} is unfinished; the levels that have stopped were replayed."
        if record.not_finite:
            yield (
                f"In {record.name} the {metric_name(replay)} is not finite at "
                f"{words.plural(record.not_finite, 'reading')}; they count as not recovered and "
                "are in no mean."
            )
    undecided = sum(rule.not_finite for rule in replay.rules)
    if undecided:
        yield (
            f"Rules met {words.plural(undecided, 'reading')} that they could not decide from, "
            "because what they compare is not finite; they went on there, as in a run."
        )
    for rule in replay.rules:
        for why, levels in rule.refused.items():
            yield f"{rule.label} can't be asked at {words.plural(levels, 'level')}: {why}"
    if replay.skipped:
        label, why = next(iter(replay.skipped.items()))
        yield (
            f"{words.plural(len(replay.skipped), 'rule')} of the catalogue left out, because the "
            f"records lack something for them; {label}, for instance: {why}"
        )
