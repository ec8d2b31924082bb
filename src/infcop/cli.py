"""The command line. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from infcop.cli_networks import compact, export
from infcop.cli_options import AsJson, DataDir, Quiet, RunDir
from infcop.errors import InfcopError, InfcopWarning

if TYPE_CHECKING:
    from infcop.core.config import RunConfig
    from infcop.core.replay import Replay
    from infcop.core.study import StudyResults
    from infcop.data.registry import Availability

__all__ = ["app", "main"]

app = typer.Typer(
    help="Find sparse neural networks with little training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

study = typer.Typer(help="Study stop rules.", no_args_is_help=True)
app.add_typer(study, name="study")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"infcop {version('infcop')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(run_dir: RunDir = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Search on the embedded handwritten digits and write a report: takes seconds."""
    from infcop.pipeline.demo import demo_config

    _run(demo_config(), run_dir or Path("runs/demo"), quiet, as_json, "infcop demo")


@app.command()
def search(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Settings of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: training.lr=0.1"),
    ] = None,
    run_dir: RunDir = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search for a sparse network; goes on where the same command was interrupted."""
    from infcop.pipeline.configure import load_config

    words = [*(overrides or []), *([] if data_dir is None else [f"data.dir={data_dir}"])]
    settings = load_config(config, words)
    _run(settings, run_dir or Path("runs") / config.stem, quiet, as_json, "the same command")


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to compare.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; by default studies/NAME.", metavar="DIR"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", help="Runs side by side; by default one per CPU.", metavar="N", min=1
        ),
    ] = None,
    data_dir: DataDir = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write page and table anew, without any run.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods over seeds and settings, paired; goes on where it was interrupted."""
    from infcop.study.compare import compare, default_folder, report_again
    from infcop.study.configure import load_comparison, with_data_dir
    from infcop.study.store import StudyStore
    from infcop.terminal import terminal_progress

    folder = out or default_folder(config)
    if report_only:
        results = report_again(StudyStore(folder))
    else:
        settings = with_data_dir(load_comparison(config), data_dir)
        with _kept_on_interrupt(folder), terminal_progress(quiet=quiet) as progress:
            results = compare(settings, out=folder, workers=workers, progress=progress)
    _show_comparison(results, folder, as_json)


@study.command("replay")
def study_replay(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders with everything read at every reading."),
    ],
    rules: Annotated[
        Path | None,
        typer.Option("--rules", help="Rules to try; by default a catalogue.", metavar="FILE.yaml"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the page; by default studies/replay.", metavar="DIR"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Loss of the metric that counts as none; by default twice its noise.",
            metavar="X",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask of finished runs where stop rules would have stopped, without any training."""
    from infcop.report.replay_page import write_replay
    from infcop.study.replay import replay

    found = replay(runs, rules, tolerance=tolerance)
    page = write_replay(found, (out or Path("studies/replay")) / "replay.html")
    _show_replay(found, page, as_json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
) -> None:
    """Write the page of each run folder anew."""
    from infcop.pipeline.pages import write_page
    from infcop.pipeline.store import RunStore, load_record

    for run in runs:
        typer.echo(write_page(RunStore(run), load_record(run)))


@app.command()
def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A zoo name, timm:NAME, package.module:factory, or a finished run folder.",
        ),
    ],
    data_name: Annotated[
        str | None,
        typer.Option("--data", help="Data set, as listed by infcop data.", metavar="NAME"),
    ] = None,
    data_dir: DataDir = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Option of the model; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Trained weights, as safetensors.", metavar="FILE"),
    ] = None,
    examples: Annotated[
        int | None, typer.Option("--examples", help="Training examples to measure on.", metavar="N")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Per-batch gradients depend on it.", metavar="N"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of the weights and examples that are drawn.", metavar="N"),
    ] = None,
    edges: Annotated[
        str | None,
        typer.Option(
            "--edges", help="graph, main-path, or layers in a row: a,b,c.", metavar="EDGES"
        ),
    ] = None,
    gradient: Annotated[
        str | None, typer.Option("--gradient", help="full or per-batch.", metavar="HOW")
    ] = None,
    kinds: Annotated[
        str, typer.Option("--kinds", help="Kinds of flow to measure.", metavar="KINDS")
    ] = "information,gradient",
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Page to write; by default measure/NAME.html.", metavar="FILE"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show prunable layers, edges and flow of a model, without pruning it."""
    from infcop.pipeline.measure_settings import measure_settings, page_path
    from infcop.terminal import terminal_progress

    settings = measure_settings(
        data=data_name,
        data_dir=data_dir,
        examples=examples,
        batch_size=batch_size,
        seed=seed,
        edges=edges,
        gradient=gradient,
    )
    with terminal_progress(quiet=quiet) as progress:
        if not quiet:
            progress.say("loading PyTorch and the data ...")
        from infcop.pipeline.measure_named import measure_named

        words = [f"model.options.{word}" for word in option or []]
        wanted = [kind.strip() for kind in kinds.split(",")]
        found = measure_named(model, settings, words, weights=weights, kinds=wanted)
    page = found.write_html(html or page_path(model))
    if as_json:
        typer.echo(json.dumps({**json.loads(found.to_json()), "page": str(page)}))
    else:
        typer.echo(f"{found.summary()}\n\nPage: {page}")


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the named methods."""
    from infcop.methods import METHODS

    _table({name: method.summary for name, method in METHODS.items()}, as_json)


@app.command()
def data(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets, and which of them are there."""
    from infcop.data.registry import available

    def sentence(found: Availability) -> str:
        place = (
            f"found in {found.where}" if found.where else f"missing (published: {found.published})"
        )
        return f"{found.description}; {place}"

    _table({found.name: sentence(found) for found in available(data_dir)}, as_json)


app.command()(compact)
app.command()(export)


def main() -> NoReturn:
    """Run the command line; exit with 0, 2 for bad input, 3 for a run that failed midway."""
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="infcop")
    except InfcopError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


def _run(config: RunConfig, run_dir: Path, quiet: bool, as_json: bool, again: str) -> None:
    from infcop.terminal import terminal_progress

    with _resumable(run_dir, again), terminal_progress(quiet=quiet) as progress:
        if not quiet:
            progress.say("loading PyTorch and the data ...")
        from infcop.pipeline.workload import run_config

        result = run_config(config, run_dir=run_dir, progress=progress)
    from infcop.report.summary import summary_dict, summary_lines

    if as_json:
        facts = {**summary_dict(result.record), "run_dir": str(run_dir)}
        typer.echo(json.dumps(facts))
    else:
        lines = [*summary_lines(result.record), f"Report: {result.run_dir / 'report.html'}"]
        typer.echo("\n".join(lines))


def _show_replay(found: Replay, page: Path, as_json: bool) -> None:
    from infcop.report.replay_tables import replay_dict, replay_lines

    if as_json:
        typer.echo(json.dumps({**replay_dict(found), "page": str(page)}))
    else:
        typer.echo("\n".join([*replay_lines(found), f"Page: {page}"]))


def _show_comparison(results: StudyResults, folder: Path, as_json: bool) -> None:
    from infcop.report.compare_tables import comparison_lines

    page = str(folder / "compare.html")
    if as_json:
        parts = {"cells", "failures", "finished", "runs"}
        told = results.model_dump(mode="json", include=parts)
        typer.echo(json.dumps({**told, "out": str(folder), "page": page}))
    else:
        typer.echo("\n".join([*comparison_lines(results), f"Page: {page}"]))
    if results.failures:
        raise typer.Exit(3)


@contextmanager
def _kept_on_interrupt(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"interrupted. Finished runs and the checkpoints of the others are saved in {folder}; "
            "run the same command again to go on from there",
            err=True,
        )
        raise typer.Exit(_code_of(interrupt)) from None


@contextmanager
def _resumable(run_dir: Path, again: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        saved = (run_dir / "checkpoints" / "latest.safetensors").exists()
        kept = f"Everything up to the last checkpoint is saved in {run_dir}; " if saved else ""
        rest = "again to go on from there" if saved else "again to start anew"
        typer.echo(f"interrupted. {kept}run {again} {rest}", err=True)
        raise typer.Exit(_code_of(interrupt)) from None


def _code_of(interrupt: KeyboardInterrupt) -> int:
    return 143 if isinstance(interrupt, _Terminated) else 130


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which a batch system sends before it takes a machine away."""


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise _Terminated


def _table(rows: dict[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    width = max(map(len, rows))
    for name, text in rows.items():
        typer.echo(f"{name:<{width}}  {text}")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    if issubclass(category, InfcopWarning):
        typer.echo(f"warning: {message}", err=True)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
