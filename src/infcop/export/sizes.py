"""What a network takes in each format, counted in bytes."""

from __future__ import annotations

import zlib

from safetensors.torch import save

from infcop.core.values import Value
from infcop.export.sparse_write import nonzero, sparse_size
from infcop.export.tensors import Plain

__all__ = ["SizeTable", "size_table"]

_INDEX = 4
_LEVEL = 6
_PIECE = 2**20


class SizeTable(Value):
    """Bytes of the tensors of a network in four formats; tied tensors count once."""

    dense: int
    """A safetensors file of all tensors as they are, without metadata."""
    sparse: int
    """A sparse file of infcop, without metadata of the user's."""
    csr: int
    """Compressed rows with 32-bit indices, and the header of the dense file; see ``size_table``."""
    zip: int
    """The dense file, deflated by zlib at level 6."""

    def __str__(self) -> str:
        rows = [
            ("dense", self.dense),
            ("sparse", self.sparse),
            ("CSR", self.csr),
            ("zip of dense", self.zip),
        ]
        width = len(f"{max(size for _, size in rows):,}")
        return "\n".join(
            f"{name:<12}  {size:>{width},} bytes  {size / self.dense:6.1%} of dense"
            for name, size in rows
        )


def size_table(found: Plain) -> SizeTable:
    r"""Count what tensors take.

    In compressed rows a tensor is a matrix of its first dimension times all others. With :math:`r`
    rows, :math:`k` entries whose bits are not those of +0.0 and :math:`b` bytes an entry it takes
    :math:`k (b + 4) + 4 (r + 1)` bytes: a value and a column for each such entry, and where every
    row begins. Where that is not less than the dense tensor, and for tensors of less than two
    dimensions, the dense tensor counts, as in a sparse file. Names and shapes take what the header
    of the dense file takes.

    Args:
        found: The tensors.

    Example:
        >>> import torch
        >>> from infcop.export.tensors import plain
        >>> weight = torch.zeros(100, 100)
        >>> weight[:, 0] = 1
        >>> sizes = size_table(plain({"weight": weight}, "example"))
        >>> header = sizes.dense - 100 * 100 * 4
        >>> sizes.csr - header  # 100 * (4 + 4) + 4 * 101
        1204
    """
    content = save(found.tensors)
    return SizeTable(
        dense=len(content),
        sparse=sparse_size(found),
        csr=len(content) - sum(one.nbytes for one in found.tensors.values()) + _csr(found),
        zip=_deflated(content),
    )


def _csr(found: Plain) -> int:
    total = 0
    for tensor in found.tensors.values():
        entry = tensor.element_size()
        dense = tensor.numel() * entry
        if tensor.ndim < 2:
            total += dense
            continue
        kept = int(nonzero(tensor).count_nonzero())
        total += min(dense, kept * (entry + _INDEX) + _INDEX * (tensor.shape[0] + 1))
    return total


def _deflated(content: bytes) -> int:
    packer = zlib.compressobj(_LEVEL)
    view = memoryview(content)
    pieces = (view[start : start + _PIECE] for start in range(0, len(view), _PIECE))
    return sum(len(packer.compress(piece)) for piece in pieces) + len(packer.flush())
