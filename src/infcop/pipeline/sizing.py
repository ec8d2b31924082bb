"""What the density of a search is a fraction of: entries, multiply-adds, or time."""

from __future__ import annotations

import math

from torch import nn

from infcop.collapse.channels import channel_groups
from infcop.core.channels import ChannelGroups
from infcop.core.config import SearchConfig
from infcop.errors import PruningError
from infcop.masking.coupled import Prices
from infcop.masking.groups import Groups, build_groups
from infcop.models.batches import resized
from infcop.models.calling import Inputs
from infcop.models.flops import multiply_adds
from infcop.models.prunable import Prunable
from infcop.models.weight_axes import weight_axes

__all__ = ["groups_for"]


_FEW = 2
"""Examples that are enough to follow channels."""


def groups_for(
    model: nn.Module, prunable: Prunable, config: SearchConfig, inputs: Inputs, examples: int
) -> Groups:
    """Return what the pattern of a search ties together, and what counts as the network's size.

    Args:
        model: The model.
        prunable: Its weights that may be pruned.
        config: The pattern and ``density_in`` are used.
        inputs: What the model is called with.
        examples: How many examples these are.

    Raises:
        CollapseError: The channels of the model can't be followed.
        PruningError: The pattern can't be laid over the weights.
    """
    pattern = config.method.pattern
    channels = prices = None
    if pattern.kind == "coupled-channels":
        few = resized(inputs, examples, _FEW)
        channels = channel_groups(model, inputs if few is None else few, prunable.names)
    if channels is not None and config.density_in != "parameters":
        prices = _multiply_adds(model, prunable, inputs, examples)
        _check_prices(prices, channels, config.density_in)
    axes = weight_axes(model, prunable.names)
    return build_groups(pattern, axes, prunable.shapes, channels=channels, prices=prices)


def _multiply_adds(model: nn.Module, prunable: Prunable, inputs: Inputs, examples: int) -> Prices:
    """Return the multiply-adds that an entry of each weight takes part in."""
    found = multiply_adds(model, inputs, examples=examples)
    first = {id(model.get_parameter(name)): name for name in prunable.names}
    entries = dict.fromkeys(prunable.names, 0.0)
    for layer, module in model.named_modules():
        # A weight that several layers share takes part in the products of all of them.
        name = first.get(id(getattr(module, "weight", None)))
        if name is not None:
            entries[name] += found.by_module.get(layer, 0) / math.prod(prunable.shapes[name])
    priced = sum(entries[name] * math.prod(prunable.shapes[name]) for name in entries)
    return Prices(entries, found.total - priced)


def _check_prices(prices: Prices, channels: ChannelGroups, density_in: str) -> None:
    for name, places in channels.places.items():
        in_groups = any(bool((numbers >= 0).any()) for numbers in places)
        if in_groups and prices.entries[name] == 0:
            raise PruningError(
                f"density_in '{density_in}' needs the multiply-adds of '{name}', but none were "
                "counted in its layer: another module computes with the weight. Leave it dense "
                f"(method.exclude = ['{name}']), or use density_in 'parameters'"
            )
