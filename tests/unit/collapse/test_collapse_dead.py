"""Which units survive, against sets and loops."""

from __future__ import annotations

import random

import pytest
import torch

from infcop.collapse.dead import kin, survivors
from infcop.collapse.facts import Facts, Layer, placed
from tests.reference.collapse import survivors_by_sets


def drawn(seed: int) -> Facts:
    """Random facts about a handful of tensors."""
    draw = random.Random(seed)
    facts = Facts()
    tensors = []
    for _ in range(draw.randint(2, 6)):
        sizes = draw.choice(((3,), (2, 3), (4,), (2, 2, 2), (6,)))
        tensors.append(Layer(tuple(range(len(sizes))), facts.fresh(sizes)))
        facts.couple(tensors[-1:])
    for one in tensors:
        other = draw.choice(tensors)
        kind = draw.choice(("unite", "use", "use", "couple", "pin", "fix", "mix", "nothing"))
        if kind == "unite" and one.ids.shape == other.ids.shape:
            facts.unite(one.ids, other.ids)
        elif kind == "use":
            pairs = torch.rand(one.ids.numel(), other.ids.numel()) < 0.2
            unit, user = pairs.nonzero(as_tuple=True)
            facts.use(one.ids.reshape(-1)[unit], other.ids.reshape(-1)[user])
        elif kind == "couple" and one.ids.shape[0] == other.ids.shape[0]:
            facts.couple([one, Layer((0,), other.ids.reshape(other.ids.shape[0], -1)[:, 0])])
        elif kind == "pin":
            facts.pin(one.ids[0], "drawn")
        elif kind == "fix":
            facts.fix(one, (0,), "drawn")
        elif kind == "mix":
            facts.mix(one.ids, (len(one.dims) - 1,), "drawn")
    return facts


@pytest.mark.parametrize("seed", range(60))
def test_survivors_are_those_of_the_slow_walk(seed: int) -> None:
    torch.manual_seed(seed)
    facts = drawn(seed)
    found = survivors(facts)
    assert set(found.alive.nonzero()[:, 0].tolist()) == survivors_by_sets(facts)
    assert bool((found.alive | ~found.needed).all()), "what is needed stays"


def test_of_every_tensor_something_stays() -> None:
    facts = Facts()
    ids = facts.fresh((3, 2))
    facts.couple([Layer((0, 1), ids)])
    assert survivors(facts).alive[ids].tolist() == [[True, False], [False, False], [False, False]]


def test_units_that_are_tied_stay_together() -> None:
    facts = Facts()
    one, other = facts.fresh((3,)), facts.fresh((3,))
    facts.unite(one, other)
    facts.use(one[1], torch.tensor(0))
    assert survivors(facts).alive[other].tolist() == [False, True, False]
    assert kin(facts)[other].tolist() == one.tolist()


def test_what_stays_forms_a_block() -> None:
    """Two heads of two dimensions: one dimension of each head is needed."""
    facts = Facts()
    ids = facts.fresh((2, 2))
    facts.couple([Layer((0, 1), ids)])
    facts.use(ids.diagonal(), torch.tensor(0))
    assert bool(survivors(facts).alive.all())


def test_a_chain_of_users_is_followed_to_its_end() -> None:
    facts = Facts()
    ids = facts.fresh((50,))
    facts.use(ids[1:], ids[:-1])
    assert int(survivors(facts).alive.sum()) == 1
    facts.use(ids[:1], torch.tensor(0))
    assert bool(survivors(facts).alive.all())


def test_a_constant_is_left_to_a_bias() -> None:
    facts = Facts()
    unit, user = facts.fresh((1,)), facts.fresh((1,))
    facts.use(user, torch.tensor(0))
    facts.fold(unit, user)
    assert survivors(facts).alive.tolist() == [True, False, True]


def test_a_constant_that_stays_needs_what_it_is_made_of() -> None:
    facts = Facts()
    source, unit, user = facts.fresh((1,)), facts.fresh((1,)), facts.fresh((1,))
    facts.use(user, torch.tensor(0))
    facts.fold(unit, user)
    facts.use(source, unit)
    facts.couple([Layer((0,), unit)])
    assert bool(survivors(facts).alive.all())


def test_a_constant_made_of_one_that_stays_stays() -> None:
    """The parameters of the first keep their influence through the second."""
    facts = Facts()
    first, second, user = facts.fresh((1,)), facts.fresh((1,)), facts.fresh((1,))
    facts.pin(first, "for another reason")
    facts.use(user, torch.tensor(0))
    facts.fold(first, second)
    facts.constant(first, second)
    facts.fold(second, user)
    assert bool(survivors(facts).alive[second].all())


def test_more_can_be_pinned() -> None:
    facts = Facts()
    ids = facts.fresh((3,))
    facts.use(ids[0], ids[2])
    assert survivors(facts, [ids[2:]]).alive[ids].tolist() == [True, False, True]


def test_placing_a_tensor_in_a_grid() -> None:
    tensor = torch.arange(6).reshape(2, 3)
    wide = placed(tensor, ("o", "k"), ("b", "k", "o"))
    assert wide.shape == (1, 3, 2)
    assert torch.equal(wide[0].T, tensor)
    assert placed(torch.tensor(7), (), ("k",)).tolist() == [7]
