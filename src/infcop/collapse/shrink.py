"""The copy of a model without what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from infcop.collapse.copies import lean_copy
from infcop.collapse.plan import Plan, sliced

__all__ = ["knows_its_sizes", "shrink"]

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


_PER_CHANNEL = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def shrink(model: nn.Module, plan: Plan, stated: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Return a smaller copy of a model, of the same classes; tied parameters stay tied.

    Parameters of which nothing is removed are those of the model.

    Args:
        model: The model, with masked weights.
        plan: What to keep.
        stated: By module, attributes that state a size, with their new values.
    """
    small = lean_copy(model)
    done: dict[int, Tensor] = {}
    for path, module in small.named_modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    full = f"{path}.{name}" if path else name
                    own[name] = done.setdefault(id(tensor), _smaller(tensor, full, plan))
        _tell(module, path, model, plan)
        for name, size in stated.get(path, {}).items():
            setattr(module, name, size)
    for name, amount in plan.made.items():
        layer = small.get_submodule(name.rpartition(".")[0])
        values = amount.to(layer.get_parameter("weight"), copy=True)
        layer.register_parameter("bias", nn.Parameter(values, requires_grad=False))
    return small


def _smaller(tensor: Tensor, name: str, plan: Plan) -> Any:
    """Return what is left of a parameter or buffer."""
    kept = plan.kept[name]
    if name not in plan.added and all(positions is None for positions in kept):
        return tensor
    left = sliced(tensor.detach(), kept).contiguous(memory_format=_format(tensor))
    if name in plan.added:
        left = (left.double() + plan.added[name]).to(left.dtype)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(left, requires_grad=tensor.requires_grad)
    return left


def _format(tensor: Tensor) -> torch.memory_format:
    """Return the order of entries in memory, which picking some does not keep."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    found = formats.get(tensor.ndim)
    if found is not None and tensor.is_contiguous(memory_format=found):
        return found
    return torch.contiguous_format


def knows_its_sizes(module: nn.Module) -> bool:
    """Whether the sizes of a layer are those of its weight, so that it needs no other change.

    Example:
        >>> knows_its_sizes(nn.Linear(1, 1)), knows_its_sizes(nn.Sequential())
        (True, False)
    """
    others = (nn.Linear, nn.GroupNorm, nn.Embedding, nn.PReLU)
    return isinstance(module, (*_CONVOLUTIONS, *_PER_CHANNEL, *others)) or _is_conv1d(module)


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is the linear layer of transformers whose weight is [inputs, outputs]."""
    return hasattr(module, "nf") and type(module).__name__ == "Conv1D"


def _tell(module: nn.Module, path: str, model: nn.Module, plan: Plan) -> None:
    """Let the attributes of a known layer say its new sizes."""
    found = (module._parameters.get("weight"), module._buffers.get("running_mean"))
    weight = next((tensor for tensor in found if tensor is not None), None)
    if weight is None:
        _tell_channels(module, plan.channels.get(path))
        return
    if isinstance(module, _CONVOLUTIONS):
        name = f"{path}.weight" if path else "weight"
        rows, size = plan.kept[name][0], len(model.get_parameter(name))
        module.groups = _groups_of(rows, module.groups, size)
        outputs, inputs = (1, 0) if module.transposed else (0, 1)
        module.out_channels = weight.shape[outputs] * (module.groups if module.transposed else 1)
        module.in_channels = weight.shape[inputs] * (1 if module.transposed else module.groups)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.GroupNorm):
        rows = plan.kept[f"{path}.weight" if path else "weight"][0]
        module.num_groups = _groups_of(rows, module.num_groups, module.num_channels)
        module.num_channels = len(weight)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)
    elif isinstance(module, _PER_CHANNEL):
        module.num_features = len(weight)
    elif _is_conv1d(module):
        vars(module).update(zip(("nx", "nf"), weight.shape, strict=True))


def _tell_channels(module: nn.Module, rows: Tensor | None) -> None:
    """Do the same for a normalisation without parameters and statistics."""
    if rows is None:
        return
    if isinstance(module, nn.GroupNorm):
        module.num_groups = _groups_of(rows, module.num_groups, module.num_channels)
        module.num_channels = len(rows)
    elif isinstance(module, _PER_CHANNEL):
        module.num_features = len(rows)


def _groups_of(rows: Tensor | None, groups: int, size: int) -> int:
    """Return how many groups still have channels."""
    if groups == 1 or rows is None:
        return groups
    return len(torch.unique(rows // (size // groups)))
