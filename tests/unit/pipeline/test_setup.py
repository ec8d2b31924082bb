from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from infcop.core.config import SearchConfig
from infcop.core.method import FlowConfig
from infcop.core.rng import preserved_rng
from infcop.data.loader import TensorLoader
from infcop.errors import DataError, FlowError, InfcopError, ModelError
from infcop.methods import resolve_method
from infcop.pipeline.context import Run
from infcop.pipeline.progress import LoggedProgress
from infcop.pipeline.setup import count_examples, prepare
from infcop.pipeline.store import RunStore
from infcop.tasks.classification import Classification
from tests.reference.training import BATCH, CLASSES, EXAMPLES, FEATURES, LOADERS, batches, examples

every_loader = pytest.mark.parametrize("kind", LOADERS)


def network(inputs: int = FEATURES, outputs: int = CLASSES) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, outputs))


def prepared(task, model: nn.Module | None = None, *, method="lth", **settings) -> Run:
    config = SearchConfig(method=resolve_method(method), execution={"device": "cpu"}, **settings)
    with preserved_rng():
        return prepare(
            network() if model is None else model,
            task,
            config,
            store=RunStore(Path("never-written")),
            progress=LoggedProgress(),
            model_name="net",
            data_name="made up",
            split={"seed": 3},
        )


def flat(probe: list) -> list[list[float]]:
    return [inputs.flatten().tolist() for inputs, _ in probe]


def dataset() -> TensorDataset:
    return TensorDataset(*examples())


# -- facts --------------------------------------------------------------------------------------


def test_the_record_says_what_will_be_searched() -> None:
    task = Classification(batches(), batches()[:2], batches()[:1])
    record = prepared(task).record
    assert record.model.name == "net"
    assert record.model.parameters == 4 * 6 + 6 + 6 * 3 + 3
    assert record.model.prunable == {"1.weight": (6, 4), "3.weight": (3, 6)}
    assert record.model.excluded == {"1.bias": "bias", "3.bias": "bias"}
    assert record.model.edges == (("1", "3"),)
    assert (record.data.train, record.data.held_out, record.data.test) == (22, 10, 5)
    assert (record.data.main_metric, record.data.higher_is_better) == ("accuracy", True)
    assert record.data.split == {"seed": 3}
    assert {"python", "torch", "numpy", "infcop"} <= set(record.versions)
    assert record.hardware["device"].startswith("cpu")
    assert record.hardware["threads"] == str(torch.get_num_threads())
    assert (record.levels, record.outcome) == ((), None)


def test_preparing_writes_nothing_and_disturbs_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    norms = [nn.BatchNorm1d(CLASSES), nn.BatchNorm1d(CLASSES).eval()]
    model = nn.Sequential(network(), *norms, nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    prepared(Classification(LOADERS["shuffling"](), batches()), model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, False, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert list(tmp_path.iterdir()) == []


def test_without_test_data_there_are_no_test_examples() -> None:
    assert prepared(Classification(batches(), batches())).record.data.test == 0


def test_masks_are_full_and_the_target_is_exact() -> None:
    run = prepared(Classification(batches(), batches()), density=0.25)
    assert run.masks.kept == run.masks.total == 42
    assert run.target_kept == round(0.25 * 42)


# -- the probe ----------------------------------------------------------------------------------


@every_loader
def test_the_probe_from_a_training_loader_is_always_the_same(kind) -> None:
    probes = []
    for noise in (1, 2):
        loader = LOADERS[kind]()
        torch.manual_seed(noise)
        probes.append(flat(prepared(Classification(loader, loader), probe_examples=12).probe))
        torch.rand(3)
        probes.append(flat(prepared(Classification(loader, loader), probe_examples=12).probe))
    assert probes[1:] == probes[:1] * 3
    assert len(probes[0]) == 3, "whole batches, at least as many examples as asked for"


@pytest.mark.parametrize("kind", ["shuffling", "own generator", "lazy", "in memory"])
def test_another_seed_may_take_other_probe_examples(kind) -> None:
    loader = LOADERS[kind]()
    one, two = (
        flat(prepared(Classification(loader, loader), probe_examples=5, seed=seed).probe)
        for seed in (0, 1)
    )
    assert one != two


@pytest.mark.parametrize(
    ("asked", "got"), [(2, 5), (5, 5), (6, 10), (22, 22), (23, 22), (None, 22)]
)
def test_probe_examples_are_counted(asked, got) -> None:
    run = prepared(Classification(batches(), batches()), probe_examples=asked)
    assert run.record.data.probe == got


def test_a_probe_loader_is_used_whole_and_as_it_is() -> None:
    probe = [batches()[3], batches()[0]]
    run = prepared(Classification(batches(), batches(), None, probe), probe_examples=2)
    assert run.record.data.probe == 10
    assert flat(run.probe) == flat(probe)


def weighted() -> WeightedRandomSampler:
    return WeightedRandomSampler([1.0] * EXAMPLES, EXAMPLES)


SHUFFLING = {
    "shuffle": lambda: DataLoader(dataset(), BATCH, shuffle=True),
    "sampler": lambda: DataLoader(dataset(), BATCH, sampler=RandomSampler(dataset())),
    "subset": lambda: DataLoader(dataset(), BATCH, sampler=SubsetRandomSampler(range(9))),
    "weighted": lambda: DataLoader(dataset(), BATCH, sampler=weighted()),
    "batch sampler": lambda: DataLoader(
        dataset(), batch_sampler=BatchSampler(RandomSampler(dataset()), BATCH, drop_last=False)
    ),
}


@pytest.mark.parametrize("kind", SHUFFLING)
def test_a_probe_loader_that_shuffles_is_refused(kind) -> None:
    task = Classification(batches(), batches(), None, SHUFFLING[kind]())
    message = "probe_loader shuffles; expected the same examples .* Make it with shuffle=False"
    with pytest.raises(DataError, match=message):
        prepared(task)


def test_a_probe_loader_in_order_is_accepted() -> None:
    task = Classification(batches(), batches(), None, DataLoader(dataset(), BATCH))
    assert prepared(task).record.data.probe == EXAMPLES


def test_a_probe_of_one_example_is_refused() -> None:
    inputs, labels = batches()[0]
    task = Classification(batches(), batches(), None, [(inputs[:1], labels[:1])])
    with pytest.raises(DataError, match="the probe holds fewer than two examples"):
        prepared(task)


# -- counting -----------------------------------------------------------------------------------


class Stream(IterableDataset):
    """Examples without a known number, as read from a network."""

    def __iter__(self):
        return iter(zip(*examples(), strict=True))

    def __len__(self) -> int:
        return EXAMPLES


class Counted:
    """A loader by hand that knows its number of examples, and may be read only where it must."""

    examples = 123

    def __len__(self) -> int:
        return 3

    def __iter__(self):
        raise AssertionError("reading it costs time")


def in_memory(**options) -> TensorLoader:
    images = torch.zeros(EXAMPLES, 1, 2, 2, dtype=torch.uint8)
    facts = {"mean": torch.zeros(1), "std": torch.ones(1)}
    return TensorLoader(images, examples()[1], batch_size=BATCH, **facts, **options)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (batches, 22),
        (lambda: DataLoader(dataset(), BATCH), 22),
        (lambda: DataLoader(dataset(), BATCH, drop_last=True), 20),
        (lambda: DataLoader(dataset(), BATCH, sampler=SubsetRandomSampler(range(9))), 9),
        (SHUFFLING["batch sampler"], 22),
        (lambda: DataLoader(Stream(), BATCH), 22),
        (in_memory, 22),
        (lambda: in_memory(drop_last=True), 20),
        (Counted, 123),
        (LOADERS["lazy"], 22),
    ],
)
def test_examples_of_a_pass_are_counted(make, count) -> None:
    loader = make()
    task = Classification(batches(), batches())
    assert count_examples(loader, task) == count
    if not isinstance(loader, Counted):
        assert sum(len(labels) for _, labels in loader) == count


# -- misfits ------------------------------------------------------------------------------------


def test_a_model_that_rejects_the_inputs_is_explained() -> None:
    message = "the model can't be run on a batch of the data: RuntimeError: .*check the shapes"
    with pytest.raises(ModelError, match=message):
        prepared(Classification(batches(), batches()), network(inputs=7))


@pytest.mark.parametrize(
    "batch", [torch.ones(3, 4), (torch.ones(3, 4),), {"x": 1}, ("a", "b", "c")]
)
def test_batches_of_another_shape_are_explained(batch) -> None:
    task = Classification([batch], batches(), None, batches())
    task.probe_loader = [batch, batches()[0]]
    task.batch_size = lambda batch: 3
    with pytest.raises(DataError, match=r"expected batches \(inputs, labels\), got"):
        prepared(task)


@pytest.mark.parametrize("label", [CLASSES, 1000, -1])
def test_a_label_out_of_range_is_explained(label) -> None:
    inputs, labels = batches()[0]
    labels = labels.clone()
    labels[2] = label
    message = rf"expected labels in \[0, 3\), the classes of the model, got .*{label}"
    with pytest.raises(DataError, match=message):
        prepared(Classification([(inputs, labels)], batches()))


@pytest.mark.parametrize("labels", [torch.zeros(5), torch.zeros(5, 3), torch.zeros(4).long()])
def test_labels_of_another_kind_are_explained(labels) -> None:
    with pytest.raises(InfcopError):
        prepared(Classification([(batches()[0][0], labels)], batches()))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_inputs_that_are_not_finite_are_explained(value) -> None:
    inputs, labels = batches()[0]
    task = Classification([(torch.full_like(inputs, value), labels)], batches())
    message = r"the loss of the untrained model on the first batch is (nan|inf); expected a finite"
    with pytest.raises(DataError, match=message):
        prepared(task)


def test_weights_that_are_not_finite_are_explained() -> None:
    model = network()
    nn.init.constant_(model[1].weight, math.nan)
    with pytest.raises(DataError, match="Look for non-finite inputs or initial weights"):
        prepared(Classification(batches(), batches()), model)


class WithoutMean(Classification):
    def training_step(self, model, batch) -> Tensor:
        return super().training_step(model, batch).repeat(5)


class WithoutTensor(Classification):
    def training_step(self, model, batch):
        return float(super().training_step(model, batch))


@pytest.mark.parametrize(("task", "got"), [(WithoutMean, r"\(5,\)"), (WithoutTensor, "float")])
def test_a_loss_that_is_no_scalar_tensor_is_explained(task, got) -> None:
    message = f"training_step: expected the mean loss as a scalar tensor, got {got}"
    with pytest.raises(ModelError, match=message):
        prepared(task(batches(), batches()))


def test_a_model_with_nothing_to_prune_is_refused() -> None:
    with pytest.raises(ModelError, match="expected at least one prunable weight"):
        prepared(Classification(batches(), batches()), nn.Flatten())


def test_a_model_in_half_precision_is_refused() -> None:
    with pytest.raises(ModelError, match=r"half precision|bfloat16"):
        prepared(Classification(batches(), batches()), network().to(torch.bfloat16))


def test_a_double_model_stays_double() -> None:
    loader = [(inputs.double(), labels) for inputs, labels in batches()]
    run = prepared(Classification(loader, loader), network().double())
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float64}
    assert run.wrapped(loader[0][0]).dtype == torch.float64


def test_a_double_model_on_float32_inputs_is_explained() -> None:
    with pytest.raises(ModelError, match="the model can't be run on a batch of the data"):
        prepared(Classification(batches(), batches()), network().double())


# -- edges --------------------------------------------------------------------------------------


def single_layer() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES))


@pytest.mark.parametrize("method", ["lth", "sap", "infcop-gf"])
def test_a_model_without_an_edge_suits_a_rule_that_needs_none(method) -> None:
    run = prepared(Classification(batches(), batches()), single_layer(), method=method)
    assert run.record.model.edges == ()


def test_a_model_without_an_edge_is_refused_by_a_rule_that_compares_information() -> None:
    with pytest.raises(FlowError, match="no edge to measure flow on"):
        prepared(Classification(batches(), batches()), single_layer(), method="infcop-if")


def test_edges_that_are_named_must_be_there_whatever_the_rule() -> None:
    method = resolve_method("lth").model_copy(update={"flow": FlowConfig(edges=("1", "4"))})
    with pytest.raises(FlowError, match="the layer '4' is not a prunable layer"):
        prepared(Classification(batches(), batches()), method=method)
