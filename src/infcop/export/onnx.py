"""ONNX: one file for other runtimes, compared with PyTorch before it is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infcop.errors import ExportError
from infcop.export.batches import tensors_of
from infcop.export.compared import Agreement
from infcop.export.manifest import Manifest
from infcop.export.programs import Program, cause_of, quiet
from infcop.export.writing import write_whole
from infcop.models.calling import Inputs

__all__ = ["OPSET", "onnx_session", "onnx_weights", "write_onnx"]

OPSET = 20
"""Version of the operators. ONNX of 2023 and later knows it."""

_MOST_BYTES = 2**31 - 2**20
"""A file can't be larger than 2 GiB; a little is left for the graph."""


def write_onnx(program: Program, path: Path, manifest: Manifest) -> Agreement:
    """Write a program as one ONNX file, check it, and compare it with the network.

    Zeros are stored like any other weight. The manifest is the metadata property ``infcop``.

    Raises:
        ExportError: The extra ``export`` is not installed, an operator can't be translated, the
            file would be larger than 2 GiB, or onnxruntime gives something else than PyTorch.
    """
    onnx = _needed("onnx")
    for name in ("onnxscript", "onnxruntime"):
        _needed(name)
    held = [*program.exported.state_dict.values(), *program.exported.constants.values()]
    weights = sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))
    if weights > _MOST_BYTES:
        raise ExportError(
            f"onnx: the weights take {weights:,} bytes, and a file can hold {_MOST_BYTES:,}; "
            "export with --to torch-export, or a smaller network"
        )
    proto = _translated(program)
    _simplify(proto, program)
    proto.metadata_props.add(key="infcop", value=manifest.model_dump_json())
    found: list[Agreement] = []

    def fill(place: Path) -> None:
        place.write_bytes(proto.SerializeToString(deterministic=True))
        try:
            onnx.checker.check_model(str(place), full_check=True)
        except Exception as error:
            raise ExportError(
                f"onnx: the checker of ONNX refuses the program: {cause_of(error)}; try --to "
                "torch-export"
            ) from error
        session = onnx_session(place, threads=1)

        def run(inputs: Inputs) -> list[Tensor]:
            return session(tuple(tensors_of(inputs)))

        found.append(program.compared(run))

    write_whole(path, fill)
    return found[0]


def onnx_session(
    path: str | Path, threads: int = 1
) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
    """Return what runs an ONNX file with onnxruntime on the CPU.

    Args:
        path: The file.
        threads: Computing threads of one run.

    Returns:
        A function from the tensors of the inputs, in the order of the file, to those of the
        outputs.

    Raises:
        ExportError: onnxruntime is not installed, can't load the file, or can't run it.
    """
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(
            f"onnx: onnxruntime can't load the file: {cause_of(error)}; try --to torch-export"
        ) from error
    names = [value.name for value in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if len(inputs) != len(names):
            raise ExportError(
                f"onnx: expected {len(names)} tensors ({', '.join(names)}), got {len(inputs)}"
            )
        given = {n: t.detach().cpu().numpy() for n, t in zip(names, inputs, strict=True)}
        try:
            outputs: Sequence[Any] = session.run(None, given)
        except Exception as error:
            raise ExportError(f"onnx: onnxruntime can't run it: {cause_of(error)}") from error
        return [torch.from_numpy(output) for output in outputs]

    return run


def onnx_weights(path: str | Path) -> Iterator[Tensor]:
    """Yield the weights that an ONNX file holds: its initialisers of floating-point numbers.

    Buffers of a network are among them, and so are constants that the exporter computed.

    Raises:
        ExportError: onnx is not installed or can't read the file.
    """
    onnx = _needed("onnx")
    try:
        graphs = _graphs(onnx.load(str(path)))
    except Exception as error:
        raise ExportError(f"onnx: the file can't be read: {cause_of(error)}") from error
    for graph in graphs:
        for held in graph.initializer:
            # A copy, since the array can't be written to.
            values = torch.from_numpy(onnx.numpy_helper.to_array(held).copy())
            if values.is_floating_point():
                yield values


def _translated(program: Program) -> Any:
    try:
        with quiet():
            translated = torch.onnx.export(
                program.exported, dynamo=True, opset_version=OPSET, verbose=False
            )
            assert translated is not None  # as it is for the exporter that dynamo stands for
            return translated.model_proto
    except Exception as error:
        operator = _operator_in(error)
        told = f"it has no translation for the operator {operator}" if operator else cause_of(error)
        raise ExportError(
            f"onnx: the exporter fails: {told}. Replace that part of the network, or export with "
            "--to torch-export"
        ) from error


def _operator_in(error: BaseException | None) -> str | None:
    """Return the operator that an exporter names, in the innermost cause that names one."""
    found = None
    while error is not None:
        named = re.search(r"OpOverload\(op='([\w.]+)'", str(error)) or re.search(
            r"torch\.ops\.([\w.]+)", str(error)
        )
        found = named[1] if named else found
        error = error.__cause__ or error.__context__
    return found


def _simplify(proto: Any, program: Program) -> None:
    """Call the free size "batch" and leave out what the exporter noted for its own use."""
    free = {
        str(dim)
        for value in program.exported.graph_signature.user_inputs
        for dim in _sizes(program, value)
        if not isinstance(dim, int)
    }
    for graph in _graphs(proto):
        del graph.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in (*graph.input, *graph.output, *graph.value_info):
            del value.metadata_props[:]
            for size in value.type.tensor_type.shape.dim:
                if size.dim_param in free:
                    size.dim_param = "batch"
    for function in proto.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]


def _sizes(program: Program, name: Any) -> Sequence[Any]:
    node = next((n for n in program.exported.graph.nodes if n.name == name), None)
    value = None if node is None else node.meta.get("val")
    return list(value.shape) if isinstance(value, Tensor) else []


def _graphs(proto: Any) -> list[Any]:
    found, waiting = [], [proto.graph]
    while waiting:
        graph = waiting.pop()
        found.append(graph)
        for node in graph.node:
            waiting += [a.g for a in node.attribute if a.HasField("g")]
            waiting += [inner for a in node.attribute for inner in a.graphs]
    return found


def _needed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"onnx: {name} is not installed; run: pip install 'infcop[export]'"
        ) from error
