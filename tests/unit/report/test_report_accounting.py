from __future__ import annotations

import json
import re

import pytest

from infcop.core.footprint import Footprint, NetworkFootprint
from infcop.report.accounting import (
    fewer_multiply_adds,
    is_timed,
    overlap,
    places,
    speed_up,
    timings_at,
)
from infcop.report.figure_removed import removed_figure
from infcop.report.footprint_tables import (
    footprint_dict,
    footprint_lines,
    layer_sizes_table,
    size_table,
    speed_table,
)
from infcop.report.footprint_words import footprint_sentences, latency, uncounted_sentence
from infcop.report.page import render_report
from tests.reference.footprints import make_footprint
from tests.reference.pages import Page
from tests.reference.records import HOSTILE, make_record

DATA = make_record(levels=1).data


def test_a_speed_up_is_measured_at_the_same_place() -> None:
    footprint = make_footprint()
    assert places(footprint) == [(1, 1), (1, 2), (64, 1), (64, 2)]
    for batch, threads in places(footprint):
        found = {
            network.network: speed_up(footprint, network, timing)
            for network, timing in timings_at(footprint, batch, threads)
        }
        assert found == {
            "dense": None,
            "masked": pytest.approx(1 / 1.025),
            "compact": pytest.approx(2),
        }


def test_times_that_meet_may_differ_by_chance() -> None:
    footprint = make_footprint()
    found = {n.network: overlap(footprint, timing) for n, timing in timings_at(footprint, 64, 1)}
    assert found == {"dense": True, "masked": True, "compact": False}


def test_without_a_dense_network_there_is_no_ratio() -> None:
    footprint = make_footprint()
    alone = footprint.model_copy(update={"networks": footprint.networks[2:]})
    compact = alone.networks[0]
    assert fewer_multiply_adds(alone, compact) is None
    assert speed_up(alone, compact, compact.timings[0]) is None
    assert footprint_sentences(alone) == []


def test_what_was_not_measured_has_no_ratio() -> None:
    footprint = make_footprint()
    onnx = footprint.of("onnx")
    assert onnx is not None
    assert fewer_multiply_adds(footprint, onnx) is None
    assert size_table(footprint, DATA).rows[-1] == (
        "ONNX",
        "not measured",
        "not counted",
        "not counted",
        "not counted",
        "not measured",
        "not measured",
    )


def test_a_ratio_of_counts_stands_beside_the_measured_one_only() -> None:
    timed, counted = make_footprint(), make_footprint(timed=False)
    assert not is_timed(counted)
    # Of the multiply-adds, 4 times fewer.
    told = "\n".join(footprint_lines(counted, DATA))
    page = Page(render_report(make_record(), "x", counted)).text
    for text in (told, page):
        assert "4.00" not in text
        assert "speed-up" not in text
        assert "times fewer" not in text
    assert footprint_dict(counted)["speed_ups"] == []
    table = speed_table(timed)
    ratio, measured = (
        table.headings.index(name) for name in ("times fewer multiply-adds", "measured speed-up")
    )
    assert abs(ratio - measured) == 1
    assert all(bool(row[ratio]) == bool(row[measured]) for row in table.rows)
    assert all(cell.count("4.00") == 0 for row in size_table(timed, DATA).rows for cell in row)


def test_every_row_says_batch_and_threads() -> None:
    rows = speed_table(make_footprint()).rows
    assert len(rows) == 3 * 4
    assert rows[2][:6] == ("compact", "1", "1", "1.00 ms", "2.00", "4.00")
    assert rows[2][6:] == ("1,000", "900 µs to 1.10 ms")


def test_the_sentences() -> None:
    first, second = footprint_sentences(make_footprint())
    assert first == (
        "With all that is dead left out, the network has 2,500 of 10,000 parameters, 25.0 %, and "
        "does the same."
    )
    assert second == (
        "Its measured speed-up over the dense network, with 4.00 times fewer multiply-adds: 2.00 "
        "at batch 1 and 1 thread; 2.00 at batch 1 and 2 threads; 2.00 at batch 64 and 1 thread; "
        "2.00 at batch 64 and 2 threads."
    )


def test_nothing_removed_is_said_plainly() -> None:
    footprint = make_footprint(timed=False)
    dense, masked, compact, _ = footprint.networks
    same = compact.model_copy(update={"parameters": dense.parameters})
    whole = footprint.model_copy(update={"networks": (dense, masked, same)})
    assert footprint_sentences(whole)[0].startswith("Nothing could be left out")


def test_what_is_not_counted_is_named() -> None:
    assert uncounted_sentence(make_footprint()).endswith(
        "Not counted, with the number of calls: ReLU (3), softmax (1)."
    )
    assert uncounted_sentence(make_footprint(networks=())).endswith("Nothing else is computed.")


def test_operators_have_the_names_that_people_use() -> None:
    """Operators of one name are added up, and those of several networks are not."""
    calls = {"_native_batch_norm_legit_no_training": 2, "native_batch_norm": 1, "_own_thing": 4}
    fewer = {"native_batch_norm": 1, "add": 1}
    networks = tuple(
        NetworkFootprint(network=kind, uncounted=own)
        for kind, own in (("dense", calls), ("compact", fewer))
    )
    assert uncounted_sentence(make_footprint(networks=networks)).endswith(
        "calls: batch normalisation (3), own_thing (4), addition (1)."
    )


def test_latencies_and_sizes_keep_three_digits() -> None:
    assert [latency(x) for x in (0.0, 9.996e-6, 0.0009996, 0.99951, 123.4)] == [
        "0.00 µs",
        "10.0 µs",
        "1.00 ms",
        "1.00 s",
        "123 s",
    ]


def test_a_footprint_survives_its_file() -> None:
    footprint = make_footprint()
    assert Footprint.model_validate_json(footprint.model_dump_json()) == footprint
    told = footprint_dict(footprint)
    assert json.loads(json.dumps(told)) == told
    assert {row["network"] for row in told["speed_ups"]} == {"masked", "compact"}


def test_the_page_has_a_section_where_there_is_a_compact_network() -> None:
    record = make_record()
    without, page = (
        Page(render_report(record, "x", footprint)) for footprint in (None, make_footprint())
    )
    assert "A smaller network" not in without.text
    places = [
        page.text.index(words)
        for words in (
            "What it cost",
            "A smaller network",
            "2,500 of 10,000 parameters",
            "ReLU (3)",
            "ONNX: not exported yet",
            "How fast they are",
            "What was removed from each layer",
            "every unit is used",
            "Level by level",
        )
    ]
    assert places == sorted(places)
    assert len(page.figures) == len(without.figures) + 1
    keys = [x["id"] for x in page.all("div") if x.get("class") == "plot"]
    assert keys == [f"plot-{figure['key']}" for figure in page.figures]


def test_a_page_without_timings_says_how_to_get_them() -> None:
    text = Page(render_report(make_record(), "x", make_footprint(timed=False))).text
    assert "was not measured: infcop compact RUN --report does" in text
    assert "How fast they are" not in text


def test_names_from_a_model_stay_text() -> None:
    footprint = make_footprint(name=HOSTILE + "{}", new_biases=(HOSTILE,))
    page = Page(render_report(make_record(), "x", footprint))
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert "<script" not in json.dumps(page.figures)


def test_the_figure_shows_layers_with_units() -> None:
    figure = removed_figure(make_footprint(layers=7))
    before, after = (trace["y"] for trace in figure.plot.to_plotly_json()["data"])
    assert list(before) == [16] * 7
    assert list(after) == [16, 15, 14, 13, 12, 16, 15]
    assert figure.finding == (
        "101 of 112 output units are left, 90.2 %. layers.4.conv keeps the smallest part of its "
        "units, 75.0 %; 2 layers of 7 keep every unit."
    )
    assert "; 1 layer of 4 keeps every unit." in removed_figure(make_footprint(layers=4)).finding
    assert len(figure.table.rows) == 8
    assert figure.table == layer_sizes_table(make_footprint(layers=7))


def test_the_figure_of_a_whole_network_and_of_none() -> None:
    whole = removed_figure(make_footprint(layers=1))
    assert whole.finding == "All 16 output units of the layers stay."
    assert "could be counted" in removed_figure(make_footprint(layers=0)).why


def test_few_short_names_stand_on_the_axis() -> None:
    plot = removed_figure(make_footprint(layers=3, name="fc{}")).plot
    assert list(plot.layout.xaxis.ticktext) == ["fc0", "fc1", "fc2"]
    plot = removed_figure(make_footprint(layers=60)).plot
    assert re.fullmatch(r"1", plot.layout.xaxis.ticktext[0])
    assert len(plot.layout.xaxis.ticktext) <= 12


def test_a_model_that_is_one_layer_has_a_name() -> None:
    figure = removed_figure(make_footprint(layers=2, name=""))
    assert "The model keeps the smallest part of its units" in figure.finding
    assert list(figure.plot.layout.xaxis.ticktext) == ["the model", "the model"]
    assert figure.plot.data[1].hovertext[1].startswith("the model<br>")
