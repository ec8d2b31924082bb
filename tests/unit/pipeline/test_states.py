from __future__ import annotations

import torch

from infcop.core.comparison import distance
from infcop.core.mask import Masks
from infcop.pipeline.states import States

EDGES = (("a", "b"), ("b", "c"))


def state(size):
    """Return matrices that lie by ``size`` from those of size 0, which have norm 1 together."""
    return {
        EDGES[0]: torch.tensor([[1.0, 0.0], [0.0, float(size)]]),
        EDGES[1]: torch.zeros(2, 1),
    }


def distances(comparisons):
    return {name: round(distance(one), 6) for name, one in comparisons.items()}


def test_a_state_is_compared_with_those_that_were_kept() -> None:
    states = States([("trained", "all"), ("last", "all")], EDGES)
    assert states.take(state(0)) == {}
    states.keep("trained")
    states.keep("dense")
    assert distances(states.take(state(0.5))) == {"trained": 0.5, "last": 0.5}
    assert distances(states.take(state(0.3))) == {"trained": 0.3, "last": round(0.2 / 1.25**0.5, 6)}
    states.keep("trained")
    assert distances(states.take(state(0.3))) == {"trained": 0.0, "last": 0.0}


def test_units_have_comparisons_of_their_own() -> None:
    states = States([("dense", "alive"), ("dense", "all")], EDGES)
    states.take(state(0))
    states.keep("dense")
    # The second units vary in one state only.
    assert distances(states.take(state(0.5))) == {"dense": 0.5, "dense, alive units": 0.0}


def test_nothing_is_kept_that_nothing_is_compared_with() -> None:
    states = States([("dense", "all")], EDGES)
    states.take(state(0))
    for anchor in ("warm-up", "trained", "pruned", "last"):
        states.keep(anchor)
    assert states.state() == ({}, {})
    assert (states.wants("dense"), states.wants("last")) == (True, False)
    states.keep("dense")
    assert states.state()[1] == {"dense": 0}


def test_a_level_forgets_what_was_the_last_and_what_was_pruned_before_it() -> None:
    anchors = ["dense", "trained", "pruned", "last"]
    states = States([(anchor, "all") for anchor in anchors], EDGES)
    states.take(state(0))
    for anchor in anchors:
        states.keep(anchor)
    assert set(states.take(state(0.5))) == {*anchors}
    states.begin_level()
    assert set(states.take(state(0.5))) == {"dense", "trained"}
    states.forget_last()
    assert set(states.take(state(0.5))) == {"dense", "trained"}
    assert "last" in states.take(state(0.5))


def masks(*kept):
    return Masks({"w": torch.tensor([entry in kept for entry in range(6)])})


def test_the_change_of_the_next_mask_is_counted_against_what_it_keeps() -> None:
    states = States([], EDGES)
    assert states.mask_change(masks(0, 1, 2, 3)) is None
    # One entry for another differs in two places.
    assert states.mask_change(masks(0, 1, 2, 4)) == 2 / 4
    assert states.mask_change(masks(0, 1, 2, 4)) == 0.0
    assert states.mask_change(masks(3, 5)) == 6 / 2
    assert states.mask_change(None) is None
    assert states.mask_change(masks(3, 5)) is None
    states.begin_level()
    assert states.mask_change(masks(3, 5)) is None


def test_what_is_written_and_read_back_goes_on_alike() -> None:
    wanted = [(anchor, "all") for anchor in ("dense", "trained", "last")]
    states = States(wanted, EDGES)
    states.take(state(0))
    states.keep("dense")
    states.keep("trained")
    states.take(state(0.5))
    states.mask_change(masks(0, 1))
    tensors, places = states.state()
    # The same state under two names is written once.
    assert places["dense"] == places["trained"] != places["last"]
    assert set(tensors) == {"0.0", "0.1", "1.0", "1.1", "mask.w"}
    again = States(wanted, EDGES)
    again.load({name: tensor.clone() for name, tensor in tensors.items()}, places)
    assert again.mask_change(masks(0, 2)) == states.mask_change(masks(0, 2)) == 1.0
    assert again.take(state(0.7)) == states.take(state(0.7))
    assert again.state()[1] == states.state()[1]
