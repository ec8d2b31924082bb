"""How near a search comes to the multiply-adds that were asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from infcop.core.mask import Masks
from infcop.core.pattern import CoupledChannels
from infcop.errors import InfcopWarning, PruningError
from infcop.pipeline import masks_for_size as sizes
from tests.conformance.test_coupled_channels_hold import search, wide_net


@pytest.fixture
def collapses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The part of each network that is collapsed and counted."""
    found: list[float] = []
    real = sizes._Counter.part_of_dense

    def part(counter: Any, masks: Masks, patience: int = 1) -> float:
        found.append(real(counter, masks, patience))
        return found[-1]

    monkeypatch.setattr(sizes._Counter, "part_of_dense", part)
    return found


def reached(folder: Path, density: float, scope: str = "global", multiple: int = 1) -> float:
    result = search(
        folder,
        model=wide_net(),
        density=density,
        density_in="flops",
        pattern=CoupledChannels(multiple=multiple),
        method={"scope": scope, "schedule": "one-shot"},
    )
    size = result.record.levels[-1].size
    assert size is not None
    return size


@pytest.mark.filterwarnings("error::infcop.errors.InfcopWarning")
@pytest.mark.parametrize(
    ("density", "scope", "multiple"),
    [(0.5, "global", 1), (0.2, "uniform", 4), (0.1, "global", 1), (0.02, "uniform", 4)],
)
def test_a_small_part_is_met_to_a_hundredth_of_it(
    tmp_path: Path, collapses: list[float], density: float, scope: str, multiple: int
) -> None:
    size = reached(tmp_path, density, scope, multiple)
    assert size == pytest.approx(density, rel=0.01)
    assert size == collapses[-1]
    assert len(collapses) <= 3


@pytest.mark.filterwarnings("error::infcop.errors.InfcopWarning")
def test_where_channels_are_wider_the_nearest_is_taken(
    tmp_path: Path, collapses: list[float]
) -> None:
    size = reached(tmp_path, 0.05, multiple=4)
    below, above = collapses
    assert below < 0.99 * 0.05 < 1.01 * 0.05 < above
    assert size == above
    assert above - 0.05 < 0.05 - below


def test_more_than_a_hundredth_of_the_dense_network_is_said(
    tmp_path: Path, collapses: list[float]
) -> None:
    with pytest.warns(InfcopWarning, match=r"no network that takes 0\.5 .* with one that takes"):
        size = reached(tmp_path, 0.5, multiple=32)
    assert abs(size - 0.5) == min(abs(part - 0.5) for part in collapses) > 0.01


@pytest.mark.parametrize(("off", "ends"), [(0.004, True), (0.02, False)])
def test_the_last_network_there_is_may_be_a_hundredth_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float, ends: bool
) -> None:
    calls = []
    real = sizes.masks_down_to

    def down(*given: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:
            raise PruningError("no smaller one")
        return real(*given)

    monkeypatch.setattr(sizes, "masks_down_to", down)
    monkeypatch.setattr(sizes._Counter, "part_of_dense", lambda *_, **__: 0.1 + off)
    if not ends:
        with pytest.raises(PruningError, match=r"takes 0\.1 .*; the nearest takes 0\.120: no sma"):
            reached(tmp_path, 0.1)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", InfcopWarning)
        assert reached(tmp_path, 0.1) == pytest.approx(0.104)
    assert len(calls) > 1, "a smaller one was asked for"


def test_no_network_is_collapsed_for_what_is_not_the_end(
    tmp_path: Path, collapses: list[float]
) -> None:
    """A level on the way is counted once; then it is left as it was planned."""
    result = search(tmp_path, model=wide_net(), density=0.3, density_in="flops")
    sizes_of_levels = [level.size for level in result.record.levels]
    assert sizes_of_levels[:-1] == [None] * (len(sizes_of_levels) - 1)
    assert len(collapses) <= len(sizes_of_levels) + 2
