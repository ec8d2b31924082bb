"""Slow, obvious twins of what exports do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether names, types, shapes and all bits are equal."""
    return list(found) == list(expected) and all(
        (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        and torch.equal(
            found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        )
        for name, tensor in expected.items()
    )


def dense_of(path: Path) -> dict[str, list[int]]:
    """Read a sparse file byte by byte and bit by bit; return the bytes of each tensor."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    table = json.loads(header["__metadata__"]["infcop_sparse"][65:])["tensors"]

    def part(name: str) -> bytes:
        start, end = header[name]["data_offsets"]
        return content[8 + length + start : 8 + length + end]

    found: dict[str, list[int]] = {}
    for name, entry in table.items():
        if "same_as" in entry:
            found[name] = found[entry["same_as"]]
        elif entry["form"] == "dense":
            found[name] = list(part(f"dense/{name}"))
        else:
            entries = math.prod(entry["shape"])
            bits, values = part(f"mask/{name}"), list(part(f"values/{name}"))
            kept = [bits[i // 8] >> (i % 8) & 1 for i in range(entries)]
            size = len(values) // sum(kept) if any(kept) else _SIZES[entry["dtype"]]
            found[name] = []
            for bit in kept:
                found[name] += values[:size] if bit else [0] * size
                values = values[size:] if bit else values
    return found


_SIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E8M0"), 1),
    **dict.fromkeys(("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ"), 1),
}
