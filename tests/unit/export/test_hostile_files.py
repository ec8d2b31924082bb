"""Sparse files that are damaged, or made to do harm: an error, and no memory taken for them."""

from __future__ import annotations

import hashlib
import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import infcop
from infcop.errors import ExportError
from infcop.export.sparse_format import KEY
from tests.reference.export import same_bits

SLACK = 3 * 2**20
"""Memory that reading takes beside the tensors: a piece of a mask, the table, Python's own."""


def some_tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(9, 7).masked_fill_(torch.rand(9, 7) > 0.3, 0.0)
    return {
        "weight": weight,
        "half": weight.bfloat16(),
        "tied": weight,
        "flag": torch.tensor([True] + [False] * 40),
        "steps": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "bias": torch.ones(5),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "a.safetensors"


@pytest.fixture(scope="module", autouse=True)
def valid(place: Path) -> bytes:
    infcop.save_sparse(some_tensors(), place, meta={"seed": 1})
    with Storages():  # PyTorch loads what it needs for this on first use
        infcop.load_sparse(place)
    return place.read_bytes()


class Storages(TorchDispatchMode):
    """Adds up the memory of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                memory = tensor.untyped_storage()
                self.seen[memory.data_ptr()] = memory.nbytes()
        return result

    @property
    def total(self) -> int:
        return sum(self.seen.values())


def read_within(path: Path, bound: int, **options: Any) -> dict[str, Tensor] | None:
    """Return the tensors, or None for an error; check that neither took more than a bound."""
    storages = Storages()
    tracemalloc.start()
    try:
        with storages:
            found = infcop.load_sparse(path, **options)
    except ExportError:
        found = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= SLACK + bound
    assert storages.total <= bound
    return found


def bound_of(content: bytes) -> int:
    """Return what may be taken: the tensors, and views of the file where it lies."""
    return 64 * len(content) + len(content)


# -- bytes of a valid file changed ---------------------------------------------------------------

Change = Callable[[bytearray], object]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    kind = draw(st.sampled_from(["flip", "set", "insert", "delete", "cut", "repeat"]))
    place, value = draw(st.floats(0, 1)), draw(st.integers(0, 255))
    length = draw(st.integers(1, 40))

    def change(content: bytearray) -> None:
        at = min(int(place * len(content)), len(content) - 1)
        if kind == "flip":
            content[at] ^= 1 << value % 8
        elif kind == "set":
            content[at] = value
        elif kind == "insert":
            content[at:at] = bytes([value]) * length
        elif kind == "delete":
            del content[at : at + length]
        elif kind == "cut":
            del content[max(at, 1) :]
        else:
            content[at:at] = content[at : at + length]

    return change


@settings(deadline=None, max_examples=300)
@given(st.lists(changes(), min_size=1, max_size=3))
def test_a_damaged_file_gives_the_tensors_or_an_error(
    place: Path, valid: bytes, drawn: list[Change]
) -> None:
    content = bytearray(valid)
    for change in drawn:
        if content:
            change(content)
    place.write_bytes(content)
    found = read_within(place, bound_of(content))
    assert found is None or same_bits(found, some_tensors())


def test_every_flipped_bit_is_noticed_or_without_effect(place: Path, valid: bytes) -> None:
    """Behind the header every bit counts; in it, only the room that fills it up may change."""
    unnoticed = 0
    data = 8 + int.from_bytes(valid[:8], "little")
    for at in (*range(0, data, 7), *range(data, len(valid))):
        content = bytearray(valid)
        content[at] ^= 1 << at % 8
        place.write_bytes(content)
        try:
            assert same_bits(infcop.load_sparse(place), some_tensors())
            unnoticed += 1
        except ExportError:
            pass
    assert unnoticed <= 8


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
@example(b"\xff" * 8 + b"{}")
@example((2**40).to_bytes(8, "little") + b"{}")
@example(pickle.dumps({"a": 1}))
def test_any_bytes_are_refused(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    assert read_within(place, bound_of(content)) is None


# -- tables that were made up --------------------------------------------------------------------


def forged(table: Any, parts: dict[str, Tensor] | None = None, *, body: str | None = None) -> bytes:
    """Return a file with any table, whose check sum is right."""
    text = json.dumps(table) if body is None else body
    digest = hashlib.sha256(text.encode()).hexdigest()
    return bytes(save(parts or {}, {KEY: f"{digest} {text}"}))


def entry(
    tensor: Tensor, form: str = "sparse", dtype: str = "F32", **changes: Any
) -> dict[str, Any]:
    digest = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
    facts = {"form": form, "dtype": dtype, "shape": list(tensor.shape), "sha256": digest}
    return {**facts, **changes}


def one(told: Any, **more: Any) -> dict[str, Any]:
    return {"version": 1, "tensors": {"w": told}, "meta": {}, **more}


ZEROS = torch.zeros(16)
BITS = torch.zeros(2, dtype=torch.uint8)
NONE = {"mask/w": BITS, "values/w": torch.zeros(0)}
HUGE = 2**62

FORGED: dict[str, tuple[bytes, str]] = {
    "no table": (forged([], NONE), "expected version 1 of the format, got None"),
    "no version": (forged({"tensors": {}, "meta": {}}), "expected version 1"),
    "true as version": (forged({"version": True, "tensors": {}, "meta": {}}), "expected version 1"),
    "another version": (forged(one(entry(ZEROS), version=0), NONE), "expected version 1"),
    "a newer version": (forged(one(entry(ZEROS), version=7), NONE), "newer infcop .version 7"),
    "an unknown key": (forged(one(entry(ZEROS), more=1), NONE), "expected the keys meta, tensors"),
    "a missing key": (forged({"version": 1, "meta": {}}), "expected the keys"),
    "tensors in a list": (forged(one(0, tensors=[1])), "no mapping under 'tensors'"),
    "meta in a list": (forged(one(entry(ZEROS), meta=[1]), NONE), "no mapping under 'meta'"),
    "a tensor in a list": (forged(one([1, 2])), "no mapping for 'w'"),
    "an unknown key of a tensor": (forged(one(entry(ZEROS, more=1)), NONE), "'w': expected the"),
    "an unknown form": (forged(one(entry(ZEROS, form="csr")), NONE), "the form dense or sparse"),
    "an unknown type": (forged(one(entry(ZEROS, dtype="F4")), NONE), "expected a type of F64"),
    "a list as type": (forged(one(entry(ZEROS, dtype=["F32"])), NONE), "expected a type of F64"),
    "a negative size": (forged(one(entry(ZEROS, shape=[-1, -16])), NONE), "sizes of at least 0"),
    "a fraction as size": (forged(one(entry(ZEROS, shape=[16.0])), NONE), "sizes of at least 0"),
    "true as size": (forged(one(entry(ZEROS, shape=[True] * 16)), NONE), "sizes of at least 0"),
    "a text as shape": (forged(one(entry(ZEROS, shape="16")), NONE), "sizes of at least 0"),
    "too many sizes": (forged(one(entry(ZEROS, shape=[16] + [1] * 64)), NONE), "sizes of at"),
    "a huge size": (forged(one(entry(ZEROS, shape=[HUGE])), NONE), "no memory holds"),
    "sizes that overflow": (forged(one(entry(ZEROS, shape=[HUGE, HUGE, 16])), NONE), "no memory"),
    "huge sizes and none": (forged(one(entry(ZEROS, shape=[HUGE, HUGE, 0])), NONE), "no memory"),
    "digits without end": (
        forged(None, body='{"version":1' + "0" * 5000 + "}"),
        "its table is no JSON",
    ),
    "more entries than bits": (forged(one(entry(ZEROS, shape=[17])), NONE), "'mask/w' to be U8"),
    "a large zero tensor of few bits": (
        forged(one(entry(ZEROS, shape=[2**40])), NONE),
        "'mask/w' to be U8 of shape .137438953472.",
    ),
    "fewer entries than bits": (forged(one(entry(ZEROS, shape=[8])), NONE), "'mask/w' to be U8"),
    "more bits than values": (
        forged(one(entry(ZEROS)), {**NONE, "mask/w": BITS + 1}),
        "2 bits set, but 0 values",
    ),
    "more values than bits": (
        forged(one(entry(ZEROS)), {**NONE, "values/w": torch.ones(1)}),
        "0 bits set, but 1 values",
    ),
    "bits beyond the end": (
        forged(one(entry(ZEROS[:9])), {"mask/w": BITS + 64, "values/w": torch.ones(2)}),
        "bits set beyond its last entry",
    ),
    "values of another type": (
        forged(one(entry(ZEROS)), {**NONE, "values/w": torch.zeros(0, dtype=torch.int8)}),
        "expected 'values/w' to be F32",
    ),
    "values in a matrix": (
        forged(one(entry(ZEROS)), {**NONE, "values/w": torch.zeros(1, 0)}),
        "expected 'values/w' to be F32",
    ),
    "a mask of another type": (
        forged(one(entry(ZEROS)), {**NONE, "mask/w": BITS.bool()}),
        "expected 'mask/w' to be U8",
    ),
    "another check sum": (forged(one(entry(ZEROS + 1)), NONE), "doesn't have the check sum"),
    "no check sum": (forged(one(entry(ZEROS, sha256=None)), NONE), "expected a text, got None"),
    "no values": (forged(one(entry(ZEROS)), {"mask/w": BITS}), "only the table has 'values/w'"),
    "a part too many": (
        forged(one(entry(ZEROS)), {**NONE, "dense/x": ZEROS}),
        "only the container has 'dense/x'",
    ),
    "dense of another shape": (
        forged(one(entry(ZEROS, form="dense")), {"dense/w": ZEROS.reshape(4, 4)}),
        "expected 'dense/w' to be F32 of shape .16., as the table says, got F32 of shape .4, 4.",
    ),
    "dense of another type": (
        forged(one(entry(ZEROS, form="dense")), {"dense/w": ZEROS.int()}),
        "expected 'dense/w' to be F32",
    ),
    "neither true nor false": (
        forged(
            one(entry(torch.tensor([2], dtype=torch.uint8), form="dense", dtype="BOOL")),
            {"dense/w": torch.tensor([2], dtype=torch.uint8).view(torch.bool)},
        ),
        "truth values other than 0 and 1",
    ),
    "the same as itself": (forged(one({"same_as": "w"})), "the same as 'w', which has no entries"),
    "the same as nothing": (forged(one({"same_as": "v"})), "the same as 'v'"),
    "the same as a number": (forged(one({"same_as": 3})), "expected a text, got 3"),
    "a loop": (
        forged(one(0, tensors={"a": {"same_as": "b"}, "b": {"same_as": "a"}})),
        "the same as 'b'",
    ),
    "the same and more": (forged(one({"same_as": "w", "form": "dense"})), "expected the keys same"),
    "a name twice": (
        forged(None, NONE, body='{"version":1,"meta":{},"tensors":{},"tensors":{}}'),
        "a name occurs twice",
    ),
    "mappings without end": (forged(None, body='{"a":' * 100_000), "its table is no JSON"),
    "no JSON": (forged(None, body="version: 1"), "its table is no JSON"),
    "a name of any length": (
        forged(one(0, tensors={"w" * 10**5: {"form": 0, "dtype": 0, "shape": 0, "sha256": 0}})),
        "the form dense or sparse, got 0",
    ),
    "no text": (bytes(save({}, {KEY: ""})), "doesn't have the check sum"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_table_is_refused(name: str, place: Path) -> None:
    content, told = FORGED[name]
    place.write_bytes(content)
    with pytest.raises(ExportError, match=told) as caught:
        infcop.load_sparse(place)
    assert str(caught.value).startswith(f"load_sparse: '{place}' can't be used: ")
    assert len(str(caught.value)) < 600
    read_within(place, 2 * len(content))


def test_the_parts_that_forgeries_are_made_of_are_valid(place: Path) -> None:
    place.write_bytes(forged(one(entry(ZEROS)), NONE))
    assert same_bits(infcop.load_sparse(place), {"w": ZEROS})
    place.write_bytes(forged(one(entry(ZEROS, form="dense")), {"dense/w": ZEROS}))
    assert same_bits(infcop.load_sparse(place), {"w": ZEROS})


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(["w", "v"]),
        st.fixed_dictionaries(
            {
                "form": st.sampled_from(["dense", "sparse", "", None]),
                "dtype": st.sampled_from(["F32", "F64", "BOOL", "U8", "", 3]),
                "shape": st.lists(st.sampled_from([0, 1, 2, 8, 16, 2**31, 2**62]), max_size=4),
                "sha256": st.sampled_from(["", hashlib.sha256(bytes(64)).hexdigest()]),
            }
        )
        | st.fixed_dictionaries({"same_as": st.sampled_from(["w", "v", ""])}),
    ),
    st.dictionaries(
        st.sampled_from(["mask/w", "values/w", "dense/w", "dense/v"]),
        st.sampled_from([ZEROS, BITS, ZEROS[:0], BITS + 255, ZEROS.double()]),
    ),
)
def test_tables_put_together_at_random(
    place: Path, tensors: dict[str, Any], parts: dict[str, Tensor]
) -> None:
    own = {name: part.clone() for name, part in parts.items()}
    content = forged({"version": 1, "tensors": tensors, "meta": {}}, own)
    place.write_bytes(content)
    found = read_within(place, bound_of(content))
    assert found is None or all(int(t.count_nonzero()) == 0 for t in found.values())


# -- how much a file may ask for -----------------------------------------------------------------


def test_a_file_asks_for_at_most_64_times_its_size(place: Path) -> None:
    """The most that a byte can stand for: eight entries of eight bytes."""
    infcop.save_sparse({"w": torch.zeros(2**21, dtype=torch.float64)}, place)
    size = place.stat().st_size
    found = read_within(place, 64 * size + size)
    assert found is not None
    assert found["w"].nbytes == 2**24 > 60 * size


def test_a_bound_of_ones_own(place: Path) -> None:
    infcop.save_sparse({"w": torch.zeros(2**21, dtype=torch.float64), "v": ZEROS}, place)
    assert read_within(place, 2**25, max_bytes=2**24 + 64) is not None
    with pytest.raises(ExportError, match="16,777,280 bytes, more than max_bytes=16,777,279;"):
        infcop.load_sparse(place, max_bytes=2**24 + 63)
    assert read_within(place, 0, max_bytes=2**24 + 63) is None


def test_what_is_needed_beside_the_tensors_does_not_grow(place: Path) -> None:
    """Masks are unpacked piece by piece."""
    peaks = []
    for entries in (2**20, 2**24):
        weight = torch.zeros(entries)
        weight[::5] = 1
        infcop.save_sparse({"w": weight}, place)
        tracemalloc.start()
        infcop.load_sparse(place)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < SLACK
