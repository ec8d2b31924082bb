from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.data.augment import PADDING, CropFlip, crop_and_flip, draw_crop_flip
from tests.reference.augment import crop_and_flip_slowly


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(0, 2**32),
)
def test_equals_the_slow_twin(count, channels, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, channels, height, width, generator=generator)
    drawn = draw_crop_flip(count, seed=seed)
    fast = crop_and_flip(images, drawn)
    for index in range(count):
        slow = crop_and_flip_slowly(
            images[index],
            int(drawn.rows[index]),
            int(drawn.columns[index]),
            bool(drawn.flips[index]),
        )
        assert torch.equal(fast[index], slow)


def test_the_middle_without_flip_changes_nothing():
    images = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    centre = torch.full((2,), PADDING)
    same = crop_and_flip(images, CropFlip(centre, centre, torch.zeros(2, dtype=torch.bool)))
    assert torch.equal(same, images)
    mirrored = crop_and_flip(images, CropFlip(centre, centre, torch.ones(2, dtype=torch.bool)))
    assert torch.equal(mirrored, images.flip(-1))


def test_the_input_is_not_changed():
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    crop_and_flip(images, draw_crop_flip(2, seed=0)).zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["rows", "columns"])
def test_all_offsets_are_equally_likely(name):
    offsets = getattr(draw_crop_flip(9000, seed=1), name)
    counts = offsets.bincount(minlength=9)
    assert len(counts) == 2 * PADDING + 1
    # Standard deviation of each count: sqrt(9000 * 1/9 * 8/9) = 30.
    assert (counts - 1000).abs().max() < 5 * 30


def test_half_of_the_images_are_flipped():
    assert abs(int(draw_crop_flip(10_000, seed=1).flips.sum()) - 5000) < 5 * 50


def test_draws_depend_on_the_seed_only():
    first, second, other = (draw_crop_flip(50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.rows, second.rows)
    assert torch.equal(first.flips, second.flips)
    assert not torch.equal(first.rows, other.rows)
