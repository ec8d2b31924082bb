"""Measure a model without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from infcop.core.rng import preserved_rng
from infcop.errors import FlowError

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and give it back as it was, also after an exception.

    Restored are the training flag of every module (they may differ), every buffer, the weights of
    embeddings that renormalise themselves, and the global generators of Python, NumPy and PyTorch,
    from which loaders draw. Other parameters are not copied, since that would cost the memory of a
    second model: a model that writes to them while it is evaluated is told so.

    Raises:
        FlowError: A parameter was written to in place.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> with undisturbed(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    flags = [(module, module.training) for module in model.modules()]
    # A forward pass may bind another tensor, or the first one, to a buffer's name.
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    renormalised = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
    ]
    values = [(t, t.detach().clone()) for t in (*model.buffers(), *renormalised)]
    versions = [
        (name, parameter, parameter._version)
        for name, parameter in _others(model)
        if not parameter.is_inference()  # These have no version; nothing may write to them anyway.
    ]
    with preserved_rng():
        try:
            model.eval()
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            for module, own in buffers:
                module._buffers.clear()
                module._buffers.update(own)
            _write_back(values)
    written = [name for name, parameter, version in versions if parameter._version != version]
    if written:
        raise FlowError(
            f"flow: the model writes to its parameters {written[:3]} in evaluation mode, so it "
            "can't be measured without a trace; let its forward pass compute new tensors instead"
        )


def _others(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that are not restored."""
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            continue
        yield from module.named_parameters(prefix, recurse=False)


@torch.no_grad()
def _write_back(values: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, before in values:
        # Compared by value, since writes through ``.data`` leave no other trace; and not written
        # without need, since an expanded buffer can't be.
        if not torch.equal(tensor, before):
            tensor.copy_(before)
