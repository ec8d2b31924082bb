"""Sparse files: the same bits back, tied tensors, and how small they are."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

import infcop
from infcop.errors import ExportError
from infcop.export.dtypes import DTYPES
from infcop.export.sparse_format import KEY
from infcop.export.sparse_read import sparse_meta
from infcop.export.sparse_write import nonzero, sparse_size
from infcop.export.tensors import plain
from tests.reference.export import dense_of, same_bits


def round_trip(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    path = folder / "net.safetensors"
    infcop.save_sparse(tensors, path)
    return infcop.load_sparse(path)


def random_bits(dtype: torch.dtype, shape: tuple[int, ...], zeros: float, seed: int) -> Tensor:
    """Return entries of any bits, a share of them zero."""
    generator = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype == torch.bool:
        return torch.from_numpy(generator.random(count) > zeros).reshape(shape)
    entries = generator.integers(0, 256, (count, dtype.itemsize), dtype=np.uint8)
    entries[generator.random(count) < zeros] = 0
    return torch.from_numpy(entries).reshape(-1).view(dtype).reshape(shape)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7,), (16, 5), (3, 4, 5, 2)])
def test_all_bits_come_back(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    for zeros in (0.0, 0.5, 0.95, 1.0):
        tensors = {"a": random_bits(DTYPES[name], shape, zeros, seed=1)}
        assert same_bits(round_trip(tensors, tmp_path), tensors)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DTYPES)),
            st.lists(st.integers(0, 9), max_size=3).map(tuple),
            st.floats(0, 1),
            st.integers(0, 99),
        ),
        max_size=4,
    )
)
def test_a_slow_reader_agrees(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, tuple[int, ...], float, int]]
) -> None:
    tensors = {str(i): random_bits(DTYPES[n], *rest) for i, (n, *rest) in enumerate(drawn)}
    path = tmp_path_factory.mktemp("sparse") / "a.safetensors"
    infcop.save_sparse(tensors, path)
    found = infcop.load_sparse(path)
    assert list(found) == list(tensors)
    assert same_bits(found, tensors)
    slow = dense_of(path)
    assert {
        name: tensor.reshape(-1).view(torch.uint8).tolist() for name, tensor in found.items()
    } == slow


def test_negative_zero_and_nan_are_no_zeros(tmp_path: Path) -> None:
    weight = torch.zeros(64)
    weight[:3] = torch.tensor([-0.0, float("nan"), float("inf")])
    weight[3:4].view(torch.int32).fill_(0x7FC01234)  # another NaN
    weight[4:5].view(torch.int32).fill_(1)  # the smallest number that is not zero
    found = round_trip({"w": weight}, tmp_path)
    assert same_bits(found, {"w": weight})
    assert int(nonzero(weight).count_nonzero()) == 5


def test_tied_tensors_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    weight = torch.randn(40, 40)
    tensors = {"head": weight, "bias": torch.ones(3), "embed": weight, "turned": weight.T}
    found = round_trip(tensors, tmp_path)
    assert list(found) == list(tensors)
    assert found["head"] is found["embed"]
    assert same_bits(found, {k: v.contiguous() for k, v in tensors.items()})
    assert (tmp_path / "net.safetensors").stat().st_size < 3 * weight.nbytes


def test_views_of_one_memory_are_kept_apart(tmp_path: Path) -> None:
    memory = torch.randn(6, 8)
    complex_ = torch.randn(4, dtype=torch.complex64)
    tensors = {
        "all": memory,
        "part": memory[2:4],
        "strided": memory[:, ::2],
        "same part": memory[2:4],
        "wide": torch.ones(1).expand(5),
        "conjugate": complex_.conj(),
        "complex": complex_,
        "imaginary": complex_.conj().imag,
        "empty": memory[:0],
        "as empty": memory[:0],
    }
    found = round_trip(tensors, tmp_path)
    expected = {
        name: tensor.clone().resolve_conj().resolve_neg() for name, tensor in tensors.items()
    }
    assert same_bits(found, expected)
    assert [n for n, t in found.items() if any(t is o for m, o in found.items() if m != n)] == [
        "part",
        "same part",
    ]


def test_each_tensor_takes_the_smaller_form(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    sparse, dense, same = torch.zeros(32), torch.ones(32), torch.ones(32)
    sparse[5] = 1
    same[0] = 0  # 4 bytes of bits and 124 of values are 128, as are the entries
    infcop.save_sparse({"sparse": sparse, "dense": dense, "same": same}, path)
    parts = load_file(path)
    assert sorted(parts) == ["dense/dense", "dense/same", "mask/sparse", "values/sparse"]
    assert parts["mask/sparse"].tolist() == [1 << 5, 0, 0, 0]
    assert parts["values/sparse"].tolist() == [1.0]


def test_the_table_says_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    infcop.save_sparse(
        {"w": torch.zeros(2, 16), "v": torch.ones(1)}, path, meta={"seed": [1, None]}
    )
    with safe_open(path, framework="np") as file:
        text = file.metadata()[KEY]
    digest, _, body = text.partition(" ")
    assert digest == hashlib.sha256(body.encode()).hexdigest()
    content = json.loads(body)
    assert content["version"] == 1
    assert content["meta"] == {"seed": [1, None]} == sparse_meta(path)
    assert content["tensors"]["w"] == {
        "form": "sparse",
        "dtype": "F32",
        "shape": [2, 16],
        "sha256": hashlib.sha256(bytes(128)).hexdigest(),
    }


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    model = nn.Linear(30, 20)
    for name in ("a.safetensors", "b.safetensors"):
        infcop.save_sparse(model.state_dict(), tmp_path / name, meta={"b": 1, "a": 2})
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_the_size_is_that_of_the_file(tmp_path: Path) -> None:
    weight = torch.zeros(50, 50)
    weight[::7] = 1
    tensors = {"a": weight, "b": torch.ones(3), "c": weight}
    infcop.save_sparse(tensors, tmp_path / "a.safetensors")
    assert sparse_size(plain(tensors, "test")) == (tmp_path / "a.safetensors").stat().st_size


def test_the_model_is_left_alone_and_loads_what_was_written(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = round_trip(model.state_dict(), tmp_path)
    assert same_bits(dict(model.state_dict()), before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).load_state_dict(found, strict=True)
    found["0.weight"].zero_()  # memory of its own
    assert same_bits(infcop.load_sparse(tmp_path / "net.safetensors"), before)


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    cases = {
        "expected tensors, got int in 'x'": 3,
        "meta device": torch.empty(2, device="meta"),
        "sparse_coo in 'x'": torch.eye(2).to_sparse(),
        "complex128 in 'x'": torch.zeros(2, dtype=torch.complex128),
    }
    for told, tensor in cases.items():
        with pytest.raises(ExportError, match=told):
            infcop.save_sparse({"x": tensor}, tmp_path / "a.safetensors")
    with pytest.raises(ExportError, match="expected meta that JSON can hold"):
        infcop.save_sparse({}, tmp_path / "a.safetensors", meta={"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")
    with pytest.raises(ExportError, match=r"can't write .*choose another with --out"):
        infcop.save_sparse({"a": torch.ones(2)}, tmp_path / "in-the-way" / "a.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ExportError, match="can't write"):
        infcop.save_sparse({"a": torch.ones(2)}, tmp_path / "folder.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.safetensors", "in-the-way"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content, told in (
        (b"", "can't be read"),
        (b"x" * 100, "can't be read"),
        (save({"a": torch.ones(1)}), "without 'infcop_sparse' in its metadata"),
    ):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=told):
            infcop.load_sparse(path)
    with pytest.raises(ExportError, match="there is no file"):
        infcop.load_sparse(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="can't be read"):
        infcop.load_sparse(tmp_path)


def nested(depth: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("tensors", "name", "meta", "told"),
    [
        ({"a": torch.ones(2)}, "", {}, "expected the path of a file, got ''"),
        ({"a": torch.ones(2)}, "a\0b", {}, "expected the path of a file"),
        ({"a": torch.ones(2)}, 5, {}, "expected a path as text, got int"),
        ([torch.ones(2)], "x", {}, "expected a mapping from names to tensors.*got list"),
        ({1: torch.ones(2)}, "x", {}, "expected names of tensors as text .*got 1"),
        ({"\ud800": torch.ones(2)}, "x", {}, "expected names of tensors as text that UTF-8"),
        ({"a": torch.ones(2)}, "x", nested(100_000), "expected meta that JSON can hold"),
        ({"a": torch.ones(2)}, "x", [], "expected meta that JSON can hold.*list is no mapping"),
    ],
)
def test_wrong_arguments_are_told_as_such(
    tensors: Any, name: Any, meta: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=told):
        infcop.save_sparse(tensors, name, meta=meta)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bound", ["1GB", -1, 1.5, True])
def test_a_bound_is_a_number_of_bytes(bound: Any, tmp_path: Path) -> None:
    infcop.save_sparse({}, tmp_path / "a")
    with pytest.raises(ExportError, match="expected max_bytes as a whole number of at least 0"):
        infcop.load_sparse(tmp_path / "a", max_bytes=bound)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="it is no regular file"):
        infcop.load_sparse(tmp_path / "pipe")
    for name in ("", "a\0b"):
        with pytest.raises(ExportError, match="expected the path of a file"):
            infcop.load_sparse(name)
