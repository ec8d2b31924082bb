from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.edges import Edges
from infcop.errors import FlowError
from infcop.flow import stream as stream_module
from infcop.flow.information import correlation, dead_units, signed_mean
from infcop.flow.stream import InformationStream
from tests.reference.flow import slow_correlation

EDGE = ("a", "b")
PAIR = Edges((EDGE,))
SIAMESE = Edges((EDGE,), {EDGE: ((0, 0), (1, 0))})
BRANCH = ("a", "c")
BRANCHES = Edges((EDGE, BRANCH))


def activations(examples, seed=0, dtype=torch.float64):
    """Two related layers of 3 and 4 channels."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(examples, 3, generator=generator, dtype=torch.float64)
    b = a @ torch.randn(3, 4, generator=generator, dtype=torch.float64)
    b = b.relu() + torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    return a.to(dtype), b.to(dtype)


def one_pass(a, b):
    return {("a", 0): a, ("b", 0): b}


def streamed(a, b, sizes, **options):
    stream = InformationStream(PAIR, **options)
    for rows in zip(a.split(sizes), b.split(sizes), strict=True):
        stream.add([one_pass(*rows)])
    return stream


@pytest.fixture
def chunks_of_eight(monkeypatch):
    monkeypatch.setattr(stream_module, "_CHUNK_EXAMPLES", 8)


@pytest.mark.usefixtures("chunks_of_eight")
@pytest.mark.parametrize(
    "sizes",
    [
        [8],
        [7],
        [9],
        [8, 8],
        [8, 1],
        [1, 8],
        [7, 1, 8],
        [3, 4, 5, 6],
        [5, 25],
        [20, 3, 40],
        [1] * 17,
    ],
)
def test_chunks_join_to_the_whole(sizes):
    """At, just below and just above what a buffer holds, and batches larger than it."""
    a, b = activations(sum(sizes))
    stream = streamed(a, b, sizes)
    moments = stream.flush()
    assert moments.parts[EDGE].n == stream.examples == sum(sizes)
    np.testing.assert_allclose(correlation(moments, EDGE), slow_correlation(a, b), atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    chunk=st.integers(1, 20),
    looks=st.sets(st.integers(0, 5)),
)
def test_neither_batches_nor_chunks_nor_looks_change_the_moments(sizes, chunk, looks):
    a, b = activations(sum(sizes) + 1)
    expected = streamed(a, b, [len(a)]).flush().parts[EDGE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "_CHUNK_EXAMPLES", chunk)
        stream = InformationStream(PAIR)
        splits = zip(a.split([*sizes, 1]), b.split([*sizes, 1]), strict=True)
        for batch, rows in enumerate(splits):
            stream.add([one_pass(*rows)])
            if batch in looks:
                stream.flush()
    part = stream.flush().parts[EDGE]
    assert part.n == expected.n
    torch.testing.assert_close(part.cxy, expected.cxy, rtol=1e-11, atol=1e-11)
    for end, other in zip(part.ends, expected.ends, strict=True):
        torch.testing.assert_close(end.mean, other.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(end.m2, other.m2, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("batch", "chunks"), [(1, [3, 3, 3, 1]), (2, [3, 3, 3, 1]), (5, [5, 5])])
def test_buffers_stay_within_their_bytes_or_hold_a_batch(monkeypatch, batch, chunks):
    """Seven float64 channels and 200 bytes: three examples at a time."""
    monkeypatch.setattr(stream_module, "_CHUNK_BYTES", 200)
    a, b = activations(10)
    stream = streamed(a, b, [batch] * (10 // batch), keep=True)
    stream.flush()
    assert [len(rows["a", 0]) for rows in stream.kept] == chunks
    np.testing.assert_allclose(
        correlation(stream.moments, EDGE), slow_correlation(a, b), atol=1e-12
    )


def test_flushing_twice_changes_nothing_and_more_may_follow():
    a, b = activations(30)
    stream = streamed(a[:20], b[:20], [9, 11])
    first = signed_mean(stream.flush())
    assert signed_mean(stream.flush()) == first
    stream.add([one_pass(a[20:], b[20:])])
    np.testing.assert_allclose(
        correlation(stream.flush(), EDGE), slow_correlation(a, b), atol=1e-12
    )


def test_what_was_given_is_neither_kept_nor_changed():
    a, b = activations(12)
    given_a = a.clone()
    stream = streamed(a, b, [12], keep=True)
    assert torch.equal(a, given_a)
    a.zero_()
    moments = stream.flush()
    np.testing.assert_allclose(correlation(moments, EDGE), slow_correlation(given_a, b), atol=1e-12)
    assert torch.equal(stream.kept[0]["a", 0], given_a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("chunks_of_eight")
def test_kept_activations_are_those_taken_in_in_their_own_type(dtype):
    a, b = activations(19, dtype=dtype)
    stream = streamed(a, b, [5, 14], keep=True)
    stream.flush()
    stored = torch.cat([rows["b", 0] for rows in stream.kept])
    assert stored.dtype == dtype
    assert torch.equal(stored, b)
    assert not streamed(a, b, [19]).kept


def test_gathers_in_float64_with_the_epsilon_of_the_activations():
    a, b = activations(30, dtype=torch.float32)
    part = streamed(a, b, [4, 26]).flush().parts[EDGE]
    assert part.cxy.dtype == torch.float64
    assert {end.eps for end in part.ends} == {torch.finfo(torch.float32).eps}
    np.testing.assert_allclose(
        part.cxy, slow_deviations(a.double(), b.double()), rtol=1e-12, atol=1e-12
    )


def slow_deviations(a, b):
    a, b = a.numpy(), b.numpy()
    return sum(np.outer(x, y) for x, y in zip(a - a.mean(0), b - b.mean(0), strict=True))


@pytest.mark.usefixtures("chunks_of_eight")
def test_an_edge_with_several_calls_is_measured_on_their_joined_pairs():
    a, b = activations(22)
    second = activations(22, seed=5)[0] - 3
    stream = InformationStream(SIAMESE)
    for rows in zip(a.split(6), second.split(6), b.split(6), strict=True):
        stream.add([dict(zip([("a", 0), ("a", 1), ("b", 0)], rows, strict=True))])
    moments = stream.flush()
    joined = torch.cat([a, second]), torch.cat([b, b])
    assert moments.parts[EDGE].n == 44
    assert stream.examples == 22
    np.testing.assert_allclose(correlation(moments, EDGE), slow_correlation(*joined), atol=1e-12)


@pytest.mark.usefixtures("chunks_of_eight")
def test_passes_whose_calls_change_count_where_they_have_them():
    """Which branch runs depends on the batch."""
    a, b = activations(40)
    stream = InformationStream(BRANCHES)
    taken = {"b": [], "c": []}
    start = 0
    for size, branch in [(5, "b"), (4, "b"), (6, "c"), (10, "b"), (9, "c"), (6, "b")]:
        rows = slice(start, start + size)
        stream.add([{("a", 0): a[rows], (branch, 0): b[rows]}])
        taken[branch].append(torch.arange(start, start + size))
        start += size
    moments = stream.flush()
    for branch, edge in (("b", EDGE), ("c", BRANCH)):
        rows = torch.cat(taken[branch])
        assert moments.parts[edge].n == len(rows)
        np.testing.assert_allclose(
            correlation(moments, edge), slow_correlation(a[rows], b[rows]), atol=1e-12
        )


def test_an_edge_none_of_whose_layers_ran_is_told_apart():
    a, b = activations(12)
    stream = InformationStream(BRANCHES)
    stream.add([{("a", 0): a, ("b", 0): b}])
    with pytest.raises(FlowError, match=r"at least two examples of a -> c, got 0.*do not run"):
        signed_mean(stream.flush())


def test_several_passes_of_a_batch_all_count():
    a, b = activations(20)
    stream = InformationStream(PAIR)
    stream.add([one_pass(a[:12], b[:12]), one_pass(a[12:], b[12:])])
    stream.add([])
    np.testing.assert_allclose(
        correlation(stream.flush(), EDGE), slow_correlation(a, b), atol=1e-12
    )


def test_layers_with_different_numbers_of_examples_are_refused():
    a, b = activations(12)
    with pytest.raises(FlowError, match=r"as many examples at every layer.*'a \(call 0\)': \(12"):
        InformationStream(PAIR).add([one_pass(a, b[:11])])


@pytest.mark.usefixtures("chunks_of_eight")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("sizes", [[4] * 10, [40], [3, 17, 20], [1] * 40, [8] * 5, [9, 31]])
@pytest.mark.parametrize("place", [0, 3, 7, 8, 20, 39])
def test_first_non_finite_tells_layer_and_batch(bad, sizes, place):
    a, b = activations(40)
    b[place, 2] = bad
    b[min(place + 1, 39)] = bad
    stream = streamed(a, b, sizes)
    stream.flush()
    borders = np.cumsum(sizes)
    assert stream.first_non_finite() == {"b": int(np.searchsorted(borders, place, side="right"))}


def test_first_non_finite_of_a_layer_with_several_calls_is_the_earliest():
    a, b = activations(12)
    second = a.clone()
    second[1, 0] = a[7, 0] = b[11, 0] = float("nan")
    stream = InformationStream(SIAMESE)
    for rows in zip(a.split(4), second.split(4), b.split(4), strict=True):
        stream.add([dict(zip([("a", 0), ("a", 1), ("b", 0)], rows, strict=True))])
    stream.flush()
    assert stream.first_non_finite() == {"a": 0, "b": 2}


def test_finite_activations_have_no_first_bad_batch():
    stream = streamed(*activations(12), [12])
    stream.flush()
    assert stream.first_non_finite() == {}


def test_dead_channels_are_found_across_chunks(chunks_of_eight):
    """A channel that is constant within every chunk, but not over all of them, is alive."""
    a, b = activations(24)
    a[:, 0], a[:, 1] = 2.5, torch.arange(3).repeat_interleave(8).double()
    moments = streamed(a, b, [8, 8, 8]).flush()
    assert dead_units(moments) == {"a": 1, "b": 0}
    np.testing.assert_allclose(correlation(moments, EDGE), slow_correlation(a, b), atol=1e-12)
