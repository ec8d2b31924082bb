"""The words of Cora as images, for a comparison on data of another kind.

Each of the 2,708 papers is a bag of 1,433 words, of seven classes. Written as IDX files of 38 x 38
images (the last eleven pixels are empty), which the ordinary loader of MNIST reads.
"""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

__all__ = ["write_cora"]

_SIDE = 38
_TEST = 708
_ALLOWED = {
    ("scipy.sparse.csr", "csr_matrix"): csr_matrix,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.ndarray((0,)).__reduce__()[0],
}


class _Restricted(pickle.Unpickler):
    """Builds arrays and sparse matrices, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"'{module}.{name}' is not allowed in a Cora file")
        return _ALLOWED[module, name]


def write_cora(source: Path, data: Path) -> None:
    """Write the words and classes of Cora as the files of a set like MNIST, in ``data/mnist``."""
    words = np.concatenate([_read(source, part).toarray() for part in ("allx", "tx")])
    classes = np.concatenate([_read(source, part) for part in ("ally", "ty")]).argmax(axis=1)
    order = np.random.default_rng(0).permutation(len(words))
    pixels = np.zeros((len(words), _SIDE * _SIDE), dtype=np.uint8)
    pixels[:, : words.shape[1]] = np.where(words > 0, 255, 0)
    target = data / "mnist"
    target.mkdir(parents=True, exist_ok=True)
    for prefix, rows in (("train", order[_TEST:]), ("t10k", order[:_TEST])):
        images = pixels[rows].reshape(-1, _SIDE, _SIDE)
        _write(target / f"{prefix}-images-idx3-ubyte.gz", images)
        _write(target / f"{prefix}-labels-idx1-ubyte.gz", classes[rows].astype(np.uint8))


def _read(source: Path, part: str) -> Any:
    with (source / f"ind.cora.{part}").open("rb") as file:
        return _Restricted(file, encoding="latin1").load()


def _write(path: Path, values: np.ndarray) -> None:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))
