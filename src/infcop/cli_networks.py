"""Commands on the networks of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from infcop.cli_options import AsJson, DataDir, Factory, Finished, Quiet
from infcop.errors import ConfigError

__all__ = ["compact", "export"]

_MOST_THREADS = 1024
"""More are no help on any machine, and PyTorch fails on numbers that are much larger."""


def compact(
    run: Finished,
    report: Annotated[
        bool, typer.Option("--report", help="Measure latency and throughput too.")
    ] = False,
    model: Factory = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the files; by default the run folder.", metavar="DIR"
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads",
            help="With --report: threads to measure with, as 1,4; by default 1 and all.",
            metavar="N",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="Where to measure: cpu, cuda or mps.", metavar="DEVICE")
    ] = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the smallest dense network that does the same as a sparse one, and measure it."""
    from infcop.terminal import terminal_progress

    counts = _counts(threads)
    if counts and not report:
        raise ConfigError(
            f"--threads: expected --report beside it, since nothing else is timed, got '{threads}' "
            "alone; add --report or leave --threads out"
        )
    with terminal_progress(quiet=quiet) as progress:
        if not quiet:
            progress.say("loading PyTorch and the data ...")
        from infcop.pipeline.compaction import compact_run

        done = compact_run(
            run,
            model=model,
            data_dir=data_dir,
            out=out,
            timed=report,
            threads=counts,
            device=device,
        )
    from infcop.report.footprint_tables import footprint_dict, footprint_lines

    places = {"weights": done.weights, "record": done.record, "page": done.page}
    written = {name: str(path) for name, path in places.items() if path is not None}
    if as_json:
        typer.echo(json.dumps({**footprint_dict(done.footprint), **written}))
        return
    lines = footprint_lines(done.footprint, done.data)
    if done.dropped:
        lines += [
            "",
            "Times that an earlier command measured were of other networks or by an older infcop, "
            "and are left out; --report measures them anew.",
        ]
    labels = {"weights": "Network", "record": "Numbers", "page": "Report"}
    lines += ["", *(f"{labels[name]}: {path}" for name, path in written.items())]
    typer.echo("\n".join(lines))


def export(
    run: Finished,
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            help="onnx, safetensors, sparse, torch-export or state-dict; several with commas.",
            metavar="FORMAT",
        ),
    ],
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="masked or compact; by default compact for onnx and torch-export.",
            metavar="WHICH",
        ),
    ] = None,
    model: Factory = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; by default export in the run folder.", metavar="DIR"),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights, for the manifest.", metavar="NAME"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the network of a finished run in formats that others read."""
    from infcop.terminal import terminal_progress

    with terminal_progress(quiet=quiet) as progress:
        if not quiet:
            progress.say("loading PyTorch and the data ...")
        from infcop.pipeline.export_run import export_run

        done = export_run(
            run, to, network=network, model=model, data_dir=data_dir, out=out, licence=licence
        )
    from infcop.pipeline.export_words import export_dict, export_lines

    typer.echo(json.dumps(export_dict(done)) if as_json else "\n".join(export_lines(done)))


def _counts(threads: str | None) -> tuple[int, ...]:
    if threads is None:
        return ()
    words = [word.strip() for word in threads.split(",")]
    # The length first: Python refuses to read numbers of thousands of digits.
    if not all(
        word.isdecimal() and len(word) < 6 and 0 < int(word) <= _MOST_THREADS for word in words
    ):
        raise ConfigError(
            "--threads: expected positive whole numbers with commas between, as 1,4, each at most "
            f"{_MOST_THREADS}, got '{threads:.80}'; give as many as the machine has"
        )
    return tuple(int(word) for word in words)
