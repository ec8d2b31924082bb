"""From the settings of a run to its model and task."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.config import RunConfig
from infcop.core.rng import derive_seed, preserved_rng, seed_all
from infcop.data.arrays import ImageSet
from infcop.data.loader import TensorLoader
from infcop.data.registry import load_set
from infcop.data.splits import Splits, split
from infcop.models.build import build_model
from infcop.pipeline.progress import Progress
from infcop.pipeline.result import Result
from infcop.pipeline.search import run_search
from infcop.tasks.classification import Classification
from infcop.training.engine import Engine

__all__ = ["Workload", "build_workload", "run_config"]


@dataclass(frozen=True)
class Workload:
    """A model, a task, and how the task's data was split."""

    model: nn.Module
    task: Classification
    split: Mapping[str, Any]


def run_config(
    config: RunConfig,
    *,
    run_dir: str | os.PathLike[str],
    progress: Progress | None = None,
    dense_dir: str | os.PathLike[str] | None = None,
) -> Result:
    """Run or continue a whole run: data, model and search.

    Runs that start alike may share a ``dense_dir``, where the dense training is kept.
    """
    workload = build_workload(config)
    return run_search(
        workload.model,
        workload.task,
        config,
        run_dir=run_dir,
        model_name=config.model.name,
        data_name=config.data.name,
        progress=progress,
        split=workload.split,
        dense_dir=dense_dir,
    )


def build_workload(config: RunConfig) -> Workload:
    """Load and split the data and build the seeded model.

    Raises:
        DataError: The data set is missing or damaged.
        ConfigError: The data set or the model is unknown.
        ModelError: The model can't be built for these images.
    """
    images = load_set(config.data.name, config.data.dir)
    splits = split(
        images.train.labels,
        held_out=config.data.held_out,
        seed=config.data.split_seed,
        train_examples=config.data.train_examples,
        probe_examples=config.probe_examples,
    )
    with preserved_rng():
        seed_all(derive_seed(config.seed, "model"))
        model = build_model(
            config.model.name,
            in_channels=images.channels,
            image_size=images.image_size[0],
            num_classes=images.num_classes,
            options=config.model.options,
        )
    facts = {"seed": config.data.split_seed, "fingerprint": splits.fingerprint}
    device = Engine(config.execution).device
    return Workload(model, _task(config, images, splits, device), facts)


def _task(
    config: RunConfig, images: ImageSet, splits: Splits, device: torch.device
) -> Classification:
    """Return the task with all its data in the device's memory."""
    train, test = images.train, images.test
    augment = config.data.augment
    if augment is None:
        augment = images.channels == 3 and images.image_size == (32, 32)

    def fixed(pixels: Tensor, labels: Tensor) -> TensorLoader:
        return TensorLoader(
            pixels,
            labels,
            # As in training: no more memory than that, and gradient flow per batch depends on it.
            batch_size=config.training.batch_size,
            mean=images.mean,
            std=images.std,
            shuffle_seed=None,
            augment=False,
            device=device,
        )

    return Classification(
        TensorLoader(
            train.images[splits.train],
            train.labels[splits.train],
            batch_size=config.training.batch_size,
            mean=images.mean,
            std=images.std,
            shuffle_seed=derive_seed(config.seed, "order"),
            augment=augment,
            device=device,
        ),
        fixed(train.images[splits.held_out], train.labels[splits.held_out]),
        fixed(test.images, test.labels),
        fixed(train.images[splits.probe], train.labels[splits.probe]),
        label_smoothing=config.training.label_smoothing,
    )
