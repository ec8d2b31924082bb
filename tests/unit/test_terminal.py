from __future__ import annotations

import io
import sys

import pytest

from infcop.terminal import PlainProgress, RichProgress, SilentProgress, terminal_progress


class Terminal(io.StringIO):
    """Text written to a terminal."""

    def isatty(self) -> bool:
        return True


def a_run(progress) -> None:
    """Tell a watcher what a run with two phases tells."""
    with progress as watcher:
        watcher.say("loading [bold]data[/bold] :smile: ...")
        watcher.begin("dense network", 20, 0)
        for step in range(1, 21):
            watcher.step(step)
        watcher.begin("level 1, density 80.0%", 10, 4)
        watcher.step(5)
        watcher.say("level 1: stopped after 0.5 passes")
    assert watcher is progress


SENTENCES = ["loading [bold]data[/bold] :smile: ...", "level 1: stopped after 0.5 passes"]


def test_silence(capsys) -> None:
    a_run(SilentProgress())
    assert capsys.readouterr() == ("", "")


def test_plain_lines_hold_the_sentences_and_no_bars(capsys) -> None:
    a_run(PlainProgress())
    out, err = capsys.readouterr()
    assert out == "", "standard output is for the answer"
    assert err.splitlines() == SENTENCES


def test_a_terminal_gets_sentences_and_bars(monkeypatch, capsys) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    a_run(RichProgress())
    shown = screen.getvalue()
    for sentence in SENTENCES:
        assert sentence in shown, "as it is: no markup, no emoji"
    assert "level 1, density 80.0%" in shown
    assert "/10 steps" in shown
    assert capsys.readouterr().out == ""


def test_bars_end_with_an_exception(monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = RichProgress()
    with pytest.raises(KeyError), progress:
        raise KeyError
    before = screen.getvalue()
    progress.step(3)
    assert screen.getvalue() == before


def test_steps_before_any_phase_are_ignored(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with RichProgress() as progress:
        progress.step(3)


@pytest.mark.parametrize(
    ("stream", "quiet", "kind"),
    [
        (Terminal, False, RichProgress),
        (io.StringIO, False, PlainProgress),
        (Terminal, True, SilentProgress),
        (io.StringIO, True, SilentProgress),
    ],
)
def test_the_watcher_suits_the_terminal(monkeypatch, stream, quiet, kind) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    assert type(terminal_progress(quiet=quiet)) is kind
