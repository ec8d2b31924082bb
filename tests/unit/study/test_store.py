from __future__ import annotations

from pathlib import Path

import pytest

from infcop.errors import RunFolderError
from infcop.study.store import StudyStore
from tests.reference.studies import make_study


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    store, results = StudyStore(tmp_path), make_study()
    store.write_results(results)
    assert store.read_results() == results
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not the folder of a study: expected a file results.json"),
        ("{", "can't be read"),
        ('{"schema_version": 99}', "was written by a newer infcop"),
        ('{"rows": []}', "can't be read as results"),
        ("[]", "can't be read as results"),
    ],
)
def test_unreadable_results_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    store = StudyStore(tmp_path)
    if content is not None:
        store.results.write_text(content)
    with pytest.raises(RunFolderError, match=message):
        store.read_results()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(RunFolderError, match="choose another with --out"),
        StudyStore(tmp_path / "file").locked(),
    ):
        pass
