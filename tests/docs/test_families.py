"""The page and the cards on methods of every family say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.families import __main__ as families
from benchmarks.families.figures import figures, measured, pooled, pooled_table
from benchmarks.stop_study.figures import tables
from infcop.core.start import EarlyBird
from infcop.core.study import StudyResults
from infcop.study.configure import load_comparison
from infcop.study.jobs import check_runs
from infcop.study.statistics import estimate
from infcop.study.summary import summarise

ROOT = Path(__file__).parents[2]
CONTENT = json.loads(families.RESULTS.read_text(encoding="utf-8"))
STUDIES = families.stored(families.RESULTS)
WITH_A_CARD = ("movement", "early-bird", "snip", "grasp", "synflow", "random", "rigl", "set")
WITH_A_SECTION = ("random", "taylor", "fisher", "wanda", "correlation")


def flat(path: str) -> str:
    """Return the text of a page with every break and indent as one space."""
    return " ".join((ROOT / "docs" / path).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("study", families.STUDIES)
def test_every_comparison_can_be_run_and_was(study: str) -> None:
    config = load_comparison(families.HERE / f"{study}.yaml")
    check_runs(config)
    # By their labels: the axes of a named method may have changed since.
    ran = STUDIES[study].config
    assert ran.model_copy(update={"methods": config.methods}) == config
    assert list(ran.methods) == list(config.methods)


@pytest.mark.parametrize("kind", families.KINDS)
def test_comparisons_of_a_kind_mean_the_same_by_a_name(kind: str) -> None:
    first, *others = families.of_kind(STUDIES, kind)
    assert others
    assert all(other.config.baseline == first.config.baseline for other in others)
    assert all(other.config.methods.items() <= first.config.methods.items() for other in others)


@pytest.mark.parametrize("study", families.STUDIES)
def test_the_results_are_whole(study: str) -> None:
    results = STUDIES[study]
    config = results.config
    assert results.cells == summarise(config, results.rows)
    assert not results.failures
    places = len(config.methods) * len(config.densities) * len(config.seeds)
    assert len(results.rows) == places * len(config.settings)


@pytest.mark.parametrize("study", families.STUDIES)
def test_the_page_shows_every_table(study: str) -> None:
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert tables(STUDIES[study]) in page
    assert f"`{CONTENT['command']}`, {CONTENT['date']}" in page


@pytest.mark.parametrize("kind", families.KINDS)
def test_the_page_shows_the_means_over_densities(kind: str) -> None:
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert pooled_table(families.of_kind(STUDIES, kind)) in page


@pytest.mark.parametrize("method", WITH_A_CARD)
def test_every_card_says_what_was_measured(method: str) -> None:
    card = flat(f"methods/{method}.md")
    assert measured(families.of_kind(STUDIES, "methods"), method) in card
    assert f"`{CONTENT['command']}`, {CONTENT['date']}" in card


@pytest.mark.parametrize("score", WITH_A_SECTION)
def test_every_score_says_what_was_measured(score: str) -> None:
    page = flat("methods/scores.md")
    section = page.partition(f" ## {score} ")[2].partition(" ## ")[0]
    assert measured(families.of_kind(STUDIES, "scores"), score) in section
    assert f"`{CONTENT['command']}`, {CONTENT['date']}" in page


@pytest.mark.parametrize("score", ["correlation", "correlation-equal-cost", "taylor"])
def test_the_differences_in_the_text_are_the_measured_ones(score: str) -> None:
    page = flat("families.md")
    for results in families.of_kind(STUDIES, "scores"):
        difference = pooled(results, score)
        assert difference is not None
        assert difference.mean < 0
        assert f"{-100 * difference.mean:.1f} ± {100 * (difference.half_width or 0):.1f}" in page


def test_early_bird_always_stopped_as_soon_as_it_could() -> None:
    for results in families.of_kind(STUDIES, "methods"):
        (setting,) = results.config.settings.values()
        trained = {row.training_passes for row in results.rows if row.method == "early-bird"}
        assert trained == {EarlyBird().window + float(setting.final.passes or 0)}
    assert "at pass 5" in flat("methods/early-bird.md")


def test_random_masks_of_lenet5_learnt_nothing() -> None:
    rows = STUDIES["fashion-methods"].rows
    assert {row.main for row in rows if row.method in ("random", "set")} == {0.1}
    sparse = [row for row in rows if row.density == 0.0225]
    assert {row.main for row in sparse if row.method.startswith("rigl")} == {0.1}


def test_a_mean_over_densities_is_that_of_the_seeds_own_means() -> None:
    results = STUDIES["digits-methods"]
    main = {(row.method, row.seed, row.density): row.main for row in results.rows}
    differences = [
        fmean(
            main["snip", seed, density] - main["one-shot", seed, density]
            for density in results.config.densities
        )
        for seed in results.config.seeds
    ]
    assert pooled(results, "snip") == estimate(differences)


def test_what_is_missing_is_left_out_of_a_mean() -> None:
    results = STUDIES["digits-methods"]
    gone = (results.config.seeds[0], results.config.densities[0])

    def without(method: str) -> StudyResults:
        rows = [r for r in results.rows if (r.method, r.seed, r.density) != (method, *gone)]
        return results.model_copy(update={"rows": tuple(rows)})

    assert pooled(without("snip"), "snip") == pooled(without("one-shot"), "snip")
    assert pooled(without("snip"), "snip") != pooled(results, "snip")
    assert pooled(results.model_copy(update={"rows": ()}), "snip") is None


def test_the_summary_prints_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert families.main(["--summary"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads(json.dumps(figures(STUDIES)))
    assert len(printed["digits-scores, correlation minus magnitude"]) == 3
