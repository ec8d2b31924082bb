"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "DataDir", "Factory", "Finished", "Quiet", "RunDir"]

Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Run folder; by default runs/NAME.", metavar="DIR")
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="Folder of the data files; or set INFCOP_DATA.", metavar="DIR"),
]
Finished = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Factory = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="For a run from Python: package.module:factory, which returns model and task.",
        metavar="FACTORY",
    ),
]
