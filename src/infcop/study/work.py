"""What a worker does: one run, from its settings to its rows."""

from __future__ import annotations

import warnings

from pydantic import Field

from infcop.core.records import RunRecord
from infcop.core.study import StudyFailure, StudyRow
from infcop.core.values import Value
from infcop.errors import InfcopError, InfcopWarning, RunFolderError
from infcop.pipeline.settings import differences, read_back, written
from infcop.study.jobs import Job
from infcop.study.rows import failures_of, rows_of

__all__ = ["Finished", "already_finished", "run_job"]


class Finished(Value):
    """What came of a run: rows, and what is missing."""

    job: Job
    rows: tuple[StudyRow, ...] = ()
    failures: tuple[StudyFailure, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, str] = Field(default_factory=dict)


def run_job(job: Job) -> Finished:
    """Run or continue a run; whatever goes wrong in it is part of the answer.

    Other processes import this module too, so PyTorch is imported here and not above.
    """
    try:
        from infcop.pipeline.workload import run_config

        with warnings.catch_warnings():
            # They are in the record, and so in the rows.
            warnings.simplefilter("ignore", InfcopWarning)
            result = run_config(job.config, run_dir=job.run_dir, dense_dir=job.dense_dir)
    except InfcopError as error:
        return Finished(job=job, failures=(job.failed(str(error)),))
    except Exception as error:
        # The other runs of the study know nothing of this one's trouble.
        return Finished(job=job, failures=(job.failed(f"{type(error).__name__}: {error}"),))
    return _finished(job, result.record)


def already_finished(job: Job) -> Finished | None:
    """Return what came of a run that was finished before, or ``None`` if it has work left.

    Raises:
        RunFolderError: The folder holds a run with other settings.
    """
    record = _stored(job)
    if record is None:
        return None
    if record.outcome is None and not record.dense.readings:
        return None  # a run that failed at once leaves a folder that any settings may take
    settings = written(job.config, job.config.model.name)
    if other := differences(record.config, settings):
        raise RunFolderError(
            f"'{job.run_dir}' holds a run with other settings: {'; '.join(other[:5])}. Give the "
            "same settings to go on with this study, or choose another folder with --out"
        )
    return None if record.outcome is None else _finished(job, record)


def _stored(job: Job) -> RunRecord | None:
    """Return the record of a run folder; a damaged or newer one is for the run itself to refuse."""
    try:
        text = (job.run_dir / "record.json").read_text(encoding="utf-8")
        record = RunRecord.model_validate_json(text)
        return record.model_copy(update={"config": read_back(record.config, job.config)})
    except (OSError, ValueError):
        return None


def _finished(job: Job, record: RunRecord) -> Finished:
    return Finished(
        job=job,
        rows=tuple(rows_of(job, record)),
        failures=tuple(failures_of(job, record)),
        versions=record.versions,
        hardware=record.hardware,
    )
