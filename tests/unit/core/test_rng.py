from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from infcop.core.rng import derive_seed, preserved_rng, seed_all


def drawn() -> tuple[float, float, float]:
    """Draw one number from each global generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seeds_are_those_of_earlier_versions() -> None:
    """Another derivation would give every stored run other data orders on resuming."""
    assert derive_seed(0, "order", 1) == 2286584367552238283
    assert derive_seed(7, "level", 3, "step", 250) == 1121286878836617219


def test_seeds_fit_every_generator() -> None:
    seeds = [derive_seed(seed, "place", k) for seed in (0, 1, 2**63 - 1) for k in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    for seed in seeds[:5]:
        seed_all(seed)
        torch.Generator().manual_seed(seed)


def test_different_places_get_different_seeds() -> None:
    places = [(), ("1",), (1,), ("a", "b"), ("a/b",), ("b", "a"), ("a", 1), ("a", "1"), ("a", 11)]
    assert len({derive_seed(1, *place) for place in places}) == len(places)
    assert derive_seed(1, "a") != derive_seed(2, "a")


def test_seeding_sets_every_global_generator() -> None:
    seed_all(3)
    first = drawn()
    seed_all(3)
    assert drawn() == first
    seed_all(2**32 + 3)
    assert drawn() != first


def test_generators_come_back_as_they_were() -> None:
    seed_all(5)
    expected = [drawn(), drawn()]
    seed_all(5)
    assert drawn() == expected[0]
    with preserved_rng():
        seed_all(99)
        drawn()
    assert drawn() == expected[1]


def test_generators_come_back_after_an_exception() -> None:
    seed_all(5)
    expected = drawn()
    seed_all(5)
    with pytest.raises(KeyError):
        draw_and_fail()
    assert drawn() == expected


def draw_and_fail() -> None:
    with preserved_rng():
        seed_all(99)
        drawn()
        raise KeyError
