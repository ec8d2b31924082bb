"""Device and precision, carried by Lightning Fabric."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from infcop.core.config import ExecutionConfig
from infcop.errors import ConfigError
from infcop.tasks.base import Loader
from infcop.training.order import ordered

__all__ = ["DeviceLoader", "Engine", "evaluating"]

# Fabric announces its choices at import and set-up; a library has no business on the terminal.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


class Engine:
    """Where the computing happens.

    Args:
        execution: Device, precision and threads.
        double: Whether the model holds float64 parameters, which are then left as they are.

    Raises:
        ConfigError: The device is not there.
    """

    def __init__(self, execution: ExecutionConfig, *, double: bool = False) -> None:
        _check_device(execution.device)
        # Fabric's "64-true" would round what the model returns to float32.
        precision: Any = "32-true" if double else execution.precision
        self._fabric = Fabric(accelerator=execution.device, devices=1, precision=precision)

    @property
    def device(self) -> torch.device:
        """The device that holds model and batches."""
        device: torch.device = self._fabric.device
        return device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and return it with the precision applied in ``forward``."""
        wrapped: nn.Module = self._fabric.setup_module(model)
        return wrapped

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimiser with the precision applied in ``step``."""
        return cast("torch.optim.Optimizer", self._fabric.setup_optimizers(optimizer))

    def backward(self, loss: Tensor, model: nn.Module) -> None:
        """Accumulate gradients."""
        self._fabric.backward(loss, model=cast("Any", model))

    def autocast(self) -> AbstractContextManager[None]:
        """Return the precision as a context, for a forward pass of the bare model."""
        context: AbstractContextManager[None] = self._fabric.autocast()
        return context

    def move(self, batch: Any) -> Any:
        """Return a batch on the device; tensors that are there already are not copied."""
        return self._fabric.to_device(batch)

    def loader(self, loader: Loader, order: int) -> DeviceLoader:
        """Return a loader whose batches are on the device, in an order that a seed gives."""
        return DeviceLoader(self, loader, order)


class DeviceLoader:
    """A loader whose batches arrive on the engine's device, each time in the same order.

    Iterating over one that shuffles sets the global generators: keep them around it.
    """

    def __init__(self, engine: Engine, loader: Loader, order: int) -> None:
        self._engine, self._loader, self._order = engine, loader, order

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return map(self._engine.move, ordered(self._loader, self._order, 0))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and give every module its own mode back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _check_device(device: str) -> None:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(
            f"execution.device: expected a device of this machine, got '{device}', which PyTorch "
            "does not see; use 'cpu' or 'auto'"
        )
