"""Batches straight from tensors in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from infcop.core.rng import derive_seed
from infcop.data.augment import crop_and_flip, draw_crop_flip
from infcop.errors import ConfigError, DataError

__all__ = ["TensorLoader"]


class TensorLoader:
    """Normalised batches ``(inputs, labels)`` of an image set that fits into memory.

    Inputs are ``(x / 255 - mean) / std`` per channel, computed batch by batch: reading bytes and
    normalising them costs no more time than reading ready-made floats, and a quarter of the
    memory. No example is handled alone.

    The order of pass ``k`` depends on ``(shuffle_seed, k)`` only, the augmentation of a batch on
    ``(shuffle_seed, k, index of the batch)``; so iteration can begin at any batch and gives what
    an uninterrupted one would have given. The training loop calls ``set_pass`` before each pass.

    A last batch of a single example is joined to the one before it, which then is one larger
    than ``batch_size``: batch normalisation has no variance to take over one example.

    Args:
        images: uint8 of shape ``[N, C, H, W]``.
        labels: int64 of shape ``[N]``.
        batch_size: Examples per batch.
        mean: Per channel, of values scaled to [0, 1]; float ``[C]``.
        std: Likewise; positive.
        shuffle_seed: Of order and augmentation; None keeps the order of the tensors.
        augment: Random crop with 4 pixels of zero padding and horizontal flip; needs
            ``shuffle_seed``.
        device: Where images, labels and batches live.
        dtype: Of the inputs.
        drop_last: Leave out a last batch that is smaller than the others.

    Raises:
        DataError: The tensors don't fit each other, or not a single batch results.
        ConfigError: Another argument is out of range.

    Example:
        >>> images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
        >>> loader = TensorLoader(
        ...     images, torch.arange(10), batch_size=3, mean=torch.zeros(1), std=torch.ones(1)
        ... )
        >>> [labels.tolist() for _, labels in loader]
        [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        mean: Tensor,
        std: Tensor,
        shuffle_seed: int | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        drop_last: bool = False,
    ) -> None:
        _check(images, labels, batch_size, mean, std)
        if augment and shuffle_seed is None:
            raise ConfigError("TensorLoader: augment needs a shuffle_seed, got None")
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.augment = augment
        self.device = torch.device(device)
        self.dtype = dtype
        self._images = images.to(self.device)
        self._labels = labels.to(self.device)
        self._bounds = _bounds(len(labels), batch_size, drop_last)
        self._pass = 0
        # Half precision is too coarse for the arithmetic itself: only its result is rounded.
        self._working = torch.promote_types(dtype, torch.float32)
        scale = 1 / (255 * std.double())
        shift = -mean.double() / std.double()
        self._scale, self._shift = (
            value.to(dtype=self._working).view(1, -1, 1, 1).to(self.device)
            for value in (scale, shift)
        )

    @property
    def examples(self) -> int:
        """How many examples one pass gives."""
        return self._bounds[-1]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.iterate()

    def set_pass(self, number: int) -> None:
        """Choose the pass that the next iteration gives; a running one is not affected.

        Raises:
            ConfigError: The number is negative.
        """
        if number < 0:
            raise ConfigError(f"TensorLoader.set_pass: expected at least 0, got {number}")
        self._pass = number

    def iterate(self, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of the pass from ``start_batch`` on.

        Args:
            start_batch: 0 to ``len(self)``; the latter gives nothing.

        Raises:
            ConfigError: ``start_batch`` is out of range.
        """
        if not 0 <= start_batch <= len(self):
            raise ConfigError(
                f"TensorLoader.iterate: expected start_batch in [0, {len(self)}], got {start_batch}"
            )
        return self._batches(self._pass, start_batch)

    def _batches(self, number: int, start_batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(number)
        for index in range(start_batch, len(self)):
            chosen = order[self._bounds[index] : self._bounds[index + 1]]
            yield self._batch(chosen, number, index)

    def _order(self, number: int) -> Tensor:
        if self.shuffle_seed is None:
            return torch.arange(len(self._labels), device=self.device)
        generator = torch.Generator().manual_seed(derive_seed(self.shuffle_seed, "order", number))
        return torch.randperm(len(self._labels), generator=generator).to(self.device)

    def _batch(self, chosen: Tensor, number: int, index: int) -> tuple[Tensor, Tensor]:
        # ``index_select`` copies whole rows, several times faster than ``images[chosen]``.
        inputs = self._images.index_select(0, chosen).to(self._working)
        inputs = inputs.mul_(self._scale).add_(self._shift)
        if self.augment and self.shuffle_seed is not None:
            seed = derive_seed(self.shuffle_seed, "augment", number, index)
            drawn = draw_crop_flip(len(chosen), seed=seed)
            inputs = crop_and_flip(inputs, drawn.to(self.device))
        return inputs.to(self.dtype), self._labels.index_select(0, chosen)


def _bounds(examples: int, batch_size: int, drop_last: bool) -> Sequence[int]:
    """Where batches begin, and where the last one ends."""
    bounds = [*range(0, examples, batch_size), examples]
    if drop_last and examples % batch_size:
        del bounds[-1]
    elif batch_size > 1 and examples % batch_size == 1 and len(bounds) > 2:
        del bounds[-2]
    if len(bounds) < 2:
        raise DataError(
            f"TensorLoader: {examples} examples give no batch of {batch_size} with drop_last; "
            "use a smaller batch_size or keep the last batch"
        )
    return bounds


def _check(images: Tensor, labels: Tensor, batch_size: int, mean: Tensor, std: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
        raise DataError(
            "TensorLoader: expected images as non-empty uint8 of shape [N, C, H, W], "
            f"got {images.dtype} of shape {list(images.shape)}"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise DataError(
            f"TensorLoader: expected labels as int64 of shape [{len(images)}], "
            f"got {labels.dtype} of shape {list(labels.shape)}"
        )
    if batch_size < 1:
        raise ConfigError(f"TensorLoader: expected batch_size of at least 1, got {batch_size}")
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != images.shape[1:2]:
            raise ConfigError(
                f"TensorLoader: expected {name} of shape [{images.shape[1]}], one per channel, "
                f"got {list(value.shape)}"
            )
    if not bool((std > 0).all()):
        raise ConfigError(f"TensorLoader: expected positive std, got {std.tolist()}")
