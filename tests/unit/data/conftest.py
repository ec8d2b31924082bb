"""Writers of small files in the published formats, and the real data where it is present."""

from __future__ import annotations

import gzip
import lzma
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[3]


def _packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return lzma.compress(content) if suffix == ".xz" else content


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Give the folder of a real set, or skip."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("INFCOP_DATA") or REPOSITORY.parent / "shared" / "data")
        if not (root / name).is_dir():
            pytest.skip(f"no folder '{name}' in INFCOP_DATA or beside the repository")
        return root / name

    return find


@pytest.fixture
def pack() -> Callable[[bytes, str], bytes]:
    return _packed


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """Write an array as IDX, truthfully unless told otherwise."""

    def write(
        path: Path,
        array: np.ndarray,
        *,
        shape: tuple[int, ...] | None = None,
        magic: bytes | None = None,
    ) -> Path:
        shape = array.shape if shape is None else shape
        header = (magic or bytes((0, 0, 8, array.ndim))) + struct.pack(f">{len(shape)}I", *shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_packed(header + array.tobytes(), path.suffix))
        return path

    return write


@pytest.fixture
def idx_folder(tmp_path: Path, write_idx: Callable[..., Path]) -> Path:
    """A complete small set in the four MNIST files, one of them per kind of compression."""
    rng = np.random.default_rng(0)
    write_idx(tmp_path / "train-images-idx3-ubyte", rng.integers(0, 256, (12, 5, 4), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(12, dtype=np.uint8) % 10)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.xz", rng.integers(0, 256, (3, 5, 4), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.arange(3, dtype=np.uint8))
    return tmp_path


@pytest.fixture
def cifar_arrays() -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
    """Pixels ``[N, 3072]`` and labels ``[N]`` from a seed."""

    def make(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (count, 3072), np.uint8)
        return pixels, rng.integers(0, 10, count, np.uint8)

    return make


@pytest.fixture
def write_batch() -> Callable[..., Path]:
    """Write a Python batch as Python 3 does."""

    def write(path: Path, entries: dict[object, object], protocol: int = 2) -> Path:
        path.write_bytes(_packed(pickle.dumps(entries, protocol), path.suffix))
        return path

    return write


@pytest.fixture
def python2_batch() -> Callable[[np.ndarray, list[int], str], bytes]:
    """The bytes that Python 2 wrote for a batch: the form of the official files."""

    def text(content: bytes) -> bytes:
        if len(content) < 256:
            return b"U" + bytes((len(content),)) + content
        return b"T" + struct.pack("<i", len(content)) + content

    def integer(value: int) -> bytes:
        return b"K" + bytes((value,)) if value < 256 else b"J" + struct.pack("<i", value)

    def array(values: np.ndarray) -> bytes:
        rows, columns = values.shape
        return (
            b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87"
            b"Rq\x05(K\x01" + integer(rows) + integer(columns) + b"\x86cnumpy\ndtype\nq\x06"
            b"U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            b"\x89" + text(values.tobytes()) + b"tb"
        )

    def write(pixels: np.ndarray, labels: list[int], label_key: str) -> bytes:
        return (
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5U\x04data"
            + array(pixels)
            + text(label_key.encode())
            + b"]q\x08("
            + b"".join(integer(label) for label in labels)
            + b"eU\x09filenames]q\x09U\x05a.pngau."
        )

    return write
