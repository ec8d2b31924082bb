"""Compare infcop with full retraining, with a fixed budget of equal cost and with its rivals.

    python -m benchmarks.stop_study main      the comparison on the development settings
    python -m benchmarks.stop_study apart     on a model and data that nothing was chosen on
    python -m benchmarks.stop_study rivals    other methods, on the cheaper settings
    python -m benchmarks.stop_study --summary the figures from the committed results

A study runs for hours; interrupted, it goes on where it was, run by run. At its end it writes its
results to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import infcop
from benchmarks.common import data_dir, machine
from benchmarks.stop_study.apart_data import write_cora
from benchmarks.stop_study.figures import figures, tables
from infcop.core.compare import CompareConfig
from infcop.core.study import StudyResults
from infcop.study.configure import load_comparison, with_data_dir

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
STUDIES = tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.stop_study")
    parser.add_argument("study", nargs="?", choices=STUDIES, default="main")
    parser.add_argument("--summary", action="store_true", help="from the committed results")
    parser.add_argument("--quick", action="store_true", help="one setting and seed, small, a check")
    parser.add_argument("--out", type=Path, help="result file; by default that of the study")
    parser.add_argument("--runs", type=Path, help="folder of the runs; by default studies/STUDY")
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    options = parser.parse_args(argv)
    if not options.summary:
        _run(options)
    stored = {study: _stored(_file(study)) for study in STUDIES if _file(study).exists()}
    if options.quick and options.out:
        stored = {options.study: _stored(options.out)}
    for study, results in stored.items():
        print(
            f"{study}: accuracy in % (minus {results.config.baseline}) cost over dense training\n"
        )
        print(tables(results), end="\n\n")
    print(json.dumps(figures(stored.get("main"), stored.get("apart"))))
    return 0


def _file(study: str) -> Path:
    return RESULTS / f"stop_study_{study}.json"


def _run(options: argparse.Namespace) -> None:
    config = named = load_comparison(HERE / f"{options.study}.yaml")
    folder = options.runs or Path("studies") / (options.study + ("-quick" if options.quick else ""))
    found = data_dir()
    if found is not None:
        config = with_data_dir(config, str(found))
    if options.study == "apart":
        if found is None:
            sys.exit("the study apart needs the real data sets: set INFCOP_DATA to their folder")
        write_cora(found / "cora", folder / "data")
        config = _with_words(config, folder / "data")
    if options.quick:
        config, named = shortened(config), shortened(named)
    results = infcop.compare(config, out=folder, workers=options.workers)
    out = options.out or (None if options.quick else _file(options.study))
    if out is not None:
        command = f"python -m benchmarks.stop_study {options.study}"
        content: dict[str, Any] = {"command": command, **machine()}
        # Where the data lie on this machine is nobody else's business.
        kept = results.model_copy(update={"config": named})
        content |= {"results": json.loads(kept.model_dump_json())}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _with_words(config: CompareConfig, folder: Path) -> CompareConfig:
    """Return the comparison with the words of Cora in the place of MNIST."""
    words = config.settings["cora-words"]
    data = words.data.model_copy(update={"dir": str(folder)})
    moved = {**config.settings, "cora-words": words.model_copy(update={"data": data})}
    return config.model_copy(update={"settings": moved})


def shortened(config: CompareConfig, passes: int = 4) -> CompareConfig:
    """Return the first setting with one seed and a few passes, for a check."""
    label, setting = next(iter(config.settings.items()))
    small = setting.model_copy(
        update={
            "dense": setting.dense.model_copy(update={"passes": passes}),
            "levels": setting.levels.model_copy(update={"max_passes": passes, "unit": passes}),
            "final": setting.final.model_copy(update={"passes": 2}),
        }
    )
    return config.model_copy(update={"seeds": (0,), "settings": {label: small}})


def _stored(path: Path) -> StudyResults:
    return StudyResults.model_validate(json.loads(path.read_text(encoding="utf-8"))["results"])


if __name__ == "__main__":
    sys.exit(main())
