"""The graph of a model: which operations its layers perform on an example."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from infcop.errors import CollapseError
from infcop.models.calling import Inputs

__all__ = ["Trace", "arguments_of", "entries_of", "trace"]


@dataclass(frozen=True, eq=False)
class Trace:
    """The operations of a model.

    Attributes:
        graph: The operations in order, on ATen level, layers being single operations.
        given: The tensor or other object behind each placeholder.
        names: The parameter or buffer behind a placeholder, under the first name of its tensor.
        inputs: The placeholders of inputs of the model; other tensors are constants.
        used_once: The parameters that a single operation reads.
        without_bias: The weights of layers that have no bias and could be given one.
    """

    graph: fx.GraphModule
    given: dict[str, Any]
    names: dict[str, str]
    inputs: frozenset[str]
    used_once: frozenset[str]
    without_bias: frozenset[str]

    @property
    def nodes(self) -> Iterable[fx.Node]:
        """The operations in order."""
        return self.graph.graph.nodes


def arguments_of(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example inputs as positional and keyword arguments.

    Raises:
        CollapseError: They are neither a tuple nor a mapping.

    Example:
        >>> arguments_of({"x": 1})
        ((), {'x': 1})
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    raise CollapseError(
        "compact: expected example_inputs as a tuple of positional arguments or a mapping of "
        f"keyword arguments, got {type(inputs).__name__}; for a single argument pass (x,)"
    )


def entries_of(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, also second names.

    Example:
        >>> list(entries_of(nn.BatchNorm1d(2, affine=False)))
        ['running_mean', 'running_var', 'num_batches_tracked']
    """
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def trace(model: nn.Module, arguments: Any) -> Trace:
    """Trace a model in evaluation mode.

    Args:
        model: The model, in evaluation mode, on the CPU.
        arguments: Example inputs, positional and by keyword.

    Raises:
        CollapseError: It can't be traced.

    Example:
        >>> found = trace(nn.Linear(2, 1).eval(), ((torch.ones(3, 2),), {}))
        >>> [node.name for node in found.nodes if node.op == "call_function"]
        ['linear']
    """
    args, kwargs = arguments
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:
        raise CollapseError(
            "compact: expected a model whose operations can be traced, but torch.export says: "
            f"{_first_line(error)}; write control flow that depends on the data with torch.where, "
            "or collapse the part of the model that has none"
        ) from error
    entries = entries_of(model)
    first: dict[int, str] = {}
    for name, tensor in entries.items():
        first.setdefault(id(tensor), name)
    flat = iter(pytree.tree_leaves((args, kwargs)))
    given: dict[str, Any] = {}
    names: dict[str, str] = {}
    inputs: set[str] = set()
    for spec in program.graph_signature.input_specs:
        target = spec.target or ""
        if spec.kind == InputKind.USER_INPUT:
            given[spec.arg.name] = next(flat)
            inputs.add(spec.arg.name)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            given[spec.arg.name] = entries[target]
            names[spec.arg.name] = first[id(entries[target])]
        else:
            given[spec.arg.name] = program.constants[target]
    uses: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.name in names:
            uses[names[node.name]] += len(node.users)
    once = frozenset(name for name, count in uses.items() if count == 1)
    return Trace(program.graph_module, given, names, frozenset(inputs), once, _without_bias(model))


_BIASED = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def _without_bias(model: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, _BIASED) and module.bias is None
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what tracing prints and logs to itself: what matters is in its exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
