"""The model inside of wrappers, and compiled code without its compilation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["uncompiled", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of ``torch.compile``, ``DistributedDataParallel``, ``DataParallel``.

    Wrappers around wrappers are taken off too; any other model is returned as it is. The weights
    are the same objects.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> unwrapped(DataParallel(model)) is model
        True
    """
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif type(model).__name__ == "OptimizedModule" and "_orig_mod" in model._modules:
            # The class of a compiled model; importing it would load the whole compiler.
            model = model.get_submodule("_orig_mod")
        else:
            return model


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what ``torch.compile`` has made of models as it was written, while the context lasts.

    Compiled code may have been made without the hooks that listen to layers.

    Example:
        >>> with uncompiled():
        ...     nn.Linear(2, 1)(torch.ones(1, 2)).shape
        torch.Size([1, 1])
    """
    # Unless the compiler is loaded there is no such code, and asking for it would load it.
    if "torch._dynamo" in sys.modules:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
