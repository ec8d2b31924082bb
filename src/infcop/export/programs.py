"""Capturing a network as a program that needs no Python code, and writing it for PyTorch."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.errors import ExportError
from infcop.export.batches import batch_size, tensors_of
from infcop.export.compared import Agreement, agreement
from infcop.export.manifest import Manifest
from infcop.export.writing import write_whole
from infcop.models.batches import resized
from infcop.models.calling import Inputs, call
from infcop.models.unwrap import unwrapped

__all__ = ["Program", "capture", "cause_of", "quiet", "write_program"]

_LEAST = 3
"""Examples of a batch that is traced with a free size; sizes 0 and 1 are special to PyTorch."""


@dataclass(frozen=True, eq=False)
class Program:
    """A captured network.

    Attributes:
        exported: What ``torch.export`` made of it.
        model: The network itself: a copy on the CPU, in evaluation mode.
        inputs: The example inputs.
        examples: How many examples they hold.
        fixed_batch: The only batch size it takes; None if it takes any.
    """

    exported: torch.export.ExportedProgram
    model: nn.Module
    inputs: Inputs
    examples: int
    fixed_batch: int | None

    def compared(self, run: Callable[[Inputs], Sequence[Tensor]]) -> Agreement:
        """Compare what a file of this program gives with what the network gives.

        Raises:
            ExportError: As of ``agreement``.
        """
        free = self.fixed_batch is None
        return agreement(run, self.model, self.inputs, examples=self.examples, any_batch=free)


def capture(model: nn.Module, inputs: Inputs, examples: int | None = None) -> Program:
    """Capture a network with a free batch size, or with that of the inputs if there is no other.

    Args:
        model: It is left as it is; a copy on the CPU in evaluation mode is captured.
        inputs: On the CPU.
        examples: How many examples they hold; by default the first size of the first tensor that
            has one. Tensors with so many entries in their first dimension hold one example in each.

    Raises:
        ExportError: The network can't be copied, called or captured.

    Example:
        >>> program = capture(nn.Linear(3, 2), (torch.randn(4, 3),))
        >>> program.fixed_batch is None
        True
    """
    own = _copied(model)
    try:
        with torch.no_grad():
            call(own, inputs)
    except Exception as error:
        raise ExportError(
            f"export: expected inputs that the network can be called with, but it fails: {error}; "
            "give example inputs as your training code does"
        ) from error
    batch = batch_size(inputs) or 0 if examples is None else examples
    given = resized(inputs, batch, _unlike_others(own, inputs)) if batch else None
    if given is not None:
        try:
            exported = _exported(own, given, _free(inputs, batch))
            return Program(exported, own, inputs, batch, None)
        except Exception:
            # Whatever is wrong with the network itself shows again below.
            pass
    try:
        return Program(_exported(own, inputs, None), own, inputs, batch or 1, batch)
    except Exception as error:
        raise ExportError(
            f"export: the network can't be captured by torch.export: {cause_of(error)}. Expected "
            "operations on tensors only: no branch that depends on values, no numpy, no scripted "
            "part; or export the weights: --to sparse, safetensors or state-dict"
        ) from error


def write_program(program: Program, path: Path, manifest: Manifest) -> Agreement:
    """Write a program as ``torch.export.save`` does, and check it by loading it again.

    The manifest is the extra file ``infcop.json`` inside.

    Raises:
        ExportError: It can't be saved or loaded, or then gives something else.
    """
    found: list[Agreement] = []

    def fill(place: Path) -> None:
        try:
            with quiet():
                extra = {"infcop.json": manifest.model_dump_json()}
                # Given a path, torch would write its name into the file.
                with place.open("wb") as file:
                    torch.export.save(program.exported, file, extra_files=extra)
                loaded = torch.export.load(place).module()
        except Exception as error:
            raise ExportError(
                f"torch-export: the program can't be saved and loaded: {cause_of(error)}; try "
                "--to onnx, or export the weights"
            ) from error

        def run(inputs: Inputs) -> list[Tensor]:
            return tensors_of(call(loaded, inputs))

        found.append(program.compared(run))

    write_whole(path, fill)
    return found[0]


def cause_of(error: BaseException) -> str:
    """Return the first line of what an exporter is about to say, at most 300 characters."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return told[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters from writing to the terminal; they report by exceptions as well.

    Example:
        >>> with quiet():
        ...     print("Translate the graph into ONNX ...")
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(unwrapped(model)).cpu().eval()
    except Exception as error:
        raise ExportError(
            f"export: expected a model that copy.deepcopy can copy, but it fails: {error}; remove "
            "what can't be copied, for instance hooks"
        ) from error


def _exported(model: nn.Module, inputs: Inputs, shapes: Any) -> torch.export.ExportedProgram:
    named = isinstance(inputs, Mapping)
    with quiet(), torch.no_grad():
        exported = torch.export.export(
            model,
            () if named else tuple(inputs),
            dict(inputs) if isinstance(inputs, Mapping) else None,
            dynamic_shapes=shapes,
            strict=False,
        )
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return exported


def _unlike_others(model: nn.Module, inputs: Inputs) -> int:
    """Return a batch size that is no other size: equal ones would be taken for the same."""
    tensors = (*model.parameters(), *model.buffers(), *tensors_of(inputs))
    taken = {size for tensor in tensors for size in tensor.shape}
    return next(size for size in count(_LEAST) if size not in taken)


def _free(inputs: Inputs, batch: int) -> Any:
    """Return for every tensor that its first size is free, if it is that of the batch."""
    dimension = torch.export.Dim("batch")

    def shape(leaf: Any) -> dict[int, Any] | None:
        is_batch = isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == batch
        return {0: dimension} if is_batch else None

    return pytree.tree_map(shape, dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs))
