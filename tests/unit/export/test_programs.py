"""Captured programs, as ONNX and as PyTorch's own: they do what the network does."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from infcop.errors import ExportError
from infcop.export import onnx as onnx_files
from infcop.export.batches import batch_size, described, on_cpu, tensors_of
from infcop.export.compared import agreement, difference
from infcop.export.onnx import OPSET, onnx_session, write_onnx
from infcop.export.programs import Program, capture, quiet, write_program
from infcop.models.batches import resized
from infcop.models.calling import call
from tests.reference.export import same_bits
from tests.reference.export_networks import (
    Bessel,
    Branch,
    FixedBatch,
    Words,
    convolutions,
    manifest,
)

IMAGES = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)),)
WORDS = {"scale": torch.tensor([1.0, 2.0]), "words": torch.tensor([[1, 2, 3], [4, 5, 6]])}


@pytest.fixture(scope="module")
def program() -> Program:
    return capture(convolutions(), IMAGES)


@pytest.fixture(scope="module")
def folder(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both forms of one program; writing them takes a while."""
    folder = tmp_path_factory.mktemp("programs")
    for write, name in ((write_onnx, "net.onnx"), (write_program, "net.pt2")):
        found = write(program, folder / name, manifest(licence="MIT"))
        assert found.batches == (2, 5)
        assert found.difference < 2e-6
    assert sorted(p.name for p in folder.iterdir()) == ["net.onnx", "net.pt2"]
    return folder


def test_both_forms_do_what_the_network_does(folder: Path) -> None:
    given: Any = resized(IMAGES, 2, 11)
    expected = convolutions().eval()(*given)
    (found,) = onnx_session(folder / "net.onnx", threads=2)(given)
    assert difference(found, expected) < 2e-6
    assert torch.allclose(torch.export.load(folder / "net.pt2").module()(*given), expected)


def test_keywords_ties_and_several_outputs(tmp_path: Path) -> None:
    model = Words().train()
    before = copy.deepcopy(model.state_dict())
    program = capture(model, WORDS)
    assert program.fixed_batch is None
    for write, name in ((write_onnx, "net.onnx"), (write_program, "net.pt2")):
        found = write(program, tmp_path / name, manifest())
        assert found.batches == (2, 5)
        assert found.difference < 2e-6
    assert model.training
    assert same_bits(model.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    run = onnx_session(tmp_path / "net.onnx")
    given: Any = resized(WORDS, 2, 4)
    expected = tensors_of(call(copy.deepcopy(model).eval(), given))
    for own, other in zip(run(tuple(tensors_of(given))), expected, strict=True):
        assert difference(own, other) < 2e-6


def test_positional_inputs_need_no_default(tmp_path: Path) -> None:
    program = capture(Words(), (WORDS["words"], WORDS["scale"]))
    assert write_program(program, tmp_path / "net.pt2", manifest()).batches == (2, 5)


def test_an_onnx_file_says_what_it_is(folder: Path) -> None:
    model = onnx.load(folder / "net.onnx")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {p.key: json.loads(p.value) for p in model.metadata_props} == {
        "infcop": json.loads(manifest(licence="MIT").model_dump_json())
    }
    shapes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 1, 8, 8], ["batch", 3]]
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_a_program_says_what_it_is(folder: Path) -> None:
    extra = {"infcop.json": ""}
    torch.export.load(folder / "net.pt2", extra_files=extra)
    assert json.loads(extra["infcop.json"])["licence"] == "MIT"


def test_again_the_same_bytes_nothing_said_and_no_place_of_this_machine(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = capture(convolutions(), IMAGES)
    write_onnx(program, tmp_path / "net.onnx", manifest(licence="MIT"))
    write_program(program, tmp_path / "net.pt2", manifest(licence="MIT"))
    assert capfd.readouterr() == ("", "")
    for name in ("net.onnx", "net.pt2"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    contents = [(folder / "net.onnx").read_bytes()]
    with zipfile.ZipFile(folder / "net.pt2") as file:
        contents += [file.read(name) for name in file.namelist()]
    places = (str(Path(__file__).parents[1]).encode(), b"site-packages", str(folder).encode())
    assert [place for place in places if any(place in content for content in contents)] == []


def test_the_process_leaves_no_trace_in_a_program(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for number in (111, 77_777):
        monkeypatch.setattr("os.getpid", lambda number=number: number)
        write_program(program, tmp_path / "net.pt2", manifest())
        written.append((tmp_path / "net.pt2").read_bytes())
    assert written[0] == written[1]


class Shifted(nn.Module):
    """A second input that has no examples, and as many entries as any batch may have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, shift: Tensor, x: Tensor) -> Tensor:
        return self.linear(x) + shift.sum()


def test_the_number_of_examples_says_which_sizes_are_free(tmp_path: Path) -> None:
    inputs = (torch.randn(3, 2), torch.randn(7, 4))
    program = capture(Shifted(), inputs, examples=7)
    assert (program.fixed_batch, program.examples) == (None, 7)
    assert write_program(program, tmp_path / "net.pt2", manifest()).batches == (7, 15)
    shapes = [
        [isinstance(size, int) for size in node.meta["val"].shape]
        for node in program.exported.graph.nodes
        if node.op == "placeholder" and node.name in program.exported.graph_signature.user_inputs
    ]
    assert shapes == [[True, True], [False, True]]


def test_logging_is_as_before() -> None:
    for level in (logging.NOTSET, logging.WARNING):
        logging.disable(level)
        with pytest.raises(KeyError), quiet():
            raise KeyError
        assert logging.root.manager.disable == level
    logging.disable(logging.NOTSET)


def test_one_example_is_enough_for_any_batch(tmp_path: Path) -> None:
    program = capture(convolutions(), (IMAGES[0][:1],))
    assert program.fixed_batch is None
    assert write_program(program, tmp_path / "net.pt2", manifest()).batches == (1, 3)


def test_a_network_may_take_one_batch_size_only_and_float64(tmp_path: Path) -> None:
    program = capture(FixedBatch().double(), (torch.randn(4, 6).double(),))
    assert program.fixed_batch == 4
    assert write_program(program, tmp_path / "net.pt2", manifest()).batches == (4,)
    found = write_onnx(program, tmp_path / "net.onnx", manifest())
    assert found.batches == (4,)
    assert found.difference < 1e-12
    run = onnx_session(tmp_path / "net.onnx")
    assert run((torch.randn(4, 6).double(),))[0].dtype == torch.float64
    with pytest.raises(ExportError, match="onnxruntime can't run it"):
        run((torch.randn(5, 6).double(),))
    with pytest.raises(ExportError, match=r"expected 1 tensors \(x\), got 2"):
        run((torch.randn(4, 6), torch.randn(4, 6)))


def test_a_network_with_a_branch_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"can't be captured by torch\.export: .*data-dependent"):
        capture(Branch(), IMAGES)
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_onnx_has_not_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=r"no translation for the operator prims\.bessel_j0\."):
        write_onnx(capture(Bessel(), IMAGES), tmp_path / "net.onnx", manifest())
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ExportError, match="expected inputs that the network can be called with"):
        capture(convolutions(), (torch.randn(2, 3),))
    with pytest.raises(ExportError, match=r"got Tensor; for a single argument give \(x,\)"):
        on_cpu(torch.ones(2))
    with pytest.raises(ExportError, match="at least one tensor among the example inputs"):
        on_cpu({"x": 3})


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = convolutions()
    model.lock = (word for word in "ab")  # type: ignore[assignment]
    with pytest.raises(ExportError, match=r"copy\.deepcopy can copy"):
        capture(model, IMAGES)


def test_a_program_that_does_something_else_is_not_kept(
    folder: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(program.model)
    with torch.no_grad():
        other.get_parameter("6.bias").add_(1)
    changed = dataclasses.replace(program, model=other)
    translated = onnx.load(folder / "net.onnx")
    del translated.metadata_props[:]
    monkeypatch.setattr(onnx_files, "_translated", lambda _: translated)
    for write in (write_onnx, write_program):
        with pytest.raises(
            ExportError, match=r"differs from the network by \d\.\d+ of the largest"
        ):
            write(changed, tmp_path / "net.pt2", manifest())
    assert list(tmp_path.iterdir()) == []


def test_an_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = capture(convolutions(), IMAGES)
    for name in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            told = rf"{name} is not installed; run: pip install 'infcop\[export\]'"
            with pytest.raises(ExportError, match=told):
                write_onnx(program, tmp_path / "net.onnx", manifest())
    with pytest.raises(ExportError, match="onnxruntime can't load"):
        onnx_session(tmp_path / "nowhere.onnx")


def test_what_one_file_cannot_hold_is_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "_MOST_BYTES", 100)
    with pytest.raises(
        ExportError, match=r"the weights take [\d,]+ bytes, and a file can hold 100"
    ):
        write_onnx(program, tmp_path / "net.onnx", manifest())


# -- comparing -----------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([-4.0, 0.0], [-4.0, 1.0], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.5], [0.0], 0.5),
        ([], [], 0.0),
        ([INF, NAN, 2.0], [INF, NAN, 2.0], 0.0),
        ([INF], [-INF], INF),
        ([INF], [NAN], INF),
        ([1.0], [NAN], INF),
        ([NAN], [1.0], INF),
    ],
)
def test_differences(found: list[float], expected: list[float], apart: float) -> None:
    for dtype in (torch.float32, torch.float64):
        assert difference(torch.tensor(found, dtype=dtype), torch.tensor(expected)) == apart


def test_outputs_of_another_number_or_shape_are_refused() -> None:
    model = nn.Linear(2, 3).eval()
    inputs = (torch.ones(4, 2),)
    wrong: tuple[Callable[[Any], list[Tensor]], ...] = (
        lambda given: [],
        lambda given: [model(*given)[:, :2]],
        lambda given: [model(*given)] * 2,
    )
    for run in wrong:
        with pytest.raises(ExportError, match=r"gives outputs of shapes .*batch of 4"):
            agreement(run, model, inputs, examples=4, any_batch=False)
    found = agreement(lambda given: [model(*given)], model, inputs, examples=4, any_batch=True)
    assert (found.batches, found.difference) == ((4, 9), 0.0)


def test_inputs_are_described_by_name_type_and_shape() -> None:
    inputs = {"x": torch.arange(6).view(3, 2), "more": [torch.ones(()), 4]}
    assert batch_size(inputs) == 3
    assert batch_size((torch.tensor(1.0),)) is None
    told = [(one.name, one.dtype, one.shape) for one in described(inputs)]
    assert sorted(told) == [("more.0", "float32", ()), ("x", "int64", (3, 2))]
    assert [one.name for one in described(IMAGES)] == ["0"]
