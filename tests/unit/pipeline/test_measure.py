from __future__ import annotations

import copy
import json
import random
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import infcop
from infcop.core.measurement import Pooling
from infcop.errors import (
    ConfigError,
    DataError,
    FlowError,
    InfcopError,
    ModelError,
    NoEffectWarning,
)
from infcop.pipeline.measurement import Measurement
from tests.reference.flow import slow_correlation

EXAMPLES, CLASSES = 40, 3


def data(seed: int = 0, examples: int = EXAMPLES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, 1, 6, 6, generator=generator)
    return inputs, torch.randint(CLASSES, (examples,), generator=generator)


def batches(size: int = 16, **options: int) -> list[tuple[Tensor, Tensor]]:
    inputs, labels = data(**options)
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def task(loader: Any = None, probe: Any = None) -> infcop.Classification:
    return infcop.Classification(loader or batches(), batches(), probe_loader=probe)


class Residual(nn.Module):
    """A sum, an in-place activation, batch normalisation, dropout, and a layer without use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, CLASSES)
        self.spare = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        x = x + self.block(x)
        return self.head(self.drop(x.mean(dim=(2, 3))))


def residual(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    return Residual()


def state(model: nn.Module) -> dict[str, Any]:
    """Return everything that a measurement has to leave as it is."""
    return {
        "tensors": {name: t.clone() for name, t in model.state_dict().items()},
        "gradients": {
            name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
        },
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: [len(getattr(module, key)) for key in vars(module) if key.endswith("_hooks")]
            for name, module in model.named_modules()
        },
        "generators": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
        "threads": torch.get_num_threads(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# -- what is found -------------------------------------------------------------------------------


def test_layers_edges_and_parameters_of_a_residual_model() -> None:
    record = infcop.measure(residual(), task()).record
    assert [layer.name for layer in record.layers] == ["stem", "block", "head"]
    assert [edge.ends for edge in record.edges] == [
        ("stem", "block"),
        ("stem", "head"),
        ("block", "head"),
    ]
    stem, block, head = record.layers
    assert (stem.kind, stem.shape, stem.parameter) == ("Conv2d", (4, 1, 3, 3), "stem.weight")
    assert stem.pooling == block.pooling == (Pooling(averaged=(2, 3)),)
    assert head.pooling == (Pooling(),)
    assert (block.units, head.units) == (4, CLASSES)
    assert {layer.calls for layer in record.layers} == {1}
    assert [edge.widths for edge in record.edges] == [(4, 4), (4, CLASSES), (4, CLASSES)]
    assert [edge.channels for edge in record.edges] == [((0, 4),)] * 3
    assert record.unused == ("spare",)
    assert record.excluded["stem.bias"] == "bias"
    assert record.excluded["norm.weight"] == "normalisation"
    assert record.parameters == sum(p.numel() for p in Residual().parameters())
    assert record.prunable == 36 + 144 + 12 + 4
    assert (record.model, record.data, record.examples) == ("Residual", "custom", EXAMPLES)
    assert (record.gradient, record.selection, record.warnings) == ("full", "graph", ())


def test_the_flow_is_that_of_the_definition() -> None:
    model = residual().double().eval()
    inputs, labels = data()
    doubled = infcop.Classification([(inputs.double(), labels)], batches())
    measured = infcop.measure(model, doubled, matrices=True)
    stem = model.stem(inputs.double())
    x = functional.relu(model.norm(stem))
    found = {"stem": stem.mean((2, 3)), "block": model.block(x).mean((2, 3))}
    found["head"] = model(inputs.double())
    for edge in measured.edges:
        one, other = (found[name].detach().numpy() for name in edge.ends)
        expected = slow_correlation(one, other)
        np.testing.assert_allclose(measured.matrix(edge.ends).numpy(), expected, atol=1e-9)
        assert edge.signed == pytest.approx(expected.mean(), abs=1e-9)
        assert edge.absolute == pytest.approx(np.abs(expected).mean(), abs=1e-9)
        shares = np.linalg.svd(expected, compute_uv=False)
        shares = shares / shares.sum()
        rank = np.exp(-(shares * np.log(shares)).sum())
        assert edge.effective_rank == pytest.approx(rank, rel=1e-6)
        assert edge.signed_error is not None
        assert 0 < edge.signed_error < 0.5
    loss = functional.cross_entropy(model(inputs.double()), labels)
    gradients = torch.autograd.grad(loss, [model.stem.weight, model.block.weight])
    for layer, gradient in zip(measured.layers, gradients, strict=False):
        assert layer.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-9)
        assert layer.gradient_mean == pytest.approx(float(gradient.abs().mean()), rel=1e-9)


def test_zeros_and_dead_units_are_counted() -> None:
    model = residual()
    with torch.no_grad():
        model.stem.weight[:2] = 0
        model.stem.bias[:2] = 0
    stem, block, _ = infcop.measure(model, task()).layers
    assert (stem.density, stem.dead_units) == (0.5, 2)
    assert (block.density, block.dead_units) == (1.0, 0)


def test_pruned_entries_do_not_count_in_the_gradient() -> None:
    model = residual()
    masks = {
        f"{name}.weight": torch.ones_like(module.weight, dtype=torch.bool)
        for name, module in model.named_children()
        if name in ("stem", "block", "head", "spare")
    }
    masks["block.weight"][:] = False
    open_, masked = (
        infcop.measure(model, task(), masks=mask).layers for mask in (None, infcop.Masks(masks))
    )
    assert masked[0] == open_[0]
    assert open_[1].gradient_norm
    assert masked[1].gradient_norm == 0


def test_a_tied_weight_is_pruned_under_one_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[3].weight = model[2].weight
    model.append(nn.Linear(6, CLASSES))
    measured = infcop.measure(model, task())
    assert [layer.parameter for layer in measured.layers] == [
        "1.weight",
        "2.weight",
        "2.weight",
        "4.weight",
    ]
    assert measured.layers[1].gradient_norm == measured.layers[2].gradient_norm
    assert measured.record.prunable == 36 * 6 + 36 + 18


def test_a_layer_called_again_says_so() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Linear(36, 5), nn.Linear(5, 5)
            self.last = nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x.flatten(1)).relu()
            return self.last(self.again(self.again(x).relu()).relu())

    measured = infcop.measure(Twice(), task())
    assert measured.record.called_more_than_once == ("again",)
    assert {edge.ends: edge.calls for edge in measured.edges} == {
        ("first", "again"): ((0, 0),),
        ("again", "again"): ((0, 1),),
        ("again", "last"): ((1, 0),),
    }
    assert all(edge.signed is not None for edge in measured.edges)
    assert "Called more than once: again." in measured.summary()


def test_sequences_are_pooled_over_their_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 5), nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(x.squeeze(1)).relu().mean(dim=1))

    mix, head = infcop.measure(Tokens(), task()).layers
    assert mix.pooling == (Pooling(averaged=(1,)),)
    assert head.pooling == (Pooling(),)


# -- what is asked for ---------------------------------------------------------------------------


def test_one_kind_alone() -> None:
    flow = infcop.measure(residual(), task(), kinds=["information"])
    assert flow.record.gradient is None
    assert {layer.gradient_norm for layer in flow.layers} == {None}
    assert all(edge.signed is not None for edge in flow.edges)
    gradient = infcop.measure(residual(), task(), kinds=["gradient"])
    assert all(layer.gradient_norm is not None for layer in gradient.layers)
    assert {layer.dead_units for layer in gradient.layers} == {None}
    assert len(gradient.edges) == 3
    assert {edge.signed for edge in gradient.edges} == {None}


def test_named_edges_and_the_main_path() -> None:
    named = infcop.measure(residual(), task(), edges=["stem", "head"])
    assert [edge.ends for edge in named.edges] == [("stem", "head")]
    assert named.record.selection == ("stem", "head")
    path = infcop.measure(residual(), task(), edges="main-path")
    assert [edge.ends for edge in path.edges] == [("stem", "block"), ("block", "head")]
    shortcut = {edge.ends: edge for edge in infcop.measure(residual(), task()).edges}
    assert named.edges[0].signed == pytest.approx(shortcut["stem", "head"].signed, abs=1e-12)
    assert named.edges[0].channels == ((0, 4),)


def test_standard_errors_can_be_left_out() -> None:
    measured = infcop.measure(residual(), task(), standard_errors=False)
    assert {edge.signed_error for edge in measured.edges} == {None}


def test_per_batch_gradients_differ() -> None:
    full, per_batch = (
        infcop.measure(residual(), task(), gradient=how).layers for how in ("full", "per-batch")
    )
    assert per_batch[0].gradient_norm > full[0].gradient_norm


def test_whole_batches_are_taken_until_there_are_enough_examples() -> None:
    assert infcop.measure(residual(), task(), examples=17).record.examples == 32
    assert infcop.measure(residual(), task(), examples=None).record.examples == EXAMPLES


def test_a_probe_loader_is_read_whole_and_the_training_data_not() -> None:
    class Untouched:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("the training data was read")

    probe = batches(size=4)
    measured = infcop.measure(residual(), task(Untouched(), probe), examples=8)
    assert measured.record.examples == EXAMPLES


def test_the_seed_draws_the_examples() -> None:
    shuffling = DataLoader(TensorDataset(*data()), batch_size=8, shuffle=True)
    numbers = [
        infcop.measure(residual(), task(shuffling), examples=8, seed=seed).to_json()
        for seed in (0, 0, 1)
    ]
    assert numbers[0] == numbers[1]
    assert json.loads(numbers[0])["edges"] != json.loads(numbers[2])["edges"]


def test_keyword_inputs() -> None:
    class Named(infcop.Classification):
        def inputs(self, batch):
            return {"x": batch[0]}

    measured = infcop.measure(residual(), Named(batches(), batches()))
    assert measured.edges == infcop.measure(residual(), task()).edges


def test_wrapped_models_are_looked_through() -> None:
    model = residual()
    assert (
        infcop.measure(nn.DataParallel(model), task()).record
        == infcop.measure(model, task()).record
    )


# -- what comes back -----------------------------------------------------------------------------


def test_json_and_back() -> None:
    measured = infcop.measure(residual(), task())
    again = Measurement.from_json(measured.to_json())
    assert again.record == measured.record
    assert again.to_json() == measured.to_json()
    assert json.loads(measured.to_json())["schema_version"] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"model": "m"}', "{"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(FlowError, match=r"Measurement\.from_json: expected what to_json wrote"):
        Measurement.from_json(text)


def test_json_of_a_newer_version_is_refused() -> None:
    with pytest.raises(FlowError, match=r"newer infcop \(version 99"):
        Measurement.from_json('{"schema_version": 99, "unheard": "of"}')


def test_matrices_are_kept_on_request_only() -> None:
    kept = infcop.measure(residual(), task(), matrices=True)
    assert kept.matrix(("stem", "block")).shape == (4, 4)
    assert kept.matrix(("stem", "block")).dtype == torch.float64
    assert kept.to_json() == infcop.measure(residual(), task()).to_json()
    with pytest.raises(FlowError, match="did you mean 'stem -> block'"):
        kept.matrix(("stem", "blok"))
    with pytest.raises(FlowError, match="matrices=True"):
        infcop.measure(residual(), task()).matrix(("stem", "block"))


def test_a_page_and_a_summary(tmp_path) -> None:
    measured = infcop.measure(residual(), task(), name="my net")
    page = measured.write_html(tmp_path / "net.html")
    assert "<h1>my net</h1>" in page.read_text(encoding="utf-8")
    assert "3 prunable layers and 3 edges" in measured.summary()


# -- nothing is left behind ----------------------------------------------------------------------


class Failing:
    """Gives one batch and fails at the next."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        yield batches()[0]
        raise OSError("the disk is gone")


WRONG_WIDTH = [batches()[0], (torch.randn(4, 2, 6, 6), torch.zeros(4, dtype=torch.long))]
NOT_FINITE = [batches()[0], (torch.full((4, 1, 6, 6), torch.nan), torch.zeros(4, dtype=torch.long))]


@pytest.mark.parametrize(
    ("loader", "error"),
    [
        (None, None),
        (Failing(), OSError),
        (WRONG_WIDTH, ModelError),
        (NOT_FINITE, FlowError),
    ],
    ids=["success", "loader fails", "model fails", "not finite"],
)
def test_the_model_is_as_before(loader: Any, error: type[Exception] | None) -> None:
    model = residual()
    model.train()
    model.norm.eval()
    model(batches()[0][0]).sum().backward()
    before = state(model)
    if error is None:
        infcop.measure(model, task())
    else:
        with pytest.raises(error):
            infcop.measure(model, task(loader))
    assert same(state(model), before)


def test_two_measurements_in_a_row_are_identical() -> None:
    model = residual().train()
    assert infcop.measure(model, task()).to_json() == infcop.measure(model, task()).to_json()


def test_the_device_can_be_named() -> None:
    measured = infcop.measure(residual(), task(), device="cpu")
    assert measured.to_json() == infcop.measure(residual(), task()).to_json()


# -- wrong input ---------------------------------------------------------------------------------


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = residual()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(x)}


def one_example() -> infcop.Classification:
    return task([(data()[0][:1], data()[1][:1])])


def without_loaders() -> infcop.Classification:
    found = task()
    found.train_loader = None
    return found


def cut(name: str) -> infcop.Classification:
    """Return a task that lacks something."""
    found = task()
    if name in vars(found):
        delattr(found, name)
        return found
    lacking = {key: getattr(found, key) for key in ("train_loader", "probe_loader", "inputs")}
    return type("Lacking", (), lacking)()


WRONG: dict[str, tuple[Any, type[InfcopError], str]] = {
    "class": (lambda: infcop.measure(nn.Linear, task()), ModelError, "torch.nn.Module"),
    "nothing prunable": (
        lambda: infcop.measure(nn.BatchNorm2d(1), task()),
        ModelError,
        "at least one prunable weight",
    ),
    "no examples": (
        lambda: infcop.measure(residual(), task(), examples=0),
        ConfigError,
        "at least 2 examples, or None for all, got 0",
    ),
    "empty batch": (
        lambda: infcop.measure(residual(), task([(data()[0][:0], data()[1][:0])])),
        DataError,
        "fewer than two",
    ),
    "nowhere": (
        lambda: infcop.measure(residual().to("meta"), task()),
        ConfigError,
        r"measure\.device: got 'meta'",
    ),
    "can't be copied": (
        lambda: infcop.measure(residual().to("meta"), task(), device="cpu"),
        ModelError,
        "can be copied to cpu",
    ),
    "one example": (lambda: infcop.measure(residual(), one_example()), DataError, "fewer than two"),
    "no loader": (
        lambda: infcop.measure(residual(), cut("train_loader")),
        DataError,
        "train_loader",
    ),
    "no method": (lambda: infcop.measure(residual(), cut("batch_size")), DataError, "batch_size"),
    "no loaders": (
        lambda: infcop.measure(residual(), without_loaders()),
        DataError,
        "got None for both",
    ),
    "dictionary": (
        lambda: infcop.measure(Dictionary(), task()),
        ModelError,
        "failed on a batch: TypeError.*dict.*what the model returns",
    ),
    "layer": (
        lambda: infcop.measure(residual(), task(), edges=["stem", "blok"]),
        FlowError,
        "'blok' is not a prunable layer; did you mean 'block'",
    ),
    "edges": (lambda: infcop.measure(residual(), task(), edges="grph"), FlowError, "'grph'"),
    "one layer named": (
        lambda: infcop.measure(residual(), task(), edges=["stem"]),
        FlowError,
        "at least two layers",
    ),
    "kinds": (
        lambda: infcop.measure(residual(), task(), kinds="gradient"),
        FlowError,
        "expected kinds to hold .* got 'gradient'; give a list",
    ),
    "gradient": (
        lambda: infcop.measure(residual(), task(), gradient="ful"),
        FlowError,
        "did you mean 'full'",
    ),
    "device": (
        lambda: infcop.measure(residual(), task(), device="cdua"),
        ConfigError,
        r"measure\.device: got 'cdua'; did you mean 'cuda'",
    ),
    "not finite": (
        lambda: infcop.measure(residual(), task(NOT_FINITE)),
        FlowError,
        "NaN or infinity in 'stem' from batch 1 on",
    ),
    "not finite at once": (
        lambda: infcop.measure(residual(), task(NOT_FINITE[1:])),
        FlowError,
        "NaN or infinity in 'stem' from batch 0 on",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_with_a_reason(case: str) -> None:
    call, error, words = WRONG[case]
    with pytest.raises(error, match=words) as caught:
        call()
    assert type(caught.value) is error


def test_a_loader_that_fails_keeps_its_own_error() -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        infcop.measure(residual(), task(Failing()))


def test_a_shuffling_probe_is_refused() -> None:
    shuffling = DataLoader(TensorDataset(*data()), batch_size=8, shuffle=True)
    with pytest.raises(DataError, match="probe_loader shuffles"):
        infcop.measure(residual(), task(probe=shuffling))


def single() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))


def test_a_model_with_one_layer_has_gradient_flow_alone_and_a_warning(tmp_path) -> None:
    with pytest.warns(NoEffectWarning, match="information flow was not measured") as told:
        measured = infcop.measure(single(), task())
    assert told[0].filename == __file__
    assert measured.edges == ()
    assert measured.layers[0].gradient_norm
    assert measured.layers[0].dead_units is None
    assert "of 1 prunable layers" in measured.record.warnings[0]
    page = measured.write_html(tmp_path / "net.html").read_text(encoding="utf-8")
    assert "There is no edge" in page
    with pytest.raises(FlowError, match="no edge to measure flow on"):
        infcop.measure(single(), task(), kinds=["information"])


class Mixing(nn.Module):
    """The output of one layer has no place for the examples: it is a mean over them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixed, self.head = nn.Linear(36, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        return self.head(x + self.mixed(x.mean(dim=0, keepdim=True)).relu())


def test_edges_without_a_place_for_the_examples_are_listed_without_numbers() -> None:
    torch.manual_seed(0)
    with pytest.warns(NoEffectWarning, match="2 of 3 edges were not measured"):
        measured = infcop.measure(Mixing(), task())
    known = {edge.ends: edge.signed is not None for edge in measured.edges}
    assert known == {
        ("first", "mixed"): False,
        ("first", "head"): True,
        ("mixed", "head"): False,
    }
    layers = {layer.name: layer for layer in measured.layers}
    assert layers["mixed"].pooling == ()
    assert layers["mixed"].dead_units is None
    assert layers["mixed"].gradient_norm is not None
    assert "not measured" in measured.summary()


def test_gradient_flow_needs_no_edges_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert infcop.measure(single(), task(), kinds=["gradient"]).record.warnings == ()


def test_an_output_that_is_no_tensor_does_not_matter_to_information_flow() -> None:
    measured = infcop.measure(Dictionary(), task(), kinds=["information"])
    inner = infcop.measure(residual(), task(), kinds=["information"])
    assert [edge.signed for edge in measured.edges] == [edge.signed for edge in inner.edges]


def test_copies_measure_the_same() -> None:
    model = residual()
    assert (
        infcop.measure(copy.deepcopy(model), task()).record == infcop.measure(model, task()).record
    )


def test_messages_name_the_function() -> None:
    for case in ("kinds", "device", "no method", "dictionary"):
        call, error, _ = WRONG[case]
        with pytest.raises(error) as caught:
            call()
        assert re.match(r"measure[:.]", str(caught.value))
