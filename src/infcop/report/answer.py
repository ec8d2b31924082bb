"""The answer that a page begins with: two or three sentences and four big numbers."""

from __future__ import annotations

from dataclasses import dataclass

from infcop.core.records import Outcome, RunRecord
from infcop.report import words
from infcop.report.spending import dense_main, search_cost, spending

__all__ = ["BigNumber", "answer_sentences", "big_numbers", "subject"]


@dataclass(frozen=True)
class BigNumber:
    """One number of the answer, what it is, and what to compare it with."""

    value: str
    what: str
    beside: str


def subject(record: RunRecord) -> str:
    """Return what was searched: model, data, method and seed."""
    method = record.config.get("method", {}).get("name")
    seed = record.config.get("seed")
    parts = [f"{record.model.name} on {record.data.name}"]
    parts += [f"method {method}"] if method else []
    parts += [f"seed {seed}"] if seed is not None else []
    return ", ".join(parts)


def answer_sentences(record: RunRecord) -> list[str]:
    """Return the answer of a run in words, or how far an unfinished one has come."""
    first = _result(record, record.outcome) if record.outcome else _progress(record)
    return [*first, _effort(record)]


def big_numbers(record: RunRecord) -> list[BigNumber]:
    """Return density, main metric, passes and the cost of the whole search, as far as known."""
    numbers = [*_network_numbers(record), _passes_number(record)]
    cost = search_cost(record)
    if cost is not None:
        so_far = "" if record.outcome else " so far"
        numbers.append(
            BigNumber(
                f"{cost:,.1f} \N{MULTIPLICATION SIGN}",
                f"the work of training the dense network{so_far}",
                "measuring and evaluating included",
            )
        )
    return numbers


def _result(record: RunRecord, outcome: Outcome) -> list[str]:
    data, name = record.data, record.data.main_metric
    dense, sparse = outcome.dense.get(name), outcome.sparse.get(name)
    beside = "; no dense network was trained to the end"
    if outcome.dense:
        beside = (
            f", against {words.metric(data, dense)} for the dense network "
            f"({words.change(data, dense, sparse)})"
        )
    sentences = [
        f"The sparse network keeps {words.percent(outcome.density)} of the weights and has a "
        f"{outcome.measured_on} {_metric_name(record)} of {words.metric(data, sparse)}{beside}."
    ]
    if outcome.measured_on == "held-out":
        sentences.append(
            "There is no test split: these are the held-out examples that decisions were taken "
            "on, so the numbers may flatter."
        )
    return sentences


def _progress(record: RunRecord) -> list[str]:
    sentences = [
        "This run is unfinished: it was interrupted or is still going on. The page shows what "
        "there is so far; running the same command again goes on from here."
    ]
    if record.levels:
        last = record.levels[-1]
        sentences.append(
            f"{words.plural(len(record.levels), 'level')} begun, down to "
            f"{words.percent(last.density)} of the weights."
        )
    return sentences


def _effort(record: RunRecord) -> str:
    spent = spending(record)
    if spent.full_total is None and record.outcome:
        return f"Finding it took {words.plural(spent.total, 'training pass')}."
    if spent.full_total is None:
        return f"Training so far: {words.plural(spent.total, 'pass')} over the data."
    return (
        f"Finding it took {words.plural(spent.total, 'training pass')}; with the full budget at "
        f"every level it would have been {words.passes(spent.full_total)}."
    )


def _network_numbers(record: RunRecord) -> list[BigNumber]:
    outcome, data, name = record.outcome, record.data, _metric_name(record)
    if outcome is None:
        dense = BigNumber(
            words.metric(data, dense_main(record)), f"held-out {name} of the dense network", ""
        )
        if not record.levels:
            return [dense]
        last = record.levels[-1]
        kept = f"{words.count(last.kept)} weights"
        return [BigNumber(words.percent(last.density), "of the weights kept so far", kept), dense]
    before, after = (x.get(data.main_metric) for x in (outcome.dense, outcome.sparse))
    return [
        BigNumber(
            words.percent(outcome.density),
            "of the weights kept",
            f"{words.count(outcome.kept)} of {words.count(outcome.prunable)}",
        ),
        BigNumber(
            words.metric(data, after),
            f"{outcome.measured_on} {name}",
            f"dense network {words.metric(data, before)}, {words.change(data, before, after)}"
            if outcome.dense
            else "no dense network was trained to the end",
        ),
    ]


def _passes_number(record: RunRecord) -> BigNumber:
    spent = spending(record)
    full = spent.full_total
    beside = "" if record.outcome else "so far"
    if full is not None:
        beside = f"full budget {words.passes(full)}"
    return BigNumber(words.passes(spent.total), "training passes", beside)


def _metric_name(record: RunRecord) -> str:
    return record.data.main_metric.replace("_", " ")
