"""From a finished run to its compact network, its numbers and its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import infcop
from infcop.core.footprint import Footprint, NetworkFootprint
from infcop.errors import (
    CollapseError,
    ConfigError,
    DataError,
    ExportError,
    ModelError,
    RunFolderError,
)
from infcop.models.flops import multiply_adds
from infcop.pipeline.compaction import compact_run
from infcop.pipeline.earlier_times import with_earlier_times
from infcop.pipeline.export_run import export_run
from infcop.pipeline.footprints import accepted, counted, timings
from infcop.pipeline.onnx_file import onnx_file
from infcop.pipeline.pages import load_footprint
from infcop.pipeline.rebuild import rebuild
from infcop.pipeline.store import RunStore
from tests.reference.footprints import make_footprint, make_timings
from tests.reference.pages import Page

FACTORIES = """
import torch
from torch import nn
from infcop import Classification


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))


def batches(seed, count):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(20, 6, generator=generator) for _ in range(count)]
    return [(x, (x[:, 0] > 0).long()) for x in inputs]


def task():
    return Classification(batches(0, 4), batches(1, 2), batches(2, 2))


def with_task():
    return net(), task()


def with_inputs():
    return net(), (torch.randn(5, 6),)


def by_keyword():
    return net(), {"input": torch.randn(5, 6)}


def net_only():
    return net()


def inputs_only():
    return torch.randn(5, 6), (torch.randn(5, 6),)


def wider():
    return nn.Sequential(nn.Linear(6, 13), nn.ReLU(), nn.Linear(13, 2)), (torch.randn(5, 6),)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return {"logits": self.inner(x)}


class NamedTask(Classification):
    def training_step(self, model, batch):
        return super().training_step(lambda x: model(x)["logits"], batch)

    def evaluate(self, model, loader):
        class Logits(nn.Module):
            def forward(self, x):
                return model(x)["logits"]

        return super().evaluate(Logits(), loader)


def named():
    return Named(), NamedTask(batches(0, 4), batches(1, 2), batches(2, 2))


class Five(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return self.inner(x.reshape(5, 6))


def other_data():
    return net(), Classification(batches(0, 4), batches(1, 2), batches(2, 3))


def failing():
    raise OSError("no file")


def needing(width):
    return net(), (torch.randn(5, 6),)
"""

SETTINGS = {
    "density": 0.2,
    "method": {"name": "lth", "schedule": {"kind": "fraction", "remove": 0.6}},
    "dense": {"passes": 3},
    "levels": {"max_passes": 1},
    "final": {"passes": 1},
    "execution": {"device": "cpu", "threads": 1},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[infcop.Result]:
    """A search that was given its model from Python."""
    folder = tmp_path_factory.mktemp("compaction")
    (folder / "compaction_factories.py").write_text(FACTORIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import compaction_factories as factories

        yield infcop.search(factories.net(), factories.task(), run_dir=folder / "run", **SETTINGS)


@pytest.fixture
def folder(finished: infcop.Result, tmp_path: Path) -> Path:
    """A copy of the run folder, which a test may change."""
    shutil.copytree(finished.run_dir, tmp_path / "run")
    return tmp_path / "run"


def factory(name: str) -> str:
    return f"compaction_factories:{name}"


def test_a_result_is_made_smaller_with_the_inputs_it_remembers(finished: infcop.Result) -> None:
    assert finished.example_inputs[0].shape == (16, 6)
    small = finished.compact()
    assert type(small.model) is nn.Sequential
    assert small.report.parameters_after <= small.report.parameters_before
    inputs = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(small.model(inputs), finished.model(inputs), atol=1e-5)
    assert torch.allclose(finished.compact((inputs,)).model(inputs), finished.model(inputs))


def test_without_inputs_a_result_asks_for_them(finished: infcop.Result) -> None:
    bare = infcop.Result(finished.model, RunStore(finished.run_dir), finished.record)
    with pytest.raises(CollapseError, match=r"expected example inputs, got none.*example_inputs\)"):
        bare.compact()


def test_files_and_numbers_of_a_run(folder: Path) -> None:
    done = compact_run(folder, model=factory("with_task"))
    found = done.footprint
    assert found == load_footprint(RunStore(folder))
    dense, masked, compact, onnx = found.networks
    record = infcop.load_record(folder)
    assert record.outcome is not None
    assert dense.metrics == record.outcome.dense
    assert masked.metrics == record.outcome.sparse
    assert compact.metrics["accuracy"] == masked.metrics["accuracy"]
    assert found.measured_on == "test"
    assert dense.parameters == masked.parameters == 12 * 7 + 8 * 13 + 2 * 9
    assert dense.multiply_adds == masked.multiply_adds == 12 * 6 + 8 * 12 + 2 * 8
    model = done.compact.model
    assert compact.parameters == sum(one.numel() for one in model.parameters())
    assert compact.multiply_adds == multiply_adds(model, (torch.ones(3, 6),)).total
    assert masked.nonzero <= masked.parameters - record.outcome.prunable + record.outcome.kept
    assert dense.activation_bytes == 2 * 12 * 4
    for network, file in ((dense, "checkpoints/dense"), (compact, "export/compact")):
        assert network.file_bytes == (folder / f"{file}.safetensors").stat().st_size
    assert onnx.missing is not None
    assert not any(network.timings for network in found.networks)
    assert found.inputs == ("float32 (16, 6)",)
    assert [(x.name, x.outputs[0]) for x in found.layers] == [("0", 12), ("2", 8), ("4", 2)]
    assert "A smaller network" in Page((folder / "report.html").read_text("utf-8")).text


def test_the_weights_are_plain_and_load_again(folder: Path) -> None:
    done = compact_run(folder, model=factory("with_inputs"))
    assert done.weights == folder / "export" / "compact.safetensors"
    plain = done.compact.model.state_dict()
    stored = load_file(done.weights)
    assert stored.keys() == plain.keys()
    fresh = rebuild(folder, model=factory("with_inputs")).result.model
    loaded = infcop.load_compact(fresh, done.weights).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.items())


def test_without_a_task_there_is_no_accuracy(folder: Path) -> None:
    for name in ("with_inputs", "by_keyword"):
        found = compact_run(folder, model=factory(name)).footprint
        assert found.measured_on is None
        assert all(network.metrics == {} for network in found.networks)
        assert found.networks[0].multiply_adds == 184


def test_the_same_again_gives_the_same_bytes(folder: Path) -> None:
    files = ("compact.json", "export/compact.safetensors", "report.html")
    seen = []
    for _ in range(2):
        compact_run(folder, model=factory("with_task"))
        seen.append([(folder / name).read_bytes() for name in files])
    assert seen[0] == seen[1]


def test_timings_of_every_network_batch_and_number_of_threads(folder: Path) -> None:
    before = torch.get_num_threads()
    found = compact_run(folder, model=factory("with_inputs"), timed=True, threads=(1,)).footprint
    for network in found.networks[:3]:
        assert [(t.batch, t.threads) for t in network.timings] == [(1, 1), (64, 1)]
        assert all(t.repeats >= 9 and t.lower <= t.median <= t.upper for t in network.timings)
    assert torch.get_num_threads() == before
    text = Page((folder / "report.html").read_text("utf-8")).text
    assert "measured speed-up" in text


def test_times_stay_where_the_networks_are_the_same(folder: Path) -> None:
    options = {"model": factory("with_task")}
    first = compact_run(folder, timed=True, threads=(1,), **options)
    again = compact_run(folder, **options)
    assert again.footprint == first.footprint == load_footprint(RunStore(folder))
    assert not again.dropped
    told = again.footprint.timed_with
    assert date.fromisoformat(told["date"])
    assert (told["torch"], told["device"]) == (
        again.footprint.versions["torch"],
        again.footprint.hardware["device"],
    )
    text = Page((folder / "report.html").read_text("utf-8")).text
    assert "How fast they are" in text
    assert f"Times were measured on {told['date']}, on {told['device']}" in text
    assert not compact_run(folder, timed=True, threads=(1,), **options).dropped


def test_kept_times_tell_of_the_machine_that_measured_them(folder: Path) -> None:
    options = {"model": factory("with_inputs")}
    done = compact_run(folder, timed=True, threads=(1,), **options)
    elsewhere = {"date": "2001-02-03", "device": "another", "torch": "0.1"}
    found = done.footprint.model_copy(update={"timed_with": elsewhere})
    done.record.write_text(found.model_dump_json())
    again = compact_run(folder, **options).footprint
    assert again.timed_with == elsewhere
    assert again.hardware == done.footprint.hardware
    text = Page((folder / "report.html").read_text("utf-8")).text
    assert "Times were measured on 2001-02-03, on another, with torch 0.1." in text


@pytest.mark.parametrize(
    "changes",
    [{"source_sha256": "0" * 64}, {"source_sha256": None}, {"layers": ()}, {"inputs": ()}],
)
def test_times_of_another_network_go(folder: Path, changes: dict[str, Any]) -> None:
    options = {"model": factory("with_inputs")}
    done = compact_run(folder, timed=True, threads=(1,), **options)
    done.record.write_text(done.footprint.model_copy(update=changes).model_dump_json())
    again = compact_run(folder, **options)
    assert again.dropped
    assert not any(network.timings for network in again.footprint.networks)
    assert again.footprint.timed_with == {}


def test_a_search_with_other_weights_has_another_digest(folder: Path) -> None:
    store, options = RunStore(folder), {"model": factory("with_inputs")}
    first = compact_run(folder, timed=True, threads=(1,), **options)
    tensors, meta = store.read_tensors(store.sparse)
    store.write_tensors(store.sparse, {name: 2 * value for name, value in tensors.items()}, meta)
    again = compact_run(folder, **options)
    assert again.footprint.layers == first.footprint.layers
    assert again.dropped


def test_what_can_not_be_read_holds_no_times(folder: Path) -> None:
    (folder / "compact.json").write_text("{")
    assert not compact_run(folder, model=factory("with_inputs")).dropped
    assert load_footprint(RunStore(folder)) is not None


def test_the_time_of_an_onnx_file_stays_while_the_file_does() -> None:
    onnx = NetworkFootprint(
        network="onnx", missing="no activations", parameters=9, nonzero=8, file_bytes=100
    )
    new = make_footprint(timed=False, source_sha256="a")
    old = make_footprint(source_sha256="a", timed_with={"date": "2001-02-03"})
    new, whole = (
        one.model_copy(update={"networks": (*one.networks[:3], onnx)}) for one in (new, old)
    )
    told = "no activations; it runs on the CPU"
    timed = onnx.model_copy(update={"timings": make_timings(0.5), "missing": told})
    before = old.model_copy(update={"networks": (*old.networks[:3], timed)})
    assert with_earlier_times(new, before) == before
    other = timed.model_copy(update={"file_bytes": 101})
    for earlier in (old.model_copy(update={"networks": (*old.networks[:3], other)}), old):
        found = with_earlier_times(new, earlier)
        assert found is not None
        assert found.networks[:3] == whole.networks[:3]
        assert not found.networks[3].timings
        assert "no activations; its time was not measured with" in str(found.networks[3].missing)
    gone = make_footprint(timed=False, source_sha256="a")
    found = with_earlier_times(gone, before)
    assert found is not None
    assert found.networks[3] == gone.networks[3]


def test_networks_of_other_programs_are_timed_with_the_others() -> None:
    seen: list[tuple[int, int]] = []

    def session(threads: int):
        return lambda tensors: seen.append((threads, len(tensors[0])))

    options = {"threads": (2, 1, 2), "repeats": 2, "seconds": 0.0}
    networks = {"dense": nn.Linear(3, 2).eval(), "onnx": session}
    found = timings(networks, (torch.ones(4, 3),), 4, **options)
    expected = [(1, 1), (1, 2), (64, 1), (64, 2)]
    assert [(t.batch, t.threads) for t in found["onnx"]] == expected
    assert list(dict.fromkeys(seen)) == [(threads, batch) for batch, threads in expected]


def test_inputs_that_cannot_be_resized_are_timed_as_they_are() -> None:
    class Fixed(nn.Module):
        def forward(self, x):
            return x + 1

    options = {"threads": (1,), "repeats": 2, "seconds": 0.0}
    found = timings({"dense": Fixed()}, (torch.ones(7, 3),), 5, **options)
    assert [t.batch for t in found["dense"]] == [5]


def test_files_elsewhere_leave_the_run_as_it_is(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = compact_run(folder, model=factory("with_task"), out=tmp_path / "out")
    assert done.page is None
    assert done.record == tmp_path / "out" / "compact.json"
    assert Footprint.model_validate_json(done.record.read_text()) == done.footprint
    assert done.weights.is_file()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_onnx_file_that_does_not_run_is_no_reason_to_fail(tmp_path: Path) -> None:
    inputs = (torch.ones(2, 3),)
    assert "not exported yet" in onnx_file(tmp_path / "x.onnx", [inputs])
    (tmp_path / "x.onnx").write_bytes(b"no network")
    assert str(onnx_file(tmp_path / "x.onnx", [inputs])).startswith("not measured: onnx: ")


def test_an_onnx_file_is_measured_like_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rebuild(folder, model=factory("with_task")).result.model

    def session(path: Path, threads: int):
        assert path == folder / "export" / "compact.onnx"
        return lambda tensors: [model(*tensors)]

    weights = [torch.tensor([[0.0, 2.0]]), torch.ones(3)]
    monkeypatch.setattr("infcop.pipeline.onnx_file.onnx_session", session)
    monkeypatch.setattr("infcop.pipeline.onnx_file.onnx_weights", lambda path: weights)
    (folder / "export").mkdir()
    (folder / "export" / "compact.onnx").write_bytes(b"12345")
    options = {"model": factory("with_task"), "timed": True, "threads": (1,)}
    _, masked, compact, onnx = compact_run(folder, **options).footprint.networks
    assert onnx.missing is not None
    assert onnx.missing.startswith("activations are not measured, since onnxruntime")
    assert onnx.metrics == masked.metrics
    assert onnx.file_bytes == 5
    assert (onnx.parameters, onnx.nonzero) == (5, 4)
    assert onnx.multiply_adds == compact.multiply_adds
    assert onnx.activation_bytes is None
    assert [(t.batch, t.threads) for t in onnx.timings] == [(1, 1), (64, 1)]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (None, RunFolderError, "given its model and data from Python.*expected --model"),
        ("net_only", ModelError, "it returned Sequential$"),
        ("inputs_only", ModelError, "it returned Tensor and tuple$"),
        ("wider", ModelError, "another model than what 'compaction_factories:wider' returns"),
        ("other_data", DataError, "run on other data: expected 40 test examples, got 60; give"),
        ("failing", ModelError, "failed when called with .*OSError: no file"),
        ("needing", ConfigError, "can't be called with .*width"),
        ("none", ConfigError, "nothing callable named 'none'"),
    ],
)
def test_a_run_from_python_needs_the_right_factory(folder, name, error, message) -> None:
    with pytest.raises(error, match=message):
        compact_run(folder, model=None if name is None else factory(name))


def test_runs_that_are_not_there_or_not_finished(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        compact_run(tmp_path / "none")
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "outcome": None}))
    with pytest.raises(RunFolderError, match="a search that is not finished"):
        compact_run(folder, model=factory("with_task"))


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--device: expected a device of this machine, got 'abc'"):
        compact_run(folder, model=factory("with_task"), device="abc")


def test_damaged_numbers_are_explained(folder: Path) -> None:
    cases = {
        '{"networks": 3}': "it has no schema_version. Write it again with 'infcop compact",
        "[]": "it has no schema_version",
        '{"schema_version": true}': "it has no schema_version",
        '{"schema_version": 1, "networks": 3}': "is damaged: ",
        "{": "can't be read",
        '{"schema_version": 2, "networks": [], "layers": []}': (
            "written by a newer infcop .version 2, this one reads up to 1.; upgrade infcop"
        ),
    }
    for text, told in cases.items():
        (folder / "compact.json").write_text(text)
        with pytest.raises(RunFolderError, match=told):
            load_footprint(RunStore(folder))


def test_an_onnx_file_keeps_the_structure_of_the_outputs(tmp_path: Path, finished) -> None:
    import compaction_factories as factories

    infcop.search(*factories.named(), run_dir=tmp_path / "run", **SETTINGS)
    export_run(tmp_path / "run", "onnx", model=factory("named"))
    found = compact_run(tmp_path / "run", model=factory("named")).footprint
    _, _, compact, onnx = found.networks
    assert onnx.metrics == pytest.approx(compact.metrics)
    assert (onnx.parameters, onnx.nonzero) == (compact.parameters, compact.nonzero)


def test_a_failure_of_the_onnx_row_stops_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "infcop.pipeline.onnx_file.onnx_session", lambda path, threads: lambda tensors: []
    )
    monkeypatch.setattr("infcop.pipeline.onnx_file.onnx_weights", lambda path: [])
    (folder / "export").mkdir()
    (folder / "export" / "compact.onnx").write_bytes(b"12345")
    found = compact_run(folder, model=factory("with_task"), timed=True, threads=(1,)).footprint
    missing = found.networks[3].missing
    assert missing is not None
    assert "not measured: ExportError: onnx: expected 1 tensors, as the network gives" in missing
    assert found.networks[2].timings
    assert not found.networks[3].timings


def test_a_network_of_one_batch_size_is_measured_on_its_own(finished) -> None:
    import compaction_factories as factories

    model, inputs = factories.Five().eval(), (torch.randn(5, 6),)
    assert list(accepted([model, factories.net()], inputs, 5)) == [5]
    assert list(accepted([factories.net()], inputs, 5)) == [1, 64]
    assert list(accepted([], inputs, 5)) == [1, 64]
    options = {"threads": (1,), "repeats": 2, "seconds": 0.0}
    assert [t.batch for t in timings({"dense": model}, inputs, 5, **options)["dense"]] == [5]
    row = counted("dense", model, inputs, 5, single=inputs, metrics={})
    assert row.activation_bytes == 5 * 2 * 12 * 4
    assert row.multiply_adds == 184


def test_nothing_is_written_where_measuring_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ModelError("no")

    monkeypatch.setattr("infcop.pipeline.compaction.counted", fails)
    with pytest.raises(ModelError, match="no"):
        compact_run(folder, model=factory("with_task"))
    assert not (folder / "export").exists()


def test_a_folder_that_cannot_be_written_to_names_its_option(folder: Path) -> None:
    with pytest.raises(RunFolderError, match=r"^--out: can't write to .*choose another with --out"):
        compact_run(folder, model=factory("with_inputs"), out=folder / "record.json")


def test_a_run_folder_that_can_not_be_written_to_names_what_helps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = r"choose another (folder )?with --out FOLDER"
    options = {"model": factory("with_inputs")}
    commands = [
        lambda **where: compact_run(folder, **options, **where),
        lambda **where: export_run(folder, "sparse", **options, **where),
    ]

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for number, command in enumerate(commands):
        with RunStore(folder).locked():
            with pytest.raises(RunFolderError, match=f"in use by another process.*{option}"):
                command()
            assert command(out=tmp_path / f"locked-{number}")
        with monkeypatch.context() as patch:
            patch.setattr("infcop.pipeline.store.FileLock.acquire", read_only)
            with pytest.raises(RunFolderError, match=f"Permission denied.*{option}"):
                command()
            assert command(out=tmp_path / f"read-only-{number}")


def test_a_file_in_the_place_of_exports_names_what_helps(folder: Path, tmp_path: Path) -> None:
    (folder / "export").write_text("in the way")
    options = {"model": factory("with_inputs")}
    with pytest.raises(RunFolderError, match=r"File exists.*choose another with --out FOLDER"):
        compact_run(folder, **options)
    with pytest.raises(ExportError, match=r"File exists.*choose another with --out"):
        export_run(folder, "sparse", **options)
    assert compact_run(folder, **options, out=tmp_path / "out").weights.is_file()
    (done,) = export_run(folder, "sparse", **options, out=tmp_path / "out")
    assert done.path.is_file()
    assert (folder / "export").read_text() == "in the way"


def test_layers_of_transformers_hide_no_activations() -> None:
    """Twice the inner width is seen: before the activation function and behind it."""
    sizes = []
    for width in (512, 1024):
        layer = nn.TransformerEncoderLayer(8, 2, width, batch_first=True).eval()
        row = counted("dense", layer, (torch.ones(3, 5, 8),), 3, single=(torch.ones(1, 5, 8),),
                      metrics={})  # fmt: skip
        sizes.append(row.activation_bytes)
    assert sizes[1] - sizes[0] == 2 * 5 * 512 * 4
