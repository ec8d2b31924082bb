from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.data.splits import split, stratified
from infcop.errors import ConfigError, DataError

label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=80)


@settings(deadline=None, max_examples=150)
@given(label_lists, st.data(), st.integers(0, 2**62))
def test_stratified_draws_keep_each_share_to_within_one(labels, data, seed):
    count = data.draw(st.integers(0, len(labels)))
    chosen = stratified(torch.tensor(labels), count, seed=seed).tolist()
    assert len(chosen) == count
    assert chosen == sorted(set(chosen))
    for label in set(labels):
        share = count * labels.count(label) / len(labels)
        got = [labels[index] for index in chosen].count(label)
        assert abs(got - share) < 1


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=80),
    st.floats(0.01, 0.99),
    st.integers(0, 2**62),
    st.data(),
)
def test_parts_are_disjoint_ordered_and_of_the_promised_size(labels, held_out, seed, data):
    train_examples = data.draw(st.none() | st.integers(2, len(labels)))
    probe_examples = data.draw(st.none() | st.integers(1, 100))
    used = train_examples or len(labels)
    aside = round(held_out * used)
    arguments = (torch.tensor(labels), held_out, seed, train_examples, probe_examples)
    if not 0 < aside < used:
        with pytest.raises(DataError, match=f"of {used} examples"):
            split(*arguments)
        return
    parts = split(*arguments)
    for part in (parts.train, parts.probe, parts.held_out):
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(set(part.tolist()))
        assert set(part.tolist()) <= set(range(len(labels)))
    assert len(parts.held_out) == aside
    assert len(parts.train) == used - aside
    assert not set(parts.train.tolist()) & set(parts.held_out.tolist())
    assert set(parts.probe.tolist()) <= set(parts.train.tolist())
    assert len(parts.probe) == min(probe_examples or used, used - aside)


def test_each_class_is_held_out_in_proportion():
    labels = torch.arange(1000) % 10
    parts = split(labels, 0.1, seed=3, train_examples=500, probe_examples=100)
    assert labels[parts.held_out].bincount().tolist() == [5] * 10
    assert labels[parts.train].bincount().tolist() == [45] * 10
    assert labels[parts.probe].bincount().tolist() == [10] * 10


def test_splits_depend_on_the_seed_and_on_nothing_else():
    labels = torch.arange(200) % 7
    first = split(labels, 0.2, seed=5, train_examples=150, probe_examples=40)
    torch.manual_seed(99)
    torch.rand(3)
    second = split(labels, 0.2, seed=5, train_examples=150, probe_examples=40)
    other = split(labels, 0.2, seed=6, train_examples=150, probe_examples=40)
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.probe, second.probe)
    assert torch.equal(first.held_out, second.held_out)
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    split(torch.arange(50) % 2, 0.2, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_the_held_out_part_does_not_depend_on_the_probe():
    labels = torch.arange(200) % 7
    small = split(labels, 0.2, seed=5, probe_examples=10)
    large = split(labels, 0.2, seed=5)
    assert torch.equal(small.held_out, large.held_out)
    assert torch.equal(large.probe, large.train)
    assert small.fingerprint != large.fingerprint


def test_the_fingerprint_is_a_hash_of_all_indices():
    parts = split(torch.zeros(4, dtype=torch.int64), 0.25, seed=0, probe_examples=1)
    digest = hashlib.sha256()
    for name in ("train", "probe", "held_out"):
        indices = getattr(parts, name).tolist()
        digest.update(f"{name}:{len(indices)}:".encode())
        digest.update(b"".join(index.to_bytes(8, "little") for index in indices))
    assert parts.fingerprint == digest.hexdigest()


def test_indices_do_not_change_between_versions():
    # Records of earlier runs name these splits: a change here is a change of format.
    parts = split(torch.arange(12) % 3, 0.25, seed=1, train_examples=9, probe_examples=3)
    assert parts.fingerprint.startswith("47f71e755526fad0")


@pytest.mark.parametrize("held_out", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_out_of_range(held_out):
    with pytest.raises(ConfigError, match="held_out"):
        split(torch.arange(10) % 2, held_out, seed=0)


@pytest.mark.parametrize(("name", "value"), [("train_examples", 0), ("probe_examples", -1)])
def test_counts_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} of at least 1, got {value}"):
        split(torch.arange(10) % 2, 0.5, seed=0, **{name: value})


def test_more_examples_than_there_are():
    with pytest.raises(DataError, match=r"train_examples=11.*only 10"):
        split(torch.arange(10) % 2, 0.5, seed=0, train_examples=11)


@pytest.mark.parametrize("count", [-1, 3])
def test_a_draw_of_more_than_there_is(count):
    with pytest.raises(DataError, match=f"can't draw {count} of 2"):
        stratified(torch.tensor([0, 1]), count, seed=0)
