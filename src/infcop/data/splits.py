"""Who trains, who is read, who decides: disjoint parts of the training examples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.core.rng import derive_seed
from infcop.errors import ConfigError, DataError

__all__ = ["Splits", "split", "stratified"]


@dataclass(frozen=True, eq=False)
class Splits:
    """Indices into the training part of a set; int64, ascending, without repeats.

    Attributes:
        train: What is trained on.
        probe: What flow is read on; a part of ``train``.
        held_out: What decisions are taken on; disjoint from ``train``.
    """

    train: Tensor
    probe: Tensor
    held_out: Tensor

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all indices, for the record: equal exactly if the splits are equal."""
        digest = hashlib.sha256()
        for name in ("train", "probe", "held_out"):
            indices: Tensor = getattr(self, name)
            digest.update(f"{name}:{len(indices)}:".encode())
            digest.update(indices.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def split(
    labels: Tensor,
    held_out: float,
    seed: int,
    train_examples: int | None = None,
    probe_examples: int | None = None,
) -> Splits:
    """Divide the training examples of a set.

    First a subset of ``train_examples`` is drawn, then the held-out part from it, both
    stratified: each class keeps its share to within one example. The probe is a stratified
    subset of what remains. The same arguments give the same indices on every machine.

    Args:
        labels: int64 of shape ``[N]``.
        held_out: Fraction of the examples in use to hold out, in (0, 1).
        seed: Of the splits; independent of the seed of the search, so that runs can be paired.
        train_examples: How many examples to use, the held-out ones included; None means all.
        probe_examples: How many training examples flow is read on, at most; None means all.

    Raises:
        ConfigError: An argument is out of range.
        DataError: A part would be empty, or more examples are asked for than there are.

    Example:
        >>> parts = split(torch.arange(100) % 10, held_out=0.1, seed=0, probe_examples=20)
        >>> len(parts.train), len(parts.probe), len(parts.held_out)
        (90, 20, 10)
    """
    _check_arguments(held_out, train_examples, probe_examples)
    used = _subset(labels, train_examples, seed)
    aside = round(held_out * len(used))
    if not 0 < aside < len(used):
        raise DataError(
            f"split: holding out {held_out:g} of {len(used)} examples leaves "
            f"{len(used) - aside} to train on and {aside} to decide on; both need at least one: "
            "use more examples or another fraction"
        )
    chosen = stratified(labels[used], aside, seed=derive_seed(seed, "held-out"))
    kept = torch.ones(len(used), dtype=torch.bool).index_fill_(0, chosen, False)
    train = used[kept]
    probes = len(train) if probe_examples is None else min(probe_examples, len(train))
    probe = train[stratified(labels[train], probes, seed=derive_seed(seed, "probe"))]
    return Splits(train=train, probe=probe, held_out=used[chosen])


def stratified(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Draw examples so that each class keeps its share, by the method of largest remainders.

    A class of ``n_c`` of the ``n`` examples gets ``floor(count * n_c / n)``; what is left goes,
    one each, to the classes with the largest remainders, the lower class first on a tie.

    Args:
        labels: Integers of shape ``[n]``.
        count: How many to draw, in [0, n].
        seed: Of the draw.

    Returns:
        ``count`` distinct indices, ascending; int64.

    Raises:
        DataError: ``count`` is out of range.

    Example:
        >>> chosen = stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 3, seed=0)
        >>> torch.tensor([0, 0, 0, 0, 1, 1])[chosen]
        tensor([0, 0, 1])
    """
    if not 0 <= count <= len(labels):
        raise DataError(f"stratified: can't draw {count} of {len(labels)} examples")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    quotas = _quotas(labels, count)
    chosen = [
        shuffled[labels[shuffled] == label][:quota] for label, quota in sorted(quotas.items())
    ]
    return torch.cat([*chosen, torch.empty(0, dtype=torch.int64)]).sort().values


def _quotas(labels: Tensor, count: int) -> dict[int, int]:
    classes, sizes = (part.tolist() for part in torch.unique(labels, return_counts=True))
    # Whole numbers throughout: a rounded share could hand out one example too many or too few.
    shares = {
        label: divmod(count * size, len(labels)) for label, size in zip(classes, sizes, strict=True)
    }
    left = count - sum(whole for whole, _ in shares.values())
    by_remainder = sorted(shares, key=lambda label: (-shares[label][1], label))
    extra = set(by_remainder[:left])
    return {label: whole + (label in extra) for label, (whole, _) in shares.items()}


def _subset(labels: Tensor, train_examples: int | None, seed: int) -> Tensor:
    if train_examples is None:
        return torch.arange(len(labels))
    if train_examples > len(labels):
        raise DataError(
            f"split: train_examples={train_examples}, but the training part has only "
            f"{len(labels)}; ask for fewer or leave it out to use all"
        )
    return stratified(labels, train_examples, seed=derive_seed(seed, "subset"))


def _check_arguments(held_out: float, train_examples: int | None, probes: int | None) -> None:
    if not 0 < held_out < 1:
        raise ConfigError(f"split: expected held_out in (0, 1), got {held_out:g}")
    for name, value in (("train_examples", train_examples), ("probe_examples", probes)):
        if value is not None and value < 1:
            raise ConfigError(f"split: expected {name} of at least 1, got {value}")
