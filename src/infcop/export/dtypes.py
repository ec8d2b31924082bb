"""The types of entries that a safetensors file can hold."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "DTYPE_NAMES", "bits_of", "digest_of"]

_NAMES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "C64": "complex64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz"},
    **{"F8_E5M2": "float8_e5m2", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu"},
}

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, own) for name, own in _NAMES.items() if hasattr(torch, own)
}
"""By the name in the file. Types of less than a byte an entry are left out."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(dtype: torch.dtype) -> torch.dtype:
    """Return the integers that show the bits of a type: zero only for +0.0.

    Example:
        >>> torch.tensor([0.0, -0.0, float("nan")]).view(bits_of(torch.float32)) != 0
        tensor([False,  True,  True])
    """
    return _BITS[dtype.itemsize]


def digest_of(tensor: Tensor) -> str:
    """Return the SHA-256 of the bytes of a contiguous tensor on the CPU.

    Example:
        >>> digest_of(torch.tensor([0.0])) == hashlib.sha256(bytes(4)).hexdigest()
        True
    """
    # Stubs for Python 3.10 don't know that arrays are buffers.
    content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(content).hexdigest()
