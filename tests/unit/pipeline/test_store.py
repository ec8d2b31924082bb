from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import infcop
from infcop.core.config import RunConfig
from infcop.core.records import SCHEMA_VERSION
from infcop.errors import RunFolderError
from infcop.methods import resolve_method
from infcop.pipeline.store import RunStore, load_record
from tests.reference.records import make_record

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "column": torch.arange(6.0).view(2, 3).t(),
    "mask": torch.tensor([True, False]),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "step": torch.tensor(3),
    "empty": torch.zeros(0, 4),
}


def files_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def config(**changes) -> dict:
    settings = RunConfig(method=resolve_method("lth")).model_dump(mode="json")
    for key, value in changes.items():
        *path, last = key.split("__")
        node = settings
        for part in path:
            node = node[part]
        node[last] = value
    return settings


def settings(**changes) -> RunConfig:
    return RunConfig.model_validate(config(**changes))


# -- writing ------------------------------------------------------------------------------------


def test_nothing_is_made_before_something_is_written(tmp_path) -> None:
    RunStore(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_tensors_come_back_as_they_were(tmp_path) -> None:
    store = RunStore(tmp_path / "a" / "b")
    meta = {"place": [1, 0.1], "none": None, "nan": float("inf"), "text": "é"}
    store.write_tensors(store.latest, TENSORS, meta)
    tensors, read = store.read_tensors(store.latest)
    assert read == meta
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert files_in(store.root) == {"checkpoints/latest.safetensors"}


def test_parameters_are_written_without_their_graph(tmp_path) -> None:
    store = RunStore(tmp_path)
    layer = torch.nn.Linear(2, 2)
    store.write_tensors(store.dense, dict(layer.named_parameters()))
    tensors, meta = store.read_tensors(store.dense)
    assert torch.equal(tensors["weight"], layer.weight)
    assert not tensors["weight"].requires_grad
    assert meta == {}


def test_what_is_read_is_a_copy(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.write_tensors(store.latest, TENSORS)
    store.read_tensors(store.latest)[0]["weight"].zero_()
    assert torch.equal(store.read_tensors(store.latest)[0]["weight"], TENSORS["weight"])


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.write_tensors(store.latest, TENSORS, {"place": 1})
    before = store.latest.read_bytes()
    with pytest.raises(TypeError):
        store.write_tensors(store.latest, TENSORS, {"place": object()})
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        store.write_tensors(store.latest, {"a": shared, "b": shared})
    assert store.latest.read_bytes() == before
    assert files_in(tmp_path) == {"checkpoints/latest.safetensors"}


def test_an_unwritable_text_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.write_text(store.report, "old")
    with pytest.raises(UnicodeEncodeError):
        store.write_text(store.report, "new \ud800")
    assert store.report.read_text() == "old"
    assert files_in(tmp_path) == {"report.html"}


def test_a_reader_that_holds_the_old_file_keeps_it(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.write_text(store.report, "old")
    with store.report.open() as reader:
        store.write_text(store.report, "a much longer text than before")
        assert reader.read() == "old"
    assert store.report.read_text() == "a much longer text than before"


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.write_text(store.report, "é\r\n\n")
    assert store.report.read_bytes() == b"\xc3\xa9\r\n\n"


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_files_are_as_open_as_others_of_the_user(tmp_path) -> None:
    store = RunStore(tmp_path)
    before = os.umask(0o027)
    try:
        store.write_tensors(store.latest, TENSORS)
        store.write_text(store.report, "page")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (store.latest, store.report)} == {0o640}


def test_the_log_grows_by_a_line_per_event(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.append_log("started", seed=0)
    store.append_log("level", level=1, density=0.5)
    events = [json.loads(line) for line in store.log.read_text().splitlines()]
    assert [event.pop("time") > 0 for event in events] == [True, True]
    assert events == [
        {"event": "started", "seed": 0},
        {"event": "level", "level": 1, "density": 0.5},
    ]


@pytest.mark.parametrize("inside", ["run", "run/below"])
def test_a_file_in_the_place_of_the_folder_is_explained(tmp_path, inside) -> None:
    (tmp_path / "run").write_text("in the way")
    store = RunStore(tmp_path / inside)
    message = r"can't write '.*run.*': .*\. Expected a folder that can be written to, with room; "
    with pytest.raises(RunFolderError, match=message), store.locked():
        pass
    with pytest.raises(RunFolderError, match=message):
        store.write_text(store.report, "page")
    with pytest.raises(RunFolderError, match=message):
        store.append_log("started")
    assert (tmp_path / "run").read_text() == "in the way"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_explained(tmp_path) -> None:
    tmp_path.chmod(0o500)
    store = RunStore(tmp_path / "run")
    try:
        with pytest.raises(RunFolderError, match="Permission denied"), store.locked():
            pass
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
def test_a_full_disk_is_explained(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.log.symlink_to("/dev/full")
    with pytest.raises(RunFolderError, match="No space left on device"):
        store.append_log("started")


@pytest.fixture
def small_files():
    """Let no file of this process grow beyond a kilobyte, as a full disk would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_do_not_fit_leave_the_old_ones_whole(tmp_path, small_files) -> None:
    store = RunStore(tmp_path)
    store.write_tensors(store.latest, {"a": torch.ones(9)})
    store.write_text(store.report, "old")
    message = "can't write '.*': .*File too large.*Files already there are whole"
    with pytest.raises(RunFolderError, match=message):
        store.write_tensors(store.latest, {"a": torch.ones(9000)})
    with pytest.raises(RunFolderError, match=message):
        store.write_text(store.report, "new" * 9000)
    assert store.read_tensors(store.latest)[0]["a"].tolist() == [1] * 9
    assert store.report.read_text() == "old"
    assert files_in(tmp_path) == {"checkpoints/latest.safetensors", "report.html"}


# -- locking ------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from infcop.pipeline.store import RunStore
with RunStore(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds the lock of ``tmp_path / 'run'``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(infcop.__file__).parents[1])},
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_until_the_first_one_dies(tmp_path, holder) -> None:
    store = RunStore(tmp_path / "run")
    leftover = store.root / "checkpoints" / f".latest.safetensors.{holder.pid}.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half a fi")
    message = "is in use by another process; wait for it, or choose another folder with --run-dir"
    with pytest.raises(RunFolderError, match=message), store.locked():
        pass
    assert leftover.exists(), "the other process may be writing it"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.locked():
        assert files_in(store.root) <= {".lock"}


def test_a_lock_can_be_taken_again_and_is_given_back_after_an_exception(tmp_path) -> None:
    store = RunStore(tmp_path / "run")
    with store.locked():
        pass
    with pytest.raises(KeyError), store.locked():
        raise KeyError
    with (
        store.locked(),
        pytest.raises(RunFolderError, match="in use"),
        RunStore(store.root).locked(),
    ):
        pass
    with RunStore(store.root).locked():
        pass


def test_only_temporary_files_are_cleared_away(tmp_path) -> None:
    store = RunStore(tmp_path)
    kept = {"report.html", "ticket/masks.safetensors", ".hidden", "notes.tmp"}
    gone = {".report.html.1.tmp", "ticket/.masks.safetensors.22.tmp"}
    for name in kept | gone:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    with store.locked():
        assert files_in(tmp_path) - {".lock"} == kept


# -- reading ------------------------------------------------------------------------------------


def damaged(content: bytes, how: str) -> bytes:
    return {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "cut in the header": content[:5],
        "other bytes": b"\xff" * len(content),
        "no infcop file": content.replace(b"infcop", b"foreign"),
        "long header": (2**62).to_bytes(8, "little") + content[8:],
    }[how]


@pytest.mark.parametrize(
    "how", ["cut", "empty", "cut in the header", "other bytes", "no infcop file", "long header"]
)
def test_a_damaged_checkpoint_is_refused(tmp_path, how) -> None:
    store = RunStore(tmp_path)
    store.write_tensors(store.latest, TENSORS, {"place": 1})
    store.latest.write_bytes(damaged(store.latest.read_bytes(), how))
    message = r"latest\.safetensors' can't be read .*; expected a file that infcop wrote"
    with pytest.raises(RunFolderError, match=message):
        store.read_tensors(store.latest)


def test_a_missing_checkpoint_is_refused(tmp_path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(RunFolderError, match=r"rewind\.safetensors' can't be read"):
        store.read_tensors(store.rewind)


def test_metadata_that_is_no_json_is_refused(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.write_tensors(store.latest, {}, {"place": 1})
    broken = store.latest.read_bytes().replace(b"place", b"pl\\ce")
    store.latest.write_bytes(broken)
    with pytest.raises(RunFolderError, match="can't be read"):
        store.read_tensors(store.latest)


def test_a_record_comes_back_from_the_folder(tmp_path) -> None:
    record = make_record()
    RunStore(tmp_path).write_record(record)
    assert load_record(tmp_path) == record
    assert load_record(str(tmp_path)) == record


def test_a_folder_without_a_record_is_no_run_folder(tmp_path) -> None:
    message = "is not a run folder: expected a file record.json in it"
    with pytest.raises(RunFolderError, match=message):
        load_record(tmp_path)
    with pytest.raises(RunFolderError, match=message):
        load_record(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b'{"schema_version": 1', "can't be read"),
        (b"\xff\xfe", "can't be read"),
        (b"[]", "is not a run record: it has no schema_version"),
        (b"{}", "is not a run record: it has no schema_version"),
        (b'{"schema_version": "1"}', "is not a run record: it has no schema_version"),
        (b'{"schema_version": 1}', "is damaged"),
        (b'{"schema_version": 1, "levels": 3}', "is damaged"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, content, message) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=message):
        load_record(tmp_path)


def test_a_folder_in_the_place_of_the_record_is_refused(tmp_path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(RunFolderError, match="can't be read"):
        load_record(tmp_path)


def test_a_newer_record_is_refused_with_the_remedy(tmp_path) -> None:
    newer = make_record().model_copy(update={"schema_version": SCHEMA_VERSION + 1})
    RunStore(tmp_path).write_record(newer)
    message = (
        rf"was written by a newer infcop \(record version {SCHEMA_VERSION + 1}, this one reads "
        rf"up to {SCHEMA_VERSION}\); upgrade infcop to read it"
    )
    with pytest.raises(RunFolderError, match=message):
        load_record(tmp_path)


# -- claiming -----------------------------------------------------------------------------------


def begun(root: Path) -> RunStore:
    """Return the store of a run that has saved something."""
    store = RunStore(root)
    store.write_tensors(store.latest, {})
    return store


def test_the_settings_are_written_once_and_recognised(tmp_path) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    before = store.config.read_bytes()
    assert yaml.safe_load(before) == config()
    store.claim(settings(), "net")
    assert store.config.read_bytes() == before


def test_written_settings_are_settings_again(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.claim(settings(), "net")
    content = yaml.safe_load(store.config.read_text())
    assert RunConfig.model_validate(content).model_dump(mode="json") == config()


def test_a_folder_in_which_nothing_was_saved_yet_may_get_other_settings(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.claim(settings(density=0.5), "net")
    store.claim(settings(), "net")
    assert yaml.safe_load(store.config.read_text()) == config()


def test_other_settings_are_refused_naming_what_differs(tmp_path) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    other = settings(density=0.5, training__lr=0.2, method__rewind__to="none")
    message = (
        "holds a run with other settings: density is 0.05 there, 0.5 now; "
        "method.rewind.to is 'initialisation' there, 'none' now; "
        "training.lr is 0.05 there, 0.2 now. Give the same settings to continue it"
    )
    with pytest.raises(RunFolderError, match=message):
        store.claim(other, "net")
    assert yaml.safe_load(store.config.read_text()) == config()


def test_a_long_list_of_differences_is_cut(tmp_path) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    other = settings(
        seed=2,
        density=0.2,
        training__lr=0.2,
        training__momentum=0.2,
        dense__passes=2,
        levels__max_passes=2,
        final__passes=2,
    )
    with pytest.raises(RunFolderError) as caught:
        store.claim(other, "net")
    assert str(caught.value).count(" there, ") == 5
    assert "; ..." in str(caught.value)


def test_where_it_computes_and_where_the_data_lies_may_change(tmp_path) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    moved = {"execution__threads": 3, "execution__checkpoint_seconds": 0, "data__dir": "elsewhere"}
    store.claim(settings(**moved), "net")
    with pytest.raises(RunFolderError, match=r"data\.name is 'digits' there, 'mnist' now"):
        store.claim(settings(data__dir="elsewhere", data__name="mnist"), "net")
    with pytest.raises(RunFolderError, match=r"execution\.precision is '32-true' there"):
        store.claim(settings(execution__precision="bf16-mixed"), "net")


def test_a_setting_that_did_not_exist_then_has_its_default(tmp_path) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    older = config()
    del older["levels"]["max_levels"]
    store.write_text(store.config, yaml.safe_dump(older))
    store.claim(settings(), "net")
    with pytest.raises(RunFolderError, match=r"levels\.max_levels is 100 there, 9 now"):
        store.claim(settings(levels__max_levels=9), "net")


@pytest.mark.parametrize("content", ["", "[]", "words", "density: 0.05\n", "a: {b: 1}\n"])
def test_what_are_no_settings_is_refused(tmp_path, content) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    store.write_text(store.config, content)
    with pytest.raises(RunFolderError, match="can't be read as settings"):
        store.claim(settings(), "net")


def test_a_foreign_config_is_left_alone(tmp_path) -> None:
    store = RunStore(tmp_path)
    store.config.write_text("# mine\nlr: 1\n")
    with pytest.raises(RunFolderError, match="was there before any run"):
        store.claim(settings(), "net")
    assert store.config.read_text() == "# mine\nlr: 1\n"


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00"])
def test_settings_that_are_no_yaml_are_refused(tmp_path, content) -> None:
    store = begun(tmp_path)
    store.claim(settings(), "net")
    store.config.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"config\.yaml' can't be read"):
        store.claim(settings(), "net")
