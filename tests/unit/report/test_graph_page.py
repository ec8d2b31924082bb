from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from infcop.errors import RunFolderError
from infcop.report.graph_page import render_graph, write_graph
from infcop.report.graph_words import measurement_lines, subject_line
from tests.reference.measurements import (
    CHAIN,
    HOSTILE,
    dense_edges,
    make_edge,
    make_layer,
    make_measurement,
)


class Page(HTMLParser):
    """Elements with their attributes, and all text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.style = ""
        self._in_style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style += data
        else:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(*graph, **changes) -> Page:
    return Page(render_graph(make_measurement(*graph, **changes)))


def test_the_page_says_what_was_measured_and_shows_it() -> None:
    text = page_of().text
    places = [
        text.index(words)
        for words in (
            "weights drawn with seed 0; 2,048 examples of digits, in evaluation mode",
            "3 prunable layers and 2 edges",
            "The flow is strongest from",
            "signed mean -",
            "Layers from the input at the top",
            "layer kind weight density dead units gradient norm",
            "from to signed mean absolute mean",
            "After ± the standard error",
            "3 of the model's parameter tensors are not prunable",
        )
    ]
    assert places == sorted(places)


def test_every_layer_and_edge_is_drawn_and_tabled() -> None:
    record = make_measurement()
    page = Page(render_graph(record))
    assert len(page.all("rect")) == 3
    titles = [text for text in page.words if "→" in text]
    assert len(titles) == 2
    assert {words.split("\n")[0] for words in titles} == {"fc1 → fc2", "fc2 → fc3"}
    assert all("signed mean" in words and "effective rank" in words for words in titles)
    assert len(page.all("tr")) == 1 + 3 + 1 + 2 + 1 + 3


def test_nothing_is_fetched_and_nothing_is_run() -> None:
    page = page_of()
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset", "action", "data", "poster", "background", "onclick"):
            assert name not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    policies = [x for x in page.all("meta") if x.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_hostile_names_stay_text() -> None:
    graph = [(HOSTILE, "out")]
    hostile = page_of(graph, model=HOSTILE, weights=HOSTILE, warnings=(HOSTILE,), data=HOSTILE)
    plain = page_of([("in", "out")], warnings=("one",))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert HOSTILE in " ".join(hostile.words)


def test_a_model_without_edges_says_so() -> None:
    page = page_of((), ["only"], edges=[], warnings=("information flow was not measured",))
    assert "1 prunable layer and 0 edges" in page.text
    assert "There is no edge: no prunable layer receives the output of another." in page.text
    assert "information flow was not measured" in page.text
    assert len(page.all("rect")) == 1
    assert "absolute mean" not in [words.strip() for words in page.words]


def test_what_stands_out_is_told() -> None:
    layers = [make_layer("fc1", dead=2), make_layer("fc2", calls=3), make_layer("fc3")]
    page = page_of(layers=layers, unused=("spare",))
    assert "2 units in 1 layer are dead" in page.text
    assert "Called more than once: fc2." in page.text
    assert "Not used in the forward pass: spare." in page.text
    assert "1 more is not used" in page.text
    assert "Layers with a red frame have dead units." in page.text
    assert [x.get("class") for x in page.all("g")].count("dead") == 1


def test_edges_that_were_not_measured_are_shown_without_numbers() -> None:
    page = page_of(edges=[make_edge(CHAIN[0], 0.1), make_edge(CHAIN[1], None)])
    assert "2 edges" in page.text
    assert "fc2 → fc3" in page.text


def test_the_page_of_a_dense_network_stays_small() -> None:
    edges = dense_edges()
    page = render_graph(make_measurement(edges))
    assert page.count("<rect") == len({name for edge in edges for name in edge}) > 120
    assert len(page) < 800_000


def test_more_edges_than_a_table_should_hold_are_counted() -> None:
    names = [f"layer{number}" for number in range(60)]
    edges = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :]]
    page = page_of(edges)
    assert "570 weaker ones are left out" in page.text
    assert "770 weaker ones are in the JSON" in page.text


def test_the_same_measurement_gives_the_same_page() -> None:
    assert render_graph(make_measurement()) == render_graph(make_measurement())


def test_folders_are_made_and_pages_replaced(tmp_path: Path) -> None:
    path = write_graph(make_measurement(model="first"), tmp_path / "new" / "net.html")
    write_graph(make_measurement(model="second"), path)
    assert "<h1>second</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["net.html"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("place", ["file/net.html", "file/deeper/net.html", "folder"])
def test_a_page_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFolderError, match=f"can't .*{re.escape(place)}.*Expected a folder"):
        write_graph(make_measurement(), tmp_path / place)
    assert (tmp_path / "file").read_text() == "in the way"
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_failed_write_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_graph(make_measurement(model="first"), tmp_path / "net.html")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left"):
        write_graph(make_measurement(model="second"), path)
    assert "<h1>first</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["net.html"]


# -- plain text ----------------------------------------------------------------------------------


def test_the_terminal_gets_the_same_tables() -> None:
    lines = measurement_lines(make_measurement())
    assert lines[0].startswith("net: weights drawn with seed 0; 2,048 examples of digits")
    header = next(line for line in lines if line.startswith("layer"))
    assert header.split("  ")[-1].strip() == "outputs"
    assert sum(line.startswith("fc") for line in lines) == 3 + 2
    assert any("averaged over axis 1" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_long_tables_are_cut_in_the_terminal() -> None:
    lines = measurement_lines(make_measurement(dense_edges()))
    assert sum(line.startswith("... and ") for line in lines) == 2
    assert any(re.fullmatch(r"\.\.\. and 595 more edges: see the page, .*", x) for x in lines)


def test_a_subject_names_the_gradient_only_where_it_was_measured() -> None:
    assert "full gradient" in subject_line(make_measurement())
    assert "gradient" not in subject_line(make_measurement(gradient=None))
