"""What the restricted reader of pickles may build: plain values and numeric arrays.

Every check looks at the exact type of one value. A message never holds a value that came from a
file without a limit: the text of a cunningly nested one can be astronomically long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = [
    "Arguments",
    "Unbuilt",
    "array_from_state",
    "dtype_from_state",
    "expect",
    "is_plain",
    "key",
    "numeric_code",
    "plain",
    "type_name",
]

_NUMERIC = frozenset(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
_PLAIN = frozenset([type(None), bool, int, float, str, bytes, list, dict, tuple, np.ndarray])
_MOST_DIMENSIONS = 32


class Arguments(tuple[Any, ...]):
    """A tuple that holds more than plain values: good for a call, never part of the result."""


class Unbuilt:
    """An array, or a dtype with its code, between the instruction that names it and its state."""

    def __init__(self, code: str = "") -> None:
        self.code = code
        self.places: list[int] = []
        """Where the memo refers to it, so that the finished value can take its place."""


def is_plain(value: object) -> bool:
    """Whether a value may be part of the result."""
    return type(value) in _PLAIN


def plain(value: Any) -> Any:
    """Return a plain value as it is.

    Raises:
        ValueError: It is anything else.
    """
    if not is_plain(value):
        raise ValueError(f"{type_name(value)} stands where a plain value is expected")
    return value


def key(value: Any) -> Any:
    """Return a dictionary key as it is: text, bytes or a 32-bit integer.

    Larger integers could be chosen to collide, and nested tuples take unbounded time to hash.

    Raises:
        ValueError: It is anything else.
    """
    if type(value) in (str, bytes) or (type(value) is int and abs(value) < 2**31):
        return value
    raise ValueError(f"expected a key of text, bytes or a small integer, got {type_name(value)}")


def expect(value: Any, kind: type) -> Any:
    """Return a value of exactly this type as it is.

    Raises:
        ValueError: It is of another type.
    """
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__.lower()}, got {type_name(value)}")
    return value


def type_name(value: object) -> str:
    """Return what a message may say of a value that is not trusted."""
    return type(value).__name__.lower()


def numeric_code(code: object, *_: object) -> str:
    """Return NumPy's two-character code of a numeric type.

    Raises:
        ValueError: It is not the code of one; objects and records least of all.
    """
    text = _text(code)
    if text not in _NUMERIC:
        raise ValueError(f"expected a numeric array, got elements of type {text[:20]!a}")
    return text


def dtype_from_state(code: str, state: tuple[Any, ...]) -> np.dtype[Any]:
    """Return the numeric type with the byte order that the second item of its state gives.

    Raises:
        ValueError: The state gives none.
    """
    order = _text(state[1]) if len(state) > 1 else ""
    if order not in ("<", ">", "|", "="):
        raise ValueError(f"expected a byte order of '<', '>', '|' or '=', got {order[:20]!a}")
    dtype: np.dtype[Any] = np.dtype(code).newbyteorder(order)  # type: ignore[arg-type]
    return dtype


def array_from_state(state: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Return the array of NumPy's state ``(version, shape, dtype, is_fortran, content)``.

    The array is a read-only view of the content: nothing is allocated.

    Raises:
        ValueError: An item has another type, or shape and content disagree.
    """
    if len(state) != 5:
        raise ValueError(f"expected an array state of 5 items, got {len(state)}")
    _, shape, dtype, fortran, content = state
    if not isinstance(dtype, np.dtype):
        raise ValueError(f"expected the type of an array, got {type_name(dtype)}")
    dimensions = _shape(shape)
    size = math.prod(dimensions) * dtype.itemsize
    if len(expect(content, bytes)) != size:
        raise ValueError(f"an array holds {len(content)} bytes, its shape declares another size")
    flat: np.ndarray[Any, Any] = np.frombuffer(content, dtype)
    return flat.reshape(dimensions, order="F" if fortran else "C")


def _shape(shape: Any) -> tuple[int, ...]:
    dimensions: tuple[int, ...] = expect(shape, tuple)
    if len(dimensions) > _MOST_DIMENSIONS:
        raise ValueError(f"expected at most {_MOST_DIMENSIONS} dimensions, got {len(dimensions)}")
    if any(type(n) is not int or not 0 <= n < 2**63 for n in dimensions):
        raise ValueError("expected an array shape of non-negative integers")
    return dimensions


def _text(value: Any) -> str:
    text: str = value.decode("ascii") if type(value) is bytes else expect(value, str)
    return text
