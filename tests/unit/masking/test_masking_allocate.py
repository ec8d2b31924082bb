from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.allocate import allocate_layerwise

counts = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 5000)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=200)
@given(sizes=counts, floor=st.integers(0, 8), data=st.data())
def test_total_is_exact_and_floors_hold(sizes: list[int], floor: int, data: Any) -> None:
    alive = {f"l{i}": size for i, size in enumerate(sizes)}
    least = {name: min(size, max(1, floor)) for name, size in alive.items()}
    kept = data.draw(st.integers(sum(least.values()), sum(sizes)))
    allocated = allocate_layerwise(alive, kept, floor)
    assert list(allocated) == list(alive)
    assert sum(allocated.values()) == kept
    assert all(least[name] <= allocated[name] <= alive[name] for name in alive)


@settings(deadline=None, max_examples=200)
@given(sizes=counts, data=st.data())
def test_layers_lose_the_same_fraction_up_to_one_entry(sizes: list[int], data: Any) -> None:
    alive = {f"l{i}": size for i, size in enumerate(sizes)}
    floors = sum(min(1, size) for size in sizes)
    kept = data.draw(st.integers(floors, sum(sizes)))
    allocated = allocate_layerwise(alive, kept)
    rate = kept / max(1, sum(sizes))
    if all(rate * size >= 1 for size in sizes if size):
        assert all(abs(allocated[name] - rate * alive[name]) < 1 + 1e-9 for name in alive)


def test_published_schedule_is_followed_in_each_layer_for_twenty_levels() -> None:
    sizes = {"fc1": 235_200, "fc2": 30_000, "fc3": 1_000}
    alive, total = dict(sizes), sum(sizes.values())
    for level in range(1, 21):
        total -= total // 5
        alive = allocate_layerwise(alive, total)
        for name, size in sizes.items():
            assert abs(alive[name] - size * 0.8**level) <= level


def test_remainders_decide_and_then_order() -> None:
    # Shares of the removal of 4: 1.6, 1.2, 1.2; the largest remainder gives one more.
    assert allocate_layerwise({"a": 4, "b": 3, "c": 3}, 6) == {"a": 2, "b": 2, "c": 2}
    # Shares of 1: a half each; the first layer gives.
    assert allocate_layerwise({"a": 5, "b": 5}, 9) == {"a": 4, "b": 5}


def test_layers_at_their_floor_pass_their_share_on() -> None:
    alive = {"a": 10, "b": 100, "c": 1000}
    assert allocate_layerwise(alive, 111, keep_per_layer=8) == {"a": 8, "b": 9, "c": 94}
    assert allocate_layerwise(alive, 24, keep_per_layer=8) == {"a": 8, "b": 8, "c": 8}


def test_no_layer_is_emptied_while_one_entry_each_can_stay() -> None:
    assert allocate_layerwise({"tiny": 1, "big": 10_000}, 2) == {"tiny": 1, "big": 1}


def test_nothing_to_remove_and_nothing_there() -> None:
    assert allocate_layerwise({"a": 3, "b": 0}, 3) == {"a": 3, "b": 0}
    assert allocate_layerwise({"a": 0, "b": 0}, 0) == {"a": 0, "b": 0}


def test_impossible_counts() -> None:
    with pytest.raises(LayerCollapseError, match=r"must keep 2 entries .* only 1 may survive"):
        allocate_layerwise({"a": 3, "b": 3}, 1)
    with pytest.raises(LayerCollapseError, match=r"keep_per_layer=2\).* only 3"):
        allocate_layerwise({"a": 3, "b": 3}, 3, keep_per_layer=2)
    with pytest.raises(PruningError, match="at most the 6 entries that are alive, got kept=7"):
        allocate_layerwise({"a": 3, "b": 3}, 7)
