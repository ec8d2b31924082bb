"""Writing the network of a finished search in the formats that others read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from infcop.core.names import did_you_mean
from infcop.core.records import RunRecord
from infcop.errors import ConfigError, ExportError
from infcop.export.batches import described, on_cpu
from infcop.export.manifest import (
    FORMATS,
    DataOrigin,
    Densities,
    FileFacts,
    Format,
    Manifest,
    MeasuredMetrics,
    Network,
)
from infcop.export.onnx import OPSET, write_onnx
from infcop.export.programs import Program, capture, write_program
from infcop.export.sizes import size_table
from infcop.export.sparse_write import save_sparse
from infcop.export.tensors import Plain, plain
from infcop.export.weights import write_safetensors, write_state_dict
from infcop.export.writing import write_whole
from infcop.models.calling import Inputs
from infcop.pipeline.settings import MAY_CHANGE
from infcop.pipeline.surroundings import versions

__all__ = ["Exported", "Source", "export_files", "formats_of", "settings_sha256"]

_ENDINGS: dict[Format, str] = {
    "onnx": ".onnx",
    "safetensors": ".weights.safetensors",
    "sparse": ".sparse.safetensors",
    "torch-export": ".pt2",
    "state-dict": ".state.pt",
}
_PROGRAMS: tuple[Format, ...] = ("onnx", "torch-export")


@dataclass(frozen=True)
class Exported:
    """One file that was written.

    Attributes:
        path: The file.
        manifest: Where it comes from; the JSON beside it.
        manifest_path: That JSON.
    """

    path: Path
    manifest: Manifest
    manifest_path: Path


@dataclass(frozen=True, eq=False)
class Source:
    """What there is to export.

    Attributes:
        record: Of the finished search.
        masked: The network of full size, with zeros.
        compact: Makes the smaller one.
        inputs: Example inputs, where they are known.
        examples: How many examples they hold, where that is known.
        data_sha256: Hash of the data set, where it is known.
    """

    record: RunRecord
    masked: nn.Module
    compact: Callable[[], nn.Module]
    inputs: Inputs | None
    examples: int | None = None
    data_sha256: str | None = None


def export_files(
    source: Source,
    to: str | Sequence[str],
    folder: Path,
    *,
    network: str | None = None,
    licence: str | None = None,
) -> tuple[Exported, ...]:
    """Write a network in one or several formats, each with its manifest beside it.

    Args:
        source: What there is to export.
        to: Formats, in a list or with commas between.
        folder: Where to.
        network: ``masked`` or ``compact``; by default the compact one as ONNX and as a program of
            ``torch.export``, and the masked one as weights.
        licence: Of the weights, for the manifest.

    Raises:
        ConfigError: A format or the network is unknown.
        ExportError: A format needs example inputs and none are known, the network can't be
            exported, or a file can't be written.
        CollapseError: The network can't be made smaller.
    """
    wanted = formats_of(to)
    if network is not None and network not in ("masked", "compact"):
        raise ConfigError(
            f"export: no network {network!r}; {did_you_mean(network, ['masked', 'compact'])}"
        )
    chosen = {name: network or ("compact" if name in _PROGRAMS else "masked") for name in wanted}
    if source.inputs is None and any(
        name in _PROGRAMS or kind == "compact" for name, kind in chosen.items()
    ):
        raise ExportError(
            "export: expected example inputs, got none: programs and compact networks are made by "
            "running the network. Pass example_inputs=(x,), with a batch x, or export the masked "
            "network as sparse, safetensors or state-dict"
        )
    done: dict[Format, Exported] = {}
    for kind in ("masked", "compact"):
        formats = [name for name in wanted if chosen[name] == kind]
        if formats:
            done |= _of_one_network(source, kind, formats, folder, licence)
    return tuple(done[name] for name in wanted)


def formats_of(to: str | Sequence[str]) -> tuple[Format, ...]:
    """Return the formats that words name, each once.

    Raises:
        ConfigError: A word names none, or there is no word.

    Example:
        >>> formats_of(["onnx,sparse", "onnx"])
        ('onnx', 'sparse')
    """
    lines = [to] if isinstance(to, str) else list(to)
    words = [word.strip() for line in lines for word in line.split(",")]
    known: dict[str, Format] = {name: name for name in FORMATS}
    for word in words or [""]:
        if word not in known:
            raise ConfigError(f"export: no format {word!r}; {did_you_mean(word, FORMATS)}")
    return tuple(dict.fromkeys(known[word] for word in words))


def settings_sha256(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings; where data lies and what computes don't count.

    Example:
        >>> one, other = ({"seed": 1, "data": {"dir": folder}} for folder in ("a", "b"))
        >>> settings_sha256(one) == settings_sha256(other)
        True
    """
    kept = {
        key: {k: v for k, v in value.items() if f"{key}.{k}" not in MAY_CHANGE}
        if isinstance(value, Mapping)
        else value
        for key, value in config.items()
    }
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_one_network(
    source: Source, kind: Network, formats: Sequence[Format], folder: Path, licence: str | None
) -> dict[Format, Exported]:
    model = source.masked if kind == "masked" else source.compact()
    found = plain(model.state_dict(), "export")
    inputs = None if source.inputs is None else on_cpu(source.inputs)
    manifest = _manifest(source, kind, model, found, inputs, licence)
    program = None
    if inputs is not None and set(formats) & set(_PROGRAMS):
        program = capture(model, inputs, source.examples)
    done: dict[Format, Exported] = {}
    for name in formats:
        path = folder / f"{kind}{_ENDINGS[name]}"
        facts = _write(name, path, found, program, manifest)
        told = manifest.model_copy(update={"file": facts})
        beside = path.with_name(f"{path.name}.json")
        _write_text(beside, f"{told.model_dump_json(indent=1)}\n")
        done[name] = Exported(path, told, beside)
    return done


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda place: place.write_bytes(text.encode()))


def _write(
    name: Format, path: Path, found: Plain, program: Program | None, manifest: Manifest
) -> FileFacts:
    facts: dict[str, Any] = {}
    if name == "safetensors":
        write_safetensors(found, path, manifest)
    elif name == "state-dict":
        write_state_dict(found, path)
    elif name == "sparse":
        named = {**found.tensors, **{n: found.tensors[to] for n, to in found.tied.items()}}
        save_sparse(named, path, meta=manifest.model_dump(mode="json"))
    else:
        assert program is not None
        write = write_onnx if name == "onnx" else write_program
        checked = write(program, path, manifest)
        facts = {"checked_on": checked.batches, "difference": checked.difference}
        facts["batch"] = "any" if program.fixed_batch is None else program.fixed_batch
        facts["opset"] = OPSET if name == "onnx" else None
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return FileFacts(name=path.name, format=name, bytes=len(content), sha256=digest, **facts)


def _manifest(
    source: Source,
    kind: Network,
    model: nn.Module,
    found: Plain,
    inputs: Inputs | None,
    licence: str | None,
) -> Manifest:
    record, outcome, config = source.record, source.record.outcome, source.record.config
    assert outcome is not None  # a result is made of a finished run
    pruned = outcome.prunable - outcome.kept
    data = record.data
    return Manifest(
        network=kind,
        model=record.model.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        method=config["method"]["name"],
        settings_sha256=settings_sha256(config),
        seed=config["seed"],
        density=Densities(
            asked=config["density"],
            asked_in=config.get("density_in", "parameters"),
            prunable=outcome.density,
            all=1 - pruned / record.model.parameters,
        ),
        data=DataOrigin(
            name=data.name,
            sha256=source.data_sha256,
            train=data.train,
            held_out=data.held_out,
            test=data.test,
            split=data.split,
        ),
        metrics=MeasuredMetrics(
            measured_on=outcome.measured_on, dense=outcome.dense, sparse=outcome.sparse
        ),
        licence=licence,
        versions={**versions(), **_installed(("onnx", "onnxscript", "onnxruntime"))},
        inputs=() if inputs is None else described(inputs),
        sizes=size_table(found),
        tied=found.tied,
    )


def _installed(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
