from __future__ import annotations

from fractions import Fraction as Rational
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.allocate import allocate_kept, allocate_removed, layer_floors, share
from tests.reference import pruning

counts = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 5000)), min_size=1, max_size=12)


def layerwise(alive: dict[str, int], kept: int, keep_per_layer: int = 0) -> dict[str, int]:
    """Let all layers lose the same fraction."""
    least = layer_floors(alive, kept, keep_per_layer, may_empty=False)
    return allocate_removed(alive, alive, least, kept)


def named(values: list[int]) -> dict[str, int]:
    return {f"l{i}": value for i, value in enumerate(values)}


# -- sharing a total -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(data=st.data(), size=st.integers(1, 4))
def test_shares_are_those_of_a_search_over_all_cases(data: Any, size: int) -> None:
    small = st.integers(0, 7)
    low = data.draw(st.lists(small, min_size=size, max_size=size))
    room = data.draw(st.lists(small, min_size=size, max_size=size))
    weights = data.draw(
        st.lists(
            st.fractions(min_value=0, max_value=5, max_denominator=6), min_size=size, max_size=size
        )
    )
    # What has no weight gets its least.
    high = [
        least + more * (weight > 0) for least, more, weight in zip(low, room, weights, strict=True)
    ]
    total = data.draw(st.integers(sum(low), sum(high)))
    found = share(
        dict(enumerate(weights)),
        dict(enumerate(low)),
        dict(enumerate(high)),
        total,  # type: ignore[arg-type]
    )
    expected = pruning.rounded(pruning.shares(weights, low, high, total), total)
    assert list(found.values()) == expected
    assert sum(expected) == total


def test_remainders_decide_and_then_order() -> None:
    # Shares of the removal of 4: 1.6, 1.2, 1.2; the largest remainder gives one more.
    assert layerwise({"a": 4, "b": 3, "c": 3}, 6) == {"a": 2, "b": 2, "c": 2}
    # Shares of 1: a half each; the first layer gives.
    assert layerwise({"a": 5, "b": 5}, 9) == {"a": 4, "b": 5}


def test_weights_may_be_fractions() -> None:
    weights = {"a": Rational(1, 3), "b": Rational(2, 3)}
    assert share(weights, {"a": 0, "b": 0}, {"a": 9, "b": 9}, 9) == {"a": 3, "b": 6}


# -- of what is alive ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(sizes=counts, floor=st.integers(0, 8), data=st.data())
def test_total_is_exact_and_floors_hold(sizes: list[int], floor: int, data: Any) -> None:
    alive = named(sizes)
    least = {name: min(size, max(1, floor)) for name, size in alive.items()}
    kept = data.draw(st.integers(sum(least.values()), sum(sizes)))
    for allocated in (
        layerwise(alive, kept, floor),
        allocate_kept(dict.fromkeys(alive, 1), alive, least, kept),
    ):
        assert list(allocated) == list(alive)
        assert sum(allocated.values()) == kept
        assert all(least[name] <= allocated[name] <= alive[name] for name in alive)


@settings(deadline=None, max_examples=80)
@given(sizes=counts, data=st.data())
def test_layers_lose_the_same_fraction_up_to_one_entry(sizes: list[int], data: Any) -> None:
    alive = named(sizes)
    floors = sum(min(1, size) for size in sizes)
    kept = data.draw(st.integers(floors, sum(sizes)))
    allocated = layerwise(alive, kept)
    rate = kept / max(1, sum(sizes))
    if all(rate * size >= 1 for size in sizes if size):
        assert all(abs(allocated[name] - rate * alive[name]) < 1 + 1e-9 for name in alive)


def test_published_schedule_is_followed_in_each_layer_for_twenty_levels() -> None:
    sizes = {"fc1": 235_200, "fc2": 30_000, "fc3": 1_000}
    alive, total = dict(sizes), sum(sizes.values())
    for level in range(1, 21):
        total -= total // 5
        alive = layerwise(alive, total)
        for name, size in sizes.items():
            assert abs(alive[name] - size * 0.8**level) <= level


def test_layers_at_their_floor_pass_their_share_on() -> None:
    alive = {"a": 10, "b": 100, "c": 1000}
    assert layerwise(alive, 111, keep_per_layer=8) == {"a": 8, "b": 9, "c": 94}
    assert layerwise(alive, 24, keep_per_layer=8) == {"a": 8, "b": 8, "c": 8}


def test_no_layer_is_emptied_while_one_entry_each_can_stay() -> None:
    assert layerwise({"tiny": 1, "big": 10_000}, 2) == {"tiny": 1, "big": 1}


def test_a_layer_of_no_weight_loses_nothing() -> None:
    alive, least = {"a": 10, "b": 10}, {"a": 1, "b": 1}
    assert allocate_removed({"a": 0, "b": 5}, alive, least, 13) == {"a": 10, "b": 3}
    with pytest.raises(LayerCollapseError, match=r"layers that lose nothing keep 11 .* floors"):
        allocate_removed({"a": 0, "b": 5}, alive, least, 10)


def test_proportions_can_be_of_all_that_was_ever_removed() -> None:
    # The first layer has lost more than its part already: now only the second loses.
    alive, total = {"a": 4, "b": 10}, {"a": 10, "b": 10}
    least = {"a": 1, "b": 1}
    assert allocate_removed({"a": 1, "b": 1}, alive, least, 10, total) == {"a": 4, "b": 6}
    assert allocate_removed({"a": 1, "b": 1}, alive, least, 6, total) == {"a": 3, "b": 3}


def test_kept_entries_in_proportion_and_what_is_full_leaves_the_rest_to_others() -> None:
    alive, least = {"a": 4, "b": 100}, {"a": 1, "b": 1}
    assert allocate_kept({"a": 1, "b": 1}, alive, least, 20) == {"a": 4, "b": 16}
    assert allocate_kept({"a": 1, "b": 1}, alive, {"a": 1, "b": 19}, 20) == {"a": 1, "b": 19}


def test_nothing_to_remove_and_nothing_there() -> None:
    assert layerwise({"a": 3, "b": 0}, 3) == {"a": 3, "b": 0}
    assert layerwise({"a": 0, "b": 0}, 0) == {"a": 0, "b": 0}


def test_floors_of_one_are_given_up_only_where_layers_may_be_emptied() -> None:
    alive = {"a": 5, "b": 5, "c": 0}
    assert layer_floors(alive, 2, 0, may_empty=True) == {"a": 1, "b": 1, "c": 0}
    assert layer_floors(alive, 1, 0, may_empty=True) == {"a": 0, "b": 0, "c": 0}
    assert layer_floors(alive, 1, 0, may_empty=False) == {"a": 1, "b": 1, "c": 0}
    assert layer_floors(alive, 1, 3, may_empty=True) == {"a": 3, "b": 3, "c": 0}


def test_impossible_counts() -> None:
    with pytest.raises(LayerCollapseError, match=r"must keep 2 entries .* only 1 may survive"):
        layerwise({"a": 3, "b": 3}, 1)
    with pytest.raises(LayerCollapseError, match=r"most of them 'a' with 2, but only 3 may"):
        layerwise({"a": 3, "b": 3}, 3, keep_per_layer=2)
    with pytest.raises(PruningError, match="at most the 6 entries that are alive, got kept=7"):
        layerwise({"a": 3, "b": 3}, 7)
    with pytest.raises(PruningError, match="at most the 6 entries that are alive, got kept=7"):
        allocate_kept({"a": 3, "b": 3}, {"a": 3, "b": 3}, {"a": 1, "b": 1}, 7)
