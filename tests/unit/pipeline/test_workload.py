from __future__ import annotations

import pytest
import torch

from infcop.core.config import RunConfig
from infcop.data.digits import load_digits
from infcop.errors import ConfigError, MissingDataError, ModelError
from infcop.methods import resolve_method
from infcop.pipeline.workload import build_workload


def config(**settings) -> RunConfig:
    defaults = {"method": resolve_method("lth"), "execution": {"device": "cpu"}}
    return RunConfig.model_validate({**defaults, **settings})


def images_of(loader) -> torch.Tensor:
    """Return all inputs of a pass, sorted, so that only their contents count."""
    rows = torch.cat([inputs.flatten(1) for inputs, _ in loader])
    return torch.tensor(sorted(rows.tolist()))


def rows_of(loader) -> set[tuple[float, ...]]:
    return {tuple(row) for row in images_of(loader).tolist()}


def weights(workload) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in workload.model.parameters()])


@pytest.fixture(scope="module")
def plain():
    return build_workload(config())


def test_a_model_of_the_zoo_fits_the_digits(plain) -> None:
    inputs, labels = next(iter(plain.task.train_loader))
    assert inputs.shape == (64, 1, 8, 8)
    assert plain.model(inputs).shape == (64, 10)
    assert labels.dtype == torch.int64
    assert torch.isfinite(plain.task.training_step(plain.model, (inputs, labels)))
    assert plain.task.label_smoothing == 0.0


def test_the_settings_reach_the_task() -> None:
    settings = {
        "training": {"batch_size": 10, "label_smoothing": 0.2},
        "data": {"train_examples": 200, "held_out": 0.25},
        "probe_examples": 30,
    }
    task = build_workload(config(**settings)).task
    assert len(next(iter(task.train_loader))[1]) == 10
    assert task.label_smoothing == 0.2
    counts = [loader.examples for loader in (task.train_loader, task.held_out_loader)]
    assert counts == [150, 50]
    assert task.probe_loader.examples == 30
    assert task.test_loader.examples == 360, "the test part is always whole"


def test_inputs_are_standardised_by_the_set(plain) -> None:
    rows = images_of(plain.task.train_loader)
    assert abs(float(rows.mean())) < 0.05
    assert abs(float(rows.std()) - 1) < 0.05


def test_parts_are_disjoint_and_the_probe_is_trained_on(plain) -> None:
    """By content: no two of the digits are pixel for pixel the same."""
    task = plain.task
    parts = [task.train_loader, task.held_out_loader, task.test_loader]
    rows = [rows_of(loader) for loader in parts]
    assert [len(part) for part in rows] == [loader.examples for loader in parts]
    assert sum(map(len, rows)) == 1797
    assert len(set.union(*rows)) == 1797, "together they are all of the set, none twice"
    assert rows_of(task.probe_loader) <= rows[0]


def test_the_test_data_is_that_of_the_set(plain) -> None:
    digits = load_digits()
    labels = torch.cat([labels for _, labels in plain.task.test_loader])
    assert torch.equal(labels, digits.test.labels)
    assert plain.task.test_loader.examples == len(digits.test)


def test_only_training_shuffles(plain) -> None:
    task = plain.task
    for loader in (task.held_out_loader, task.test_loader, task.probe_loader):
        assert loader.shuffle_seed is None
        assert not loader.augment
    assert task.train_loader.shuffle_seed is not None


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_the_seed_draws_the_model_and_not_the_data(plain, seed, same) -> None:
    other = build_workload(config(seed=seed))
    assert torch.equal(weights(plain), weights(other)) == same
    assert plain.split == other.split
    for name in ("train_loader", "held_out_loader", "probe_loader", "test_loader"):
        loaders = (getattr(workload.task, name) for workload in (plain, other))
        assert torch.equal(*map(images_of, loaders)), name
    orders = [[labels.tolist() for _, labels in w.task.train_loader] for w in (plain, other)]
    assert (orders[0] == orders[1]) == same


def test_another_split_seed_splits_otherwise_and_keeps_the_model(plain) -> None:
    other = build_workload(config(data={"split_seed": 1}))
    assert other.split["fingerprint"] != plain.split["fingerprint"]
    assert rows_of(other.task.held_out_loader) != rows_of(plain.task.held_out_loader)
    assert rows_of(other.task.test_loader) == rows_of(plain.task.test_loader)
    assert torch.equal(weights(plain), weights(other))


def test_building_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_workload(config(seed=3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("asked", "got"), [(None, False), (True, True), (False, False)])
def test_small_grey_images_are_augmented_only_on_request(asked, got) -> None:
    task = build_workload(config(data={"augment": asked})).task
    assert task.train_loader.augment is got


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"data": {"name": "digit"}}, ConfigError, "did you mean 'digits'"),
        ({"data": {"name": "mnist", "dir": "nowhere"}}, MissingDataError, "'mnist' is not in"),
        ({"model": {"name": "lenet"}}, ConfigError, "did you mean 'lenet-5'"),
        ({"model": {"name": "lenet-5"}}, ModelError, "16"),
        ({"model": {"options": {"width": 2}}}, ConfigError, "has no option 'width'"),
    ],
)
def test_what_does_not_fit_is_explained(settings, error, message) -> None:
    with pytest.raises(error, match=message):
        build_workload(config(**settings))
