from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infcop.data.registry import DATA_SETS, available, load_set
from infcop.errors import ConfigError, MissingDataError

IDX_SETS = ["mnist", "fashion-mnist"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No data of the machine may decide a test."""
    monkeypatch.delenv("INFCOP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def placed(tmp_path, idx_folder):
    """Move the small IDX set to where a test wants it."""

    def place(folder: str) -> Path:
        files = [path for path in tmp_path.iterdir() if path.is_file()]
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.move(path, target / path.name)
        return target

    return place


def where(name: str, data_dir: Path | None = None) -> str | None:
    entries = {entry.name: entry.where for entry in available(data_dir and str(data_dir))}
    return entries[name]


@pytest.mark.parametrize(
    ("name", "folder"),
    [(name, folder) for name in IDX_SETS for folder in DATA_SETS[name].folders],
)
def test_every_customary_folder_is_found(tmp_path, placed, name, folder):
    target = placed(f"store/{folder}")
    data = load_set(name, str(tmp_path / "store"))
    assert (data.name, len(data.train), data.num_classes) == (name, 12, 10)
    assert where(name, tmp_path / "store") == str(target)


def test_the_folder_itself_may_hold_the_files(placed):
    target = placed("mine")
    assert len(load_set("mnist", str(target)).train) == 12
    assert len(load_set("fashion-mnist", str(target)).train) == 12


@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST/raw"])
def test_a_folder_of_one_set_never_passes_for_another(placed, folder):
    target = placed(folder)
    assert len(load_set("fashion-mnist", str(target)).train) == 12
    with pytest.raises(MissingDataError, match="'mnist' is not in"):
        load_set("mnist", str(target))


def test_the_environment_names_the_folder(tmp_path, placed, monkeypatch):
    placed("elsewhere/mnist")
    monkeypatch.setenv("INFCOP_DATA", str(tmp_path / "elsewhere"))
    assert len(load_set("mnist").train) == 12


def test_the_argument_goes_before_the_environment(tmp_path, placed, monkeypatch):
    placed("elsewhere/mnist")
    monkeypatch.setenv("INFCOP_DATA", str(tmp_path / "nowhere"))
    assert len(load_set("mnist", str(tmp_path / "elsewhere")).train) == 12


def test_without_both_it_is_the_folder_data(placed):
    placed("data/mnist")
    assert len(load_set("mnist").train) == 12


def test_cifar_in_its_customary_folder(tmp_path, cifar_arrays):
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    pixels, labels = cifar_arrays(3, seed=0)
    content = np.concatenate([labels[:, None], pixels], axis=1).tobytes()
    (folder / "data_batch_5.bin").write_bytes(content)
    assert where("cifar-10") is None
    (folder / "test_batch.bin").write_bytes(content)
    assert where("cifar-10") == "data/cifar-10-batches-bin"
    assert load_set("cifar-10").name == "cifar-10"


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "digits"])
def test_a_missing_set_says_what_to_put_where(tmp_path, name):
    data_set = DATA_SETS[name]
    with pytest.raises(MissingDataError) as caught:
        load_set(name, str(tmp_path / "store"))
    message = str(caught.value)
    for part in (name, data_set.files, data_set.published, "--data-dir", "INFCOP_DATA"):
        assert part in message
    assert str(tmp_path / "store" / data_set.folders[0]) in message


def test_a_set_found_in_part_says_what_it_lacks(tmp_path, placed):
    target = placed("data/mnist")
    (target / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingDataError, match=r"data/mnist lacks train-labels-idx1-ubyte\."):
        load_set("mnist")


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match="'mnits'; did you mean 'mnist'"):
        load_set("mnits")


def test_digits_need_no_folder():
    pytest.importorskip("sklearn", reason="needs scikit-learn, the extra 'demo'")
    assert len(load_set("digits", "no-such-folder").test) == 360
    assert where("digits") == "scikit-learn"


def test_every_known_set_is_listed_with_one_line():
    entries = available()
    assert [entry.name for entry in entries] == list(DATA_SETS)
    for entry in entries:
        assert entry.description
        assert "\n" not in entry.description
        assert entry.where is None or entry.name == "digits"


def test_readers_are_not_imported_for_the_list():
    program = (
        "import sys, infcop.data.registry as registry; registry.available(); "
        "print(sorted(name for name in sys.modules if name.startswith('infcop.data.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "infcop.data.idx" not in done.stdout
    assert "infcop.data.registry" in done.stdout


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar-10"])
def test_real_sets_are_found_by_name(real_data, name):
    folder = real_data("cifar-10-subset" if name == "cifar-10" else name)
    assert where(name, folder.parent) == str(folder)
    assert where(name, folder) == str(folder)
