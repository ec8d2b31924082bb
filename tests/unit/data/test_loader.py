from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.rng import derive_seed
from infcop.data.augment import draw_crop_flip
from infcop.data.loader import TensorLoader
from infcop.errors import ConfigError, DataError
from infcop.tasks.base import Loader
from tests.reference.augment import crop_and_flip_slowly, normalise_slowly

MEAN, STD = torch.tensor([0.3, 0.5, 0.7]), torch.tensor([0.2, 0.25, 1.0])


def images_of(count: int, channels: int = 3, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def loader_of(count: int = 23, **options: object) -> TensorLoader:
    """Labels are the indices, so that batches show which examples they hold."""
    chosen: dict[str, object] = {"batch_size": 5, "mean": MEAN, "std": STD, **options}
    return TensorLoader(images_of(count), torch.arange(count), **chosen)


def order_of(loader: TensorLoader, start: int = 0) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader.iterate(start)]


def assert_same_batches(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right)
    for (inputs, labels), (other_inputs, other_labels) in zip(left, right, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [None, 7])
def test_normalises_like_the_textbook(dtype, seed):
    images = images_of(23)
    for inputs, labels in loader_of(shuffle_seed=seed, dtype=dtype):
        assert inputs.dtype == dtype
        for image, index in zip(inputs, labels, strict=True):
            expected = normalise_slowly(images[index], MEAN, STD)
            torch.testing.assert_close(image.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    halves, singles = loader_of(dtype=dtype), loader_of()
    for (half, _), (single, _) in zip(halves, singles, strict=True):
        assert torch.equal(half, single.to(dtype))


def test_augmentation_equals_the_slow_twin():
    images, seed, number = images_of(23), 7, 2
    loader = loader_of(shuffle_seed=seed, augment=True, dtype=torch.float64)
    loader.set_pass(number)
    for index, (inputs, labels) in enumerate(loader):
        drawn = draw_crop_flip(len(labels), seed=derive_seed(seed, "augment", number, index))
        for place, label in enumerate(labels):
            expected = crop_and_flip_slowly(
                normalise_slowly(images[label], MEAN, STD),
                int(drawn.rows[place]),
                int(drawn.columns[place]),
                bool(drawn.flips[place]),
            )
            torch.testing.assert_close(inputs[place], expected, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 12), st.booleans(), st.none() | st.integers(0, 9))
def test_every_example_comes_once(count, batch_size, drop_last, seed):
    arguments = {"batch_size": batch_size, "drop_last": drop_last, "shuffle_seed": seed}
    if drop_last and count < batch_size:
        with pytest.raises(DataError, match=f"{count} examples give no batch of {batch_size}"):
            loader_of(count, **arguments)
        return
    loader = loader_of(count, **arguments)
    batches = order_of(loader)
    seen = [index for batch in batches for index in batch]
    kept = count - count % batch_size if drop_last else count
    assert len(batches) == len(loader)
    assert len(seen) == len(set(seen)) == kept == loader.examples
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(batches[-1]) > 1 or batch_size == 1 or count == 1
    if seed is None:
        assert seen == list(range(kept))


def test_a_last_batch_of_one_joins_the_one_before():
    assert [len(batch) for batch in order_of(loader_of(11))] == [5, 6]
    assert [len(batch) for batch in order_of(loader_of(12))] == [5, 5, 2]
    assert [len(batch) for batch in order_of(loader_of(6))] == [6]
    assert [len(batch) for batch in order_of(loader_of(1))] == [1]
    assert [len(batch) for batch in order_of(loader_of(3, batch_size=1))] == [1, 1, 1]
    assert [len(batch) for batch in order_of(loader_of(11, drop_last=True))] == [5, 5]


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("count", [20, 21, 23])
def test_iteration_can_begin_at_any_batch(augment, count):
    loader = loader_of(count, shuffle_seed=1, augment=augment)
    loader.set_pass(4)
    whole = list(loader)
    for start in range(len(loader) + 1):
        assert_same_batches(loader.iterate(start), whole[start:])


def test_a_pass_does_not_depend_on_those_before():
    used, fresh = (loader_of(shuffle_seed=3, augment=True) for _ in range(2))
    for number in (0, 1, 2):
        used.set_pass(number)
        list(used)
    torch.manual_seed(5)
    fresh.set_pass(2)
    assert_same_batches(used, fresh)


def test_passes_and_seeds_differ():
    loader, other = loader_of(shuffle_seed=3), loader_of(shuffle_seed=4)
    first = order_of(loader)
    assert order_of(loader) == first
    loader.set_pass(1)
    assert order_of(loader) != first
    assert order_of(other) != first


def test_a_running_iteration_keeps_its_pass():
    loader = loader_of(shuffle_seed=3)
    expected = order_of(loader)
    running = loader.iterate()
    loader.set_pass(1)
    assert [labels.tolist() for _, labels in running] == expected


def test_without_a_seed_the_order_stays():
    loader = loader_of()
    loader.set_pass(9)
    assert order_of(loader)[0] == [0, 1, 2, 3, 4]


def test_augmentation_does_not_change_the_order():
    plain, augmented = (loader_of(shuffle_seed=3, augment=flag) for flag in (False, True))
    assert order_of(plain) == order_of(augmented)
    assert not torch.equal(next(iter(plain))[0], next(iter(augmented))[0])


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    list(loader_of(shuffle_seed=3, augment=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("seed", [None, 3])
def test_a_model_may_change_its_inputs_in_place(seed):
    loader = loader_of(shuffle_seed=seed)
    before = [(inputs.clone(), labels.clone()) for inputs, labels in loader]
    for inputs, labels in loader:
        inputs.zero_()
        labels.zero_()
    assert_same_batches(loader, before)


def test_it_is_a_loader():
    assert isinstance(loader_of(), Loader)


@pytest.mark.parametrize("start", [-1, 6])
def test_a_start_out_of_range(start):
    with pytest.raises(ConfigError, match=rf"start_batch in \[0, 5\], got {start}"):
        loader_of().iterate(start)


def test_a_negative_pass():
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        loader_of().set_pass(-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"augment": True}, "augment needs a shuffle_seed"),
        ({"mean": torch.zeros(1)}, r"mean of shape \[3\]"),
        ({"std": torch.ones(2)}, r"std of shape \[3\]"),
        ({"std": torch.tensor([1.0, 0.0, 1.0])}, "positive std"),
        ({"std": torch.tensor([1.0, float("nan"), 1.0])}, "positive std"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        loader_of(**options)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (images_of(3).float(), torch.arange(3), "uint8"),
        (images_of(3)[0], torch.arange(3), r"\[N, C, H, W\]"),
        (images_of(3)[:0], torch.arange(0), "non-empty"),
        (images_of(3), torch.arange(2), r"int64 of shape \[3\]"),
        (images_of(3), torch.arange(3).int(), "int64"),
    ],
)
def test_tensors_that_do_not_fit(images, labels, message):
    with pytest.raises(DataError, match=message):
        TensorLoader(images, labels, batch_size=2, mean=MEAN, std=STD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_gives_the_same_batches():
    options: dict[str, object] = {"shuffle_seed": 3, "augment": True}
    for (left, left_labels), (right, right_labels) in zip(
        loader_of(**options), loader_of(device="cuda", **options), strict=True
    ):
        assert right.is_cuda
        torch.testing.assert_close(left, right.cpu(), rtol=0, atol=1e-6)
        assert torch.equal(left_labels, right_labels.cpu())
