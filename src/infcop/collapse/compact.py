"""From a masked network to the smallest dense one that does the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from infcop.collapse.copies import lean_copy
from infcop.collapse.digest import Removed, removed_of
from infcop.collapse.exported import arguments_of, entries_of, trace
from infcop.collapse.plan import sliced
from infcop.collapse.repair import prove
from infcop.collapse.report import CollapseReport, report_on
from infcop.collapse.run import run
from infcop.collapse.verify import Reference
from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.core.rng import preserved_rng
from infcop.errors import CollapseError, PruningError
from infcop.models.calling import Inputs
from infcop.models.unwrap import unwrapped

__all__ = ["Compact", "compact"]


@dataclass(frozen=True, eq=False)
class Compact:
    """A smaller network, and how it came about.

    Attributes:
        model: The network: a smaller copy of the original, of the same classes.
        kept: For every parameter and buffer that both have, the original positions of what is left
            along each dimension; None for all.
        folded: What constants have been added to a bias, float64, by its name.
        new_biases: Those biases that the original has not. They are not trained.
        report: What became of each layer.
        masks: What survives of the parameters of the smaller network, by name: those of the
            original that had a mask, cut in the same way. A network that is trained on has to be
            kept to them.
        removed: What made the constants of ``folded``, to be recognised; None without any.
    """

    model: nn.Module
    kept: dict[str, tuple[Tensor | None, ...]]
    folded: dict[str, Tensor]
    new_biases: frozenset[str]
    report: CollapseReport
    masks: Masks
    removed: Removed | None


def compact(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example_inputs: Inputs,
    *,
    fold: bool = True,
) -> Compact:
    """Make the smallest dense network that does what the masked network does.

    Units (channels, neurons, heads, columns of embeddings) that no surviving weight reaches or
    leaves are removed from all tensors. A unit that is constant whatever the inputs is removed
    too if a bias can take over what it adds. The result is verified, in evaluation mode, on the
    example inputs and on random ones of the same kind: equal outputs, and equal gradients by the
    inputs and by the surviving parameters, up to ``TOLERANCE``, in float64 if the model runs there;
    those by parameters of large models are rounded to float32 before, and may be that rounding
    further apart. In float32 outputs are compared then, and no gradients: where rounding decides on
    which side of a ReLU a number is, those of one and the same network are off by percents. Outputs
    are also compared for inputs of other sizes, as far as the model takes them.
    ``report.verified`` says what was done.

    Args:
        model: Any model in float32 or float64; it is left as it is. Its training flags are those
            of the copy.
        masks: What survives, by parameter; parameters without a mask survive as a whole.
        example_inputs: A tuple of positional arguments or a mapping of keyword arguments.
        fold: Whether constants are added to biases: for inference. Without it only units go that
            nothing reads or that stay zero in any training; the smaller network then trains as the
            masked one does, and is compared with it in training mode too, without dropout. Where
            random numbers are drawn still, it only has to run there.

    Returns:
        The network, on the device of the model.

    Raises:
        PruningError: A mask belongs to no parameter, or is not boolean or of another shape.
        CollapseError: The model can't be copied, run or traced, or nothing could be verified.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> masks = Masks({"2.weight": torch.tensor([[True, False, True]])})
        >>> small = compact(model, masks, (torch.randn(4, 2),))
        >>> small.model[0]
        Linear(in_features=2, out_features=2, bias=True)
        >>> small.kept["0.weight"]
        (tensor([0, 2]), None)
    """
    model = unwrapped(model)
    _check_model(model)
    _check_masks(masks)
    arguments = pytree.tree_map(_to_cpu, arguments_of(example_inputs))
    with preserved_rng():
        masked = _copied(model).cpu().eval()
        own_masks = _masked(masked, Masks(masks))
        reference = Reference(masked, own_masks, arguments, trains=not fold)
        findings = run(trace(lean_copy(masked), arguments), own_masks, trains=not fold)
        proven = prove(masked, findings, reference, fold=fold)
        plan, small = proven.plan, proven.model
        verified = reference.verified(small, plan)
    report = report_on(masked, proven, findings, verified)
    made = {_bias_of(weight): amount for weight, amount in plan.made.items()}
    for name, module in model.named_modules():
        small.get_submodule(name).training = module.training
    folded = {**plan.added, **made}
    left = Masks({name: sliced(mask, plan.kept[name]) for name, mask in own_masks.items()})
    removed = removed_of(entries_of(masked), plan.kept, own_masks) if folded else None
    device = next((p.device for p in entries_of(model).values()), torch.device("cpu"))
    return Compact(*(small.to(device), plan.kept, folded, frozenset(made), report, left, removed))


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"


def _to_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise CollapseError(
            f"compact: expected a model that copy.deepcopy can copy, but it fails: {error}; remove "
            "what can't be copied, for instance with torch.nn.utils.prune.remove"
        ) from error


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise CollapseError(f"compact: expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CollapseError(
                f"compact: expected Python modules, but '{name}' is scripted, and its operations "
                "can't be seen; pass the module that it was made from"
            )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise CollapseError(
                f"compact: '{name}' is not initialised yet; run one batch through the model first"
            )
        known = (torch.float32, torch.float64)
        if parameter.is_floating_point() and parameter.dtype not in known:
            raise CollapseError(
                f"compact: expected float32 or float64, got {parameter.dtype} in '{name}'; "
                "convert with model.float() first"
            )
    devices = {str(tensor.device) for tensor in entries_of(model).values()}
    if len(devices) > 1:
        raise CollapseError(
            f"compact: expected a model on one device, got {', '.join(sorted(devices))}; move it "
            "with model.to(device)"
        )
    if any(tensor.is_meta for tensor in entries_of(model).values()):
        raise CollapseError(
            "compact: expected parameters and buffers with values, got some on the device 'meta'; "
            "load the weights first"
        )


def _check_masks(masks: Any) -> None:
    if not isinstance(masks, Mapping) or not all(isinstance(x, Tensor) for x in masks.values()):
        raise PruningError(
            "compact: expected masks as a mapping from names of parameters to boolean tensors, got "
            f"{type(masks).__name__} {masks!r:.80}; give {{}} for a network without masks"
        )
    for name, mask in masks.items():
        if mask.is_meta:
            raise PruningError(
                f"compact: expected a mask with values for '{name}', got one on the device 'meta'; "
                "give the mask itself"
            )


def _masked(model: nn.Module, masks: Masks) -> Masks:
    """Put pruned entries to zero; return the masks by the first names of their parameters."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in parameters.items():
        first.setdefault(id(parameter), name)
    found: dict[str, Tensor] = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise PruningError(
                f"compact: expected masks of parameters, but the model has no '{name}'; "
                f"{did_you_mean(name, parameters)}"
            )
        parameter = parameters[name]
        if mask.shape != parameter.shape:
            raise PruningError(
                f"compact: expected a mask of shape {tuple(parameter.shape)} for '{name}', got "
                f"{tuple(mask.shape)}; give the masks that belong to this model"
            )
        owner = first[id(parameter)]
        found[owner] = found[owner] & mask if owner in found else mask
        with torch.no_grad():
            parameter.masked_fill_(~mask, 0.0)
    return Masks(found)
