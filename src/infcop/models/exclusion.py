"""Why a parameter is not pruned."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from infcop.models.kinds import layer_kind

__all__ = ["exclusion_reason", "unfit"]

_OTHER_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), "normalisation"),
    ((nn.Embedding, nn.EmbeddingBag), "embedding"),
    ((nn.RNNBase, nn.RNNCellBase), "recurrent layer"),
)


def unfit(weight: nn.Parameter) -> str | None:
    """Return why the weight of a linear layer or a convolution can't be pruned, if so.

    Example:
        >>> unfit(nn.Linear(2, 2).weight.requires_grad_(False))
        'frozen: requires_grad is False'
    """
    if type(weight) is not nn.Parameter:
        return f"not a plain parameter ({type(weight).__name__})"
    if not weight.is_floating_point():
        return f"not floating point ({weight.dtype})"
    if not weight.requires_grad:
        return "frozen: requires_grad is False"
    if weight.numel() == 0:
        return "empty"
    return None


def exclusion_reason(model: nn.Module, name: str, parameter: nn.Parameter) -> str:
    """Return why the parameter of this name is not prunable, given that it isn't.

    Example:
        >>> model = nn.Sequential(nn.Embedding(2, 2))
        >>> exclusion_reason(model, "0.weight", model[0].weight)
        'embedding'
    """
    owner, _, own_name = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, ParametrizationList):
        return "parametrized: the weight is computed from it"
    if isinstance(module, nn.MultiheadAttention) and own_name.endswith("proj_weight"):
        return "packed projection of an attention layer, not a module of its own"
    for kinds, kind in _OTHER_KINDS:
        if isinstance(module, kinds):
            return kind
    if own_name.startswith("bias") or own_name.endswith("bias"):
        return "bias"
    if layer_kind(module) is not None:
        if "weight" not in module._parameters:
            # The old weight_norm and spectral_norm keep their parts beside a computed weight.
            return "parametrized: the weight is computed from it"
        if own_name == "weight" and (reason := unfit(parameter)) is not None:
            return reason
    return f"not the weight of a linear layer or a convolution ({type(module).__name__})"
