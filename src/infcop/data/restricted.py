"""Reading pickled arrays without unpickling.

Some data sets are published as pickles, and a pickle is a program: loading it with the ``pickle``
module runs what its author wrote. Here nothing is run. ``pickletools.genops``, the standard
library's disassembler, parses the stream and executes nothing; the small interpreter below then
follows the few instructions that build plain values and numeric arrays, and refuses all others.

Why this is safe, even for a hostile file:

- No name is ever looked up. The few names that NumPy's pickles contain are compared as text
  and stand for members of an enumeration; any other name is refused. So there is no module to
  import, no function to call and no attribute to set.
- Arrays are views of the bytes present, of a fixed table of numeric types, made after the
  declared shape has been compared with those bytes. There are no object arrays.
- Memory stays in proportion to the file: instructions are counted, lengths are limited by what
  the file holds, and text is encoded only as often as the file could hold it.
- Time does too: values are checked when they enter a container, by their type alone, so nested
  or self-containing ones are never walked, and no key takes long to hash.

``pickle.Unpickler`` with a restricted ``find_class`` would offer the first point only: one memo
index makes its C code allocate gigabytes, and a nested key overflows its stack.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any

from infcop.data.plain import (
    Arguments,
    Unbuilt,
    array_from_state,
    dtype_from_state,
    expect,
    is_plain,
    key,
    numeric_code,
    plain,
    type_name,
)
from infcop.errors import DataError

__all__ = ["read_pickle"]

_MOST_INSTRUCTIONS = 2_000_000
"""CIFAR-100, the largest known case, has about 300,000."""


class _Name(Enum):
    RECONSTRUCT = "_reconstruct"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    ENCODE = "encode"
    BYTES = "bytes"


_NAMES = {
    "numpy.core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy ndarray": _Name.NDARRAY,
    "numpy dtype": _Name.DTYPE,
    "_codecs encode": _Name.ENCODE,
    "__builtin__ bytes": _Name.BYTES,
}


def read_pickle(content: bytes | bytearray, source: str) -> object:
    r"""Return the plain value that a pickle of protocol 2 to 4 describes.

    Args:
        content: The whole pickle.
        source: The file that messages name.

    Returns:
        None, bool, int, float, str, bytes, list, dict, tuple or a read-only numeric
        ``numpy.ndarray``, nested at will. The strings of Python 2 come back as bytes.

    Raises:
        DataError: The stream is damaged, or would build anything else.

    Example:
        >>> read_pickle(b"\x80\x02}U\x06labels]K\x07as.", "example")
        {b'labels': [7]}
        >>> read_pickle(b"cos\nsystem\n.", "example")
        Traceback (most recent call last):
            ...
        infcop.errors.DataError: example: refused: it names 'os system', which is no part of ...
    """
    machine = _Machine(encodable=len(content))
    try:
        with warnings.catch_warnings():
            # The disassembler parses the text instructions of protocol 0 before they can be
            # refused, and warns of doubtful escapes in them.
            warnings.simplefilter("error")
            end = machine.run(bytes(content))
        if end != len(content):
            raise ValueError(f"bytes follow its end at {end}")
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, Warning) as error:
        raise DataError(f"{source}: refused: {error}") from error


class _Machine:
    """The stack, the marks and the memo of the pickle format."""

    def __init__(self, encodable: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encodable = encodable
        """How many more bytes ``encode`` may give: each byte of the file once."""

    def run(self, content: bytes) -> int:
        end = 0
        for count, (instruction, argument, position) in enumerate(pickletools.genops(content)):
            if count >= _MOST_INSTRUCTIONS:
                raise ValueError(f"it has more than {_MOST_INSTRUCTIONS} instructions")
            self.step(instruction.name, argument)
            end = int(position or 0) + 1
        return end

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(_LITERALS[name](argument))
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise ValueError(
                f"instruction {name} is not needed for plain values and numeric arrays "
                "(protocols 2 to 4 are read)"
            )

    def result(self) -> object:
        if len(self.stack) != 1:
            raise ValueError(f"expected one value at its end, got {len(self.stack)}")
        value: object = plain(self.stack.pop())
        return value

    def take(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def take_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def push_tuple(self, values: list[Any]) -> None:
        self.stack.append(tuple(values) if all(map(is_plain, values)) else Arguments(values))

    def extend(self, values: list[Any]) -> None:
        target = expect(self.stack[-1], list)
        target.extend(plain(value) for value in values)

    def update(self, values: list[Any]) -> None:
        target = expect(self.stack[-1], dict)
        if len(values) % 2:
            raise ValueError("a key lacks its value")
        for name, value in zip(values[::2], values[1::2], strict=True):
            target[key(name)] = plain(value)

    def remember(self, place: int) -> None:
        value = self.stack[-1]
        self.memo[place] = value
        if isinstance(value, Unbuilt):
            value.places.append(place)

    def name(self, text: str) -> None:
        if text not in _NAMES:
            raise ValueError(
                f"it names {text[:80]!a}, which is no part of a plain value or a numeric array"
            )
        self.stack.append(_NAMES[text])

    def name_from_stack(self) -> None:
        module, name = self.take(2)
        self.name(f"{expect(module, str)} {expect(name, str)}")

    def call(self) -> None:
        function, arguments = self.take(2)
        if not isinstance(arguments, tuple):
            raise ValueError(f"expected arguments in a tuple, got {type_name(arguments)}")
        if function is _Name.ENCODE:
            self.stack.append(self.encode(*arguments))
        elif function is _Name.BYTES and not arguments:
            self.stack.append(b"")  # How protocol 2 writes no bytes at all.
        elif function is _Name.DTYPE:
            self.stack.append(Unbuilt(numeric_code(*arguments)))
        elif function is _Name.RECONSTRUCT and arguments[0] is _Name.NDARRAY:
            self.stack.append(Unbuilt())
        else:
            raise ValueError("it calls something that is no function of NumPy's pickles")

    def encode(self, text: object, encoding: object) -> bytes:
        if encoding != "latin1":
            raise ValueError("expected bytes written as latin1 text")
        content: bytes = expect(text, str).encode("latin1")
        self.encodable -= len(content)
        if self.encodable < 0:
            raise ValueError("it unfolds to more bytes than the file holds")
        return content

    def build(self) -> None:
        target, state = self.take(2)
        unbuilt: Unbuilt = expect(target, Unbuilt)
        if not isinstance(state, tuple):
            raise ValueError(f"expected a state in a tuple, got {type_name(state)}")
        value = dtype_from_state(unbuilt.code, state) if unbuilt.code else array_from_state(state)
        self.stack.append(value)
        self.memo.update(dict.fromkeys(unbuilt.places, value))


def _same(argument: Any) -> Any:
    return argument


_LITERALS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _same),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _same),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _same),
    # The disassembler decodes the strings of Python 2; their bytes are what was written.
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda text: text.encode("latin1")),
}

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.take_to_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.take_to_mark()),
    "TUPLE": lambda machine, _: machine.push_tuple(machine.take_to_mark()),
    "TUPLE1": lambda machine, _: machine.push_tuple(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push_tuple(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push_tuple(machine.take(3)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, at: machine.remember(at)),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, at: machine.stack.append(machine.memo[at])
    ),
    "GLOBAL": lambda machine, name: machine.name(name),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
