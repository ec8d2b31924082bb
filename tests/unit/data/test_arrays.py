from __future__ import annotations

import numpy as np
import pytest
import torch

from infcop.data.arrays import Images, ImageSet, check_labels
from infcop.errors import DataError


def part(images: torch.Tensor, labels: list[int]) -> Images:
    return Images(images, torch.tensor(labels, dtype=torch.int64))


def image_set(train: Images, test: Images | None = None, classes: int = 2) -> ImageSet:
    names = tuple(f"class {label}" for label in range(classes))
    return ImageSet("tiny", train, test or train, classes, names)


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_moments_equal_numpy(channels):
    images = random_images(7, channels, 5, 4)
    data = image_set(part(images, [0] * 7))
    scaled = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 2, 3)), rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == torch.float32
    assert data.channels == channels


def test_moments_are_those_of_the_training_part():
    train, test = part(random_images(4, 1, 3, 3), [0] * 4), part(random_images(2, 1, 3, 3), [0] * 2)
    assert torch.equal(image_set(train, test).mean, image_set(train, train).mean)


def test_a_constant_channel_can_be_divided_by():
    images = random_images(4, 2, 3, 3)
    images[:, 1] = 77
    data = image_set(part(images, [0] * 4))
    assert data.std[1] == 1
    assert data.std[0] < 1
    assert data.mean[1] == pytest.approx(77 / 255)


@pytest.mark.parametrize(("labels", "index", "value"), [([0, 2, 1], 1, 2), ([1, 1, -1], 2, -1)])
def test_labels_out_of_range(labels, index, value):
    message = rf"train part: expected labels in \[0, 2\), got {value} at index {index}"
    with pytest.raises(DataError, match=message):
        image_set(part(random_images(3, 1, 2, 2), labels))


def test_check_labels_accepts_the_ends_of_the_range():
    check_labels(torch.tensor([0, 4]), 5, "source")
    with pytest.raises(DataError, match="source"):
        check_labels(torch.tensor([0, 5]), 5, "source")


def test_counts_that_disagree():
    with pytest.raises(DataError, match="3 images and 2 labels"):
        image_set(part(random_images(3, 1, 2, 2), [0, 1]))


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (3, 1, 0, 2)])
def test_an_empty_part(shape):
    with pytest.raises(DataError, match="at least one image"):
        image_set(part(torch.zeros(shape, dtype=torch.uint8), [0] * shape[0]))


def test_floats_are_refused():
    with pytest.raises(DataError, match=r"expected torch.uint8.*got torch.float32"):
        image_set(part(torch.zeros(2, 1, 2, 2), [0, 1]))


def test_images_without_a_channel_axis_are_refused():
    with pytest.raises(DataError, match=r"\[N, C, H, W\].*\[2, 2, 2\]"):
        image_set(part(random_images(2, 2, 2), [0, 1]))


def test_parts_of_different_shape():
    train, test = part(random_images(2, 1, 4, 4), [0, 1]), part(random_images(2, 1, 4, 5), [0, 1])
    with pytest.raises(DataError, match="of one shape"):
        image_set(train, test)


def test_class_names_match_the_classes():
    one = part(random_images(2, 1, 4, 4), [0, 1])
    with pytest.raises(DataError, match="2 class names, got 1"):
        ImageSet("tiny", one, one, 2, ("only",))
