"""Sizes in several formats, against counting one by one."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

import infcop
from infcop.export.sizes import SizeTable, size_table
from infcop.export.tensors import plain


def slow_csr(tensor: Tensor) -> int:
    """Build values, columns and the places where rows begin, then count their bytes."""
    dense = tensor.numel() * tensor.element_size()
    if tensor.ndim < 2:
        return dense
    values, columns, begins = [], [], [0]
    for row in tensor.reshape(len(tensor), -1) if tensor.numel() else [[]] * len(tensor):
        for column, value in enumerate(row):
            if value != 0 or bool(torch.signbit(value)):
                values.append(value)
                columns.append(column)
        begins.append(len(values))
    return min(dense, len(values) * tensor.element_size() + 4 * (len(columns) + len(begins)))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 6), max_size=4).map(tuple),
    st.sampled_from([torch.float32, torch.float64, torch.float16]),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_compressed_rows(
    shape: tuple[int, ...], dtype: torch.dtype, zeros: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator).to(dtype)
    tensor[torch.rand(shape, generator=generator) < zeros] = 0.0
    found = size_table(plain({"a": tensor}, "test"))
    header = found.dense - tensor.numel() * tensor.element_size()
    assert found.csr == header + slow_csr(tensor)


def test_all_sizes_are_those_of_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(60, 50).masked_fill_(torch.rand(60, 50) > 0.1, 0.0)
    weight[0, 0] = -0.0
    tensors = {"weight": weight, "bias": torch.ones(60), "tied": weight}
    found = size_table(plain(tensors, "test"))
    once = {"weight": weight, "bias": torch.ones(60)}
    save_file(once, tmp_path / "dense")
    infcop.save_sparse(tensors, tmp_path / "sparse")
    assert found.dense == (tmp_path / "dense").stat().st_size
    assert found.sparse == (tmp_path / "sparse").stat().st_size
    assert found.zip == len(zlib.compress(save(once), 6))
    header = len(save(once)) - 4 * (60 * 50 + 60)
    assert found.csr == header + slow_csr(weight) + 240
    kept = int((weight != 0).sum()) + 1
    assert slow_csr(weight) == kept * 8 + 4 * 61


def test_the_table_in_words() -> None:
    table = SizeTable(dense=200_000, sparse=20_000, csr=30_000, zip=5_000)
    assert str(table).splitlines() == [
        "dense         200,000 bytes  100.0% of dense",
        "sparse         20,000 bytes   10.0% of dense",
        "CSR            30,000 bytes   15.0% of dense",
        "zip of dense    5,000 bytes    2.5% of dense",
    ]


@pytest.mark.parametrize("tensors", [{}, {"a": torch.zeros(0, 3)}, {"a": torch.tensor(1.0)}])
def test_hardly_any_tensors(tensors: dict[str, Tensor]) -> None:
    found = size_table(plain(tensors, "test"))
    assert found.csr == found.dense == len(save(tensors))
