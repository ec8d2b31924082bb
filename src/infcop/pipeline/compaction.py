"""The compact network of a finished run: made, measured, and written as files."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from infcop.collapse import Compact, LayerReport
from infcop.collapse.load import packed
from infcop.core.config import ExecutionConfig
from infcop.core.footprint import Footprint, LayerSizes, NetworkFootprint, NetworkKind
from infcop.core.records import DataFacts
from infcop.core.rng import derive_seed, preserved_rng
from infcop.errors import RunFolderError
from infcop.export.programs import cause_of
from infcop.models.calling import Inputs, call
from infcop.models.kinds import layer_kind
from infcop.models.weight_axes import weight_axes
from infcop.pipeline.earlier_times import earlier_times, sha256_of, today, with_earlier_times
from infcop.pipeline.footprints import Session, accepted, check_device, counted, timings
from infcop.pipeline.onnx_file import OnnxFile, onnx_file
from infcop.pipeline.pages import write_page
from infcop.pipeline.rebuild import Rebuilt, rebuild
from infcop.pipeline.store import RunStore
from infcop.pipeline.surroundings import hardware, versions
from infcop.rewinding.snapshot import Snapshot
from infcop.training.engine import Engine, evaluating

__all__ = ["Compaction", "compact_run"]

_UNSEEN = (
    "activations are not measured, since onnxruntime does not show the tensors that it makes on "
    "its way; multiply-adds are those of the compact network"
)


@dataclass(frozen=True, eq=False)
class Compaction:
    """A compact network and what is known of it.

    Attributes:
        compact: The network and how it came about.
        data: What the metrics are.
        footprint: What it takes, beside the networks that it was made from.
        weights: The file that holds it.
        record: The file that holds the footprint.
        page: The report of the run; None if other files than those of the run were written.
        dropped: Whether times of an earlier command were left out, being of other networks.
    """

    compact: Compact
    data: DataFacts
    footprint: Footprint
    weights: Path
    record: Path
    page: Path | None
    dropped: bool = False


def compact_run(
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    data_dir: str | None = None,
    out: Path | None = None,
    timed: bool = False,
    threads: Sequence[int] = (),
    device: str = "cpu",
) -> Compaction:
    """Make the compact network of a finished run, measure it, and write files and page.

    Times that an earlier command measured stay where the networks are still the same.

    Args:
        folder: The run folder.
        model: ``package.module:factory`` that returns the model and a task or example inputs, for
            a run from Python.
        data_dir: Folder of the data files; by default where the run found them.
        out: Folder for the files, instead of the run folder.
        timed: Whether to measure latency and throughput anew.
        threads: Numbers of threads to measure them with; by default 1 and all.
        device: Where to measure them.

    Raises:
        InfcopError: As of ``rebuild``, ``compact`` and ``timings``.
    """
    check_device(device)
    run = rebuild(folder, model=model, data_dir=data_dir)
    store = run.store if out is None else RunStore(out)
    small = run.result.compact()
    with store.locked() if out is None else nullcontext():
        found = _measured(run, small, timed, threads, device)
        earlier = None if timed else earlier_times(store)
        kept = None if earlier is None else with_earlier_times(found, earlier)
        found = kept or found
        with _explained(out):
            store.write_tensors(store.compact_weights, *packed(run.result.model, small))
            files = {"dense": run.store.dense, "masked": run.store.sparse}
            found = _with_files(found, {**files, "compact": store.compact_weights})
            store.write_text(store.compact, found.model_dump_json(indent=1) + "\n")
        page = write_page(store, run.result.record) if out is None else None
    data, dropped = run.result.record.data, earlier is not None and kept is None
    return Compaction(small, data, found, store.compact_weights, store.compact, page, dropped)


@contextmanager
def _explained(out: Path | None) -> Iterator[None]:
    """Say which option chose the folder that can't be written to."""
    try:
        yield
    except RunFolderError as error:
        if out is None:
            raise
        raise RunFolderError(
            f"--out: can't write to '{out}': {error.__cause__ or error}. Expected a folder that "
            "can be written to, with room; choose another with --out"
        ) from error


def _with_files(found: Footprint, files: Mapping[str, Path]) -> Footprint:
    """Return the same with the sizes of the files that hold the networks."""
    networks = [
        one.model_copy(update={"file_bytes": files[one.network].stat().st_size})
        if one.network in files
        else one
        for one in found.networks
    ]
    return found.model_copy(update={"networks": tuple(networks)})


def _measured(
    run: Rebuilt, small: Compact, timed: bool, threads: Sequence[int], device: str
) -> Footprint:
    record, masked = run.result.record, run.result.model
    dense = _dense(run)
    # A dense network that was not trained to its end says nothing.
    measured = {} if record.dense.stopped_by is not None else _metrics(run, dense)
    networks: dict[NetworkKind, nn.Module] = {
        "dense": dense,
        "masked": masked,
        "compact": small.model,
    }
    metrics = {"masked": _metrics(run, masked), "compact": _metrics(run, small.model)}
    metrics["dense"] = measured
    batches = accepted(networks.values(), run.example_inputs, run.examples)
    batch = min(batches)
    rows = {
        kind: counted(
            kind,
            network,
            run.example_inputs,
            run.examples,
            single=batches[batch],
            metrics=metrics[kind],
        )
        for kind, network in networks.items()
    }
    rows["onnx"], other = _onnx(run, small.model, rows["compact"], batches)
    if timed:
        runs: dict[NetworkKind, nn.Module | Session] = {**networks}
        if other is not None and device == "cpu":
            runs["onnx"] = other.session
        elif other is not None:
            told = f"{rows['onnx'].missing}; it runs on the CPU, so its time is not compared"
            rows["onnx"] = rows["onnx"].model_copy(update={"missing": told})
        taken = timings(runs, run.example_inputs, run.examples, threads=threads, device=device)
        for kind, of_one in taken.items():
            rows[kind] = rows[kind].model_copy(update={"timings": of_one})
    outcome = run.result.outcome
    machine = {"versions": versions(), "hardware": hardware(torch.device(device))}
    return Footprint(
        networks=tuple(rows.values()),
        layers=_layers(masked, small),
        new_biases=tuple(sorted(small.new_biases)),
        main_metric=record.data.main_metric,
        measured_on=outcome.measured_on if run.task is not None else None,
        activation_batch=batch,
        inputs=_kinds_of(run.example_inputs),
        **machine,
        source_sha256=sha256_of((run.store.dense, run.store.sparse)),
        timed_with={"date": today(), **machine["versions"], **machine["hardware"]} if timed else {},
    )


def _onnx(
    run: Rebuilt, small: nn.Module, compact: NetworkFootprint, batches: Mapping[int, Inputs]
) -> tuple[NetworkFootprint, OnnxFile | None]:
    """Return what is known of the ONNX file of a run, and what runs it.

    The file is an extra: what fails with it is told in its row and stops nothing else.
    """
    found = onnx_file(run.store.compact_onnx, batches.values())
    if isinstance(found, str):
        return NetworkFootprint(network="onnx", missing=found), None
    try:
        with torch.no_grad(), evaluating(small), preserved_rng():
            output = call(small, run.example_inputs)
        parameters, nonzero = found.weights()
        row = NetworkFootprint(
            network="onnx",
            missing=_UNSEEN,
            metrics=_metrics(run, found.as_module(output)),
            parameters=parameters,
            nonzero=nonzero,
            multiply_adds=compact.multiply_adds,
            file_bytes=found.file.stat().st_size,
        )
    except Exception as error:
        missing = f"not measured: {cause_of(error)}"
        return NetworkFootprint(network="onnx", missing=missing), None
    return row, found


def _dense(run: Rebuilt) -> nn.Module:
    """Return the dense network: trained, or as it was given where pruning came first."""
    model = copy.deepcopy(run.result.model)
    Snapshot(run.store.read_tensors(run.store.dense)[0]).restore(model)
    return model


def _metrics(run: Rebuilt, model: nn.Module) -> dict[str, float]:
    """Return the metrics of a network on the examples that the outcome was measured on."""
    task, config = run.task, run.result.record.config
    if task is None:
        return {}
    loader = task.held_out_loader if task.test_loader is None else task.test_loader
    engine = Engine(ExecutionConfig(**config["execution"]))
    moved = copy.deepcopy(model).to(engine.device)
    with torch.no_grad(), evaluating(moved), preserved_rng():
        order = derive_seed(config["seed"], "evaluation")
        return dict(task.evaluate(moved, engine.loader(loader, order)).values)


def _layers(model: nn.Module, small: Compact) -> tuple[LayerSizes, ...]:
    return tuple(
        LayerSizes(
            name=layer.name,
            kind=layer.kind,
            before=layer.before,
            after=layer.after,
            outputs=_outputs(model, small.model, layer),
            reason=layer.reason,
        )
        for layer in small.report.layers
    )


def _outputs(model: nn.Module, small: nn.Module, layer: LayerReport) -> tuple[int, int] | None:
    """Return how many outputs a layer with weights has, before and after."""
    if "weight" not in layer.before:
        return None
    pairs = [(model.get_submodule(layer.name), layer.before["weight"])]
    pairs.append((small.get_submodule(layer.name), layer.after["weight"]))
    before, after = (_width(module, shape) for module, shape in pairs)
    return None if before is None or after is None else (before, after)


def _width(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    if isinstance(module, nn.Embedding):
        return shape[1]
    if layer_kind(module) is None:
        return None
    return weight_axes(module, ["weight"])["weight"].turned_shape(shape)[0]


def _kinds_of(inputs: Inputs) -> tuple[str, ...]:
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return tuple(f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in tensors)
