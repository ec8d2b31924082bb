"""Compare methods of every family, and scores and scopes within the search of infcop.

    python -m benchmarks.families            all of its comparisons, one after the other
    python -m benchmarks.families --summary  the tables and figures from the committed results
    python -m benchmarks.families --quick    those on the digits with one seed, small, a check

It takes about half an hour of one core. Interrupted, it goes on where it was, run by run. The
results are written after each comparison, to ``benchmarks/results`` unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import infcop
from benchmarks.common import data_dir, machine
from benchmarks.families.figures import figures, pooled_table
from benchmarks.stop_study.__main__ import shortened
from benchmarks.stop_study.figures import tables
from infcop.core.study import StudyResults
from infcop.study.configure import load_comparison, with_data_dir

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "families.json"
STUDIES = tuple(sorted(path.stem for path in HERE.glob("*.yaml")))
KINDS = ("methods", "scores")
"""Comparisons of a kind differ in the problem; later ones may have fewer methods."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.families")
    parser.add_argument("--summary", action="store_true", help="from the committed results")
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a check")
    parser.add_argument("--out", type=Path, help="result file; by default the committed one")
    parser.add_argument("--runs", type=Path, help="folder of the runs; by default studies/families")
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    options = parser.parse_args(argv)
    results = stored(options.out or RESULTS) if options.summary else _run(options)
    for kind in KINDS:
        found = of_kind(results, kind)
        if found:
            print(f"{kind}: accuracy in % (minus {found[0].config.baseline}) cost over dense\n")
            for one in found:
                print(tables(one), end="\n\n")
            print(f"means over densities\n\n{pooled_table(found)}\n")
    print(json.dumps(figures(results)))
    return 0


def of_kind(results: dict[str, StudyResults], kind: str) -> list[StudyResults]:
    """Return the comparisons of one kind."""
    return [found for study, found in results.items() if study.endswith(kind)]


def stored(path: Path) -> dict[str, StudyResults]:
    """Return the comparisons of a result file."""
    studies = json.loads(path.read_text(encoding="utf-8"))["studies"]
    return {study: StudyResults.model_validate(results) for study, results in studies.items()}


def _run(options: argparse.Namespace) -> dict[str, StudyResults]:
    folder = options.runs or Path("studies") / ("families-quick" if options.quick else "families")
    out = options.out or (None if options.quick else RESULTS)
    found = data_dir()
    done: dict[str, StudyResults] = {}
    for study in STUDIES:
        if options.quick and not study.startswith("digits"):
            continue
        config = load_comparison(HERE / f"{study}.yaml")
        if options.quick:
            config = shortened(config, passes=6)
            config = config.model_copy(update={"densities": config.densities[:1]})
        located = config if found is None else with_data_dir(config, str(found))
        results = infcop.compare(located, out=folder / study, workers=options.workers)
        # Where the data lie on this machine is nobody else's business.
        done[study] = results.model_copy(update={"config": config})
        if out is not None:
            _write(out, done)
    return done


def _write(out: Path, done: dict[str, StudyResults]) -> None:
    studies = {study: results.model_dump(mode="json") for study, results in done.items()}
    content: dict[str, Any] = {"command": "python -m benchmarks.families", **machine()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content | {"studies": studies}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
