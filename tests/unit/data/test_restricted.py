from __future__ import annotations

import collections
import contextlib
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infcop.data.restricted import read_pickle
from infcop.errors import DataError

PROTOCOLS = [2, 3, 4]
NUMERIC = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">i4", ">f8", "<u2"]

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.binary() | st.integers(-(2**31) + 1, 2**31 - 1), inner)
    ),
    max_leaves=15,
)
arrays = st.sampled_from(NUMERIC).flatmap(
    lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)


def same(left: object, right: object) -> bool:
    """Equality of structure and types, with NaN equal to itself."""
    return repr(left) == repr(right)


def is_allowed(value: object, seen: frozenset[int] = frozenset()) -> bool:
    """Whether the reader may return this; a value may contain itself."""
    if id(value) in seen:
        return True
    seen |= {id(value)}
    if type(value) in (list, tuple):
        return all(is_allowed(item, seen) for item in value)
    if type(value) is dict:
        return all(type(key) in (str, bytes, int) for key in value) and all(
            is_allowed(item, seen) for item in value.values()
        )
    if type(value) is np.ndarray:
        return value.dtype.kind in "iuf"
    return value is None or type(value) in (bool, int, float, str, bytes)


@settings(deadline=None, max_examples=60)
@given(plain_values, st.sampled_from(PROTOCOLS))
def test_plain_values_survive(value, protocol):
    assert same(read_pickle(pickle.dumps(value, protocol), "file"), value)


@settings(deadline=None, max_examples=60)
@given(arrays, st.sampled_from(PROTOCOLS), st.booleans())
def test_numeric_arrays_survive(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    value = read_pickle(pickle.dumps([array, array], protocol), "file")
    for copy in value:
        assert copy.dtype == array.dtype
        np.testing.assert_array_equal(copy, array)
        assert not copy.flags.writeable


def test_shared_and_cyclic_values_keep_their_shape():
    shared: list[object] = [1]
    shared.append(shared)
    value = read_pickle(pickle.dumps({"a": shared, "b": shared}, 4), "file")
    assert value["a"] is value["b"]
    assert value["a"][1] is value["a"]


def test_nothing_is_built_for_python_2_strings_but_bytes():
    assert read_pickle(b"\x80\x02U\x02\xe4\xff.", "file") == b"\xe4\xff"


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.recipe = function, arguments

    def __reduce__(self) -> object:
        return self.recipe


class Thing:
    pass


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, os.system, bytearray, open])
def test_calls_are_refused_and_not_made(function, protocol, tmp_path):
    trace = tmp_path / "trace"
    content = pickle.dumps({"data": Call(function, f"open({str(trace)!r}, 'w')")}, protocol)
    with pytest.raises(DataError, match="file: refused"):
        read_pickle(content, "file")
    assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        Thing(),
        Thing,
        {1, 2},
        frozenset([1]),
        bytearray(b"abc"),
        collections.OrderedDict(a=1),
        1 + 2j,
        np.float64(1.5),
        np.array([None, "text"], dtype=object),
        np.array(["text"]),
        np.array([b"text"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([1j]),
        np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.ma.masked_array([1, 2], mask=[0, 1]),
        np.dtype("u1"),
        {(1, 2): 3},
        {None: 1},
        {2**40: 1},
        {1.5: 1},
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_values_are_refused(value, protocol):
    with pytest.raises(DataError, match="file: refused"):
        read_pickle(pickle.dumps([value], protocol), "file")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R"
DTYPE_STATE = b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"N", id="no end"),
        pytest.param(b"NN.", id="two values"),
        pytest.param(b".", id="no value"),
        pytest.param(b"N.N", id="more after the end"),
        pytest.param(b"h\x07.", id="unknown memo"),
        pytest.param(b"}K\x01s.", id="key without value"),
        pytest.param(b"}(K\x01u.", id="key without value after a mark"),
        pytest.param(b"]e.", id="no mark"),
        pytest.param(b"K\x01K\x02a.", id="append to an integer"),
        pytest.param(b"K\x01}b.", id="state for an integer"),
        pytest.param(b"]}b.", id="state for a list"),
        pytest.param(b"K\x01)R.", id="call of an integer"),
        pytest.param(b"cnumpy\nndarray\n)R.", id="call of ndarray"),
        pytest.param(b"cnumpy\nndarray\n.", id="a bare name"),
        pytest.param(b"]cnumpy\nndarray\na.", id="a name in a list"),
        pytest.param(b"cnumpy\ndtype\n)R.", id="dtype of nothing"),
        pytest.param(b"cnumpy\ndtype\nK\x01R.", id="arguments that are no tuple"),
        pytest.param(b"cnumpy\nndarray\n}(X\x01\x00\x00\x00aK\x01ub.", id="state for a name"),
        pytest.param(ARRAY + b".", id="array without state"),
        pytest.param(b"]" + ARRAY + b"a.", id="array without state in a list"),
        pytest.param(ARRAY + b"Nb.", id="array of None"),
        pytest.param(ARRAY + b")b.", id="array of an empty state"),
        pytest.param(DTYPE + b"Nb.", id="dtype of None"),
        pytest.param(DTYPE + b")b.", id="dtype of an empty state"),
        pytest.param(DTYPE + DTYPE_STATE + b".", id="a bare dtype"),
        pytest.param(
            ARRAY + b"(K\x01K\x04\x85" + DTYPE + DTYPE_STATE + b"\x89C\x03abctb.",
            id="fewer bytes than the shape declares",
        ),
        pytest.param(
            ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + DTYPE_STATE + b"\x89C\x03abctb.",
            id="negative shape",
        ),
        pytest.param(
            ARRAY + b"(K\x01K\x03\x85" + DTYPE + b"\x89C\x03abctb.", id="dtype without its order"
        ),
        pytest.param(b"(ios\nsystem\n.", id="INST"),
        pytest.param(b"(cnumpy\nndarray\no.", id="OBJ"),
        pytest.param(b"cnumpy\nndarray\n)\x81.", id="NEWOBJ"),
        pytest.param(b"\x82\x01.", id="EXT1"),
        pytest.param(b"Ppersistent\n.", id="PERSID"),
        pytest.param(b"K\x01Q.", id="BINPERSID"),
        pytest.param(b"N2.", id="DUP"),
        pytest.param(b"\x8f.", id="EMPTY_SET"),
        pytest.param(b"\x97.", id="NEXT_BUFFER"),
        pytest.param(b"X\x02\x00\x00\x00\xff\xff.", id="invalid UTF-8"),
        pytest.param(b"\xff.", id="no such instruction"),
    ],
)
def test_malformed_streams(body):
    with pytest.raises(DataError, match="file: refused"):
        read_pickle(b"\x80\x02" + body, "file")


def huge_shape() -> bytes:
    dimension = b"\x8a\x08" + struct.pack("<q", 2**62)
    return ARRAY + b"(K\x01(" + dimension * 40 + b"t" + DTYPE + DTYPE_STATE + b"\x89C\x00tb."


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"X\xff\xff\xff\x7f.", id="text of 2 GB"),
        pytest.param(b"\x8d" + struct.pack("<q", 2**62) + b".", id="text of 4 EB"),
        pytest.param(b"\x8e" + struct.pack("<q", 2**40) + b".", id="bytes of 1 TB"),
        pytest.param(b"\x96" + struct.pack("<q", 2**40) + b".", id="byte array of 1 TB"),
        pytest.param(b"\x95" + struct.pack("<q", 2**60) + b".", id="frame of 1 EB"),
        pytest.param(b"\x8b\xff\xff\xff\x7f.", id="integer of 2 GB"),
        pytest.param(huge_shape(), id="array of 2 to the 2480"),
        pytest.param(
            b"c_codecs\nencode\nq\x01X\x00\x10\x00\x00" + b"a" * 4096 + b"q\x02X\x06\x00\x00\x00"
            b"latin1\x86q\x03R0" + b"h\x01h\x03R" * 1000 + b".",
            id="the same text encoded again and again",
        ),
    ],
)
def test_huge_declared_sizes_cost_nothing(body):
    tracemalloc.start()
    with pytest.raises(DataError, match="file: refused"):
        read_pickle(b"\x80\x02" + body, "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_text_is_encoded_only_as_often_as_the_file_could_hold_it():
    text = b"X\x00\x10\x00\x00" + b"a" * 4096
    once = b"c_codecs\nencode\nq\x01" + text + b"X\x06\x00\x00\x00latin1\x86q\x02R"
    assert read_pickle(b"\x80\x02" + once + b".", "file") == b"a" * 4096
    with pytest.raises(DataError, match="more bytes than the file holds"):
        read_pickle(b"\x80\x02]" + once + b"a" + b"h\x01h\x02Ra" * 3 + b".", "file")


def test_a_memo_index_costs_nothing():
    tracemalloc.start()
    assert read_pickle(b"\x80\x02Nr\xff\xff\xff\x7f.", "file") is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_values_that_grow_exponentially_are_never_walked():
    # Each tuple holds the one before it twice: its text would have 2^60 items.
    doubled = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(60))
    value = read_pickle(b"\x80\x02" + doubled + b".", "file")
    assert type(value) is tuple
    with pytest.raises(DataError, match="expected a key"):
        read_pickle(b"\x80\x02}" + doubled + b"K\x01s.", "file")


def test_deep_nesting_does_not_exhaust_the_stack():
    depth = 50_000
    value = read_pickle(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".", "file")
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_the_number_of_instructions_is_limited():
    with pytest.raises(DataError, match="instructions"):
        read_pickle(b"\x80\x02" + b"N" * 2_000_001 + b".", "file")


def test_names_are_shown_harmlessly():
    with pytest.raises(DataError) as caught:
        read_pickle(pickle.dumps(Thing, 4).replace(b"Thing", b"\x1b[2J\x07"), "file")
    assert "\x1b" not in str(caught.value)


SEEDS = [
    pickle.dumps({"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [0, 1, 9]}, 2),
    pickle.dumps({b"data": np.arange(6.0).reshape(2, 3).T, b"x": ("a", None, 1.5, True)}, 4),
    b"\x80\x02}(U\x04data" + ARRAY + b"(K\x01K\x03\x85" + DTYPE + DTYPE_STATE + b"\x89U\x03abctb"
    b"U\x06labels]q\x05(K\x01K\x02K\x03eu.",
]
edits = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "copy"]),
        st.integers(0, 400),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, piece in changes:
        at %= len(content) + 1
        if kind == "replace":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(piece) :]
        else:
            content = content[:at] + content[at : at + 9] + content[at:]
    return content


def assert_refused_or_allowed(content: bytes) -> None:
    """Any other exception than DataError fails the test by itself."""
    with contextlib.suppress(DataError):
        assert is_allowed(read_pickle(content, "file"))


@settings(deadline=None, max_examples=1000)
@given(st.sampled_from(SEEDS), edits)
def test_damaged_streams_are_refused_or_give_plain_values(content, changes):
    assert_refused_or_allowed(mutated(content, changes))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_refused_or_give_plain_values(content):
    assert_refused_or_allowed(b"\x80\x02" + content)


@pytest.mark.parametrize("content", SEEDS)
def test_every_truncation_is_refused(content):
    for length in range(len(content)):
        with pytest.raises(DataError, match="file: refused"):
            read_pickle(content[:length], "file")
