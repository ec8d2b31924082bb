"""What a pattern ties together in the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.core.pattern import CoupledChannels, Heads, NofM, Pattern, Unstructured
from infcop.errors import PruningError
from infcop.masking.coupled import Prices, priced_kept
from infcop.masking.tiles import Tiles, head_tiles, tiles_of
from infcop.models.weight_axes import WeightAxes

__all__ = ["Groups", "Unit", "build_groups"]


@dataclass(frozen=True)
class Unit:
    """Weights whose groups are the same: one weight, or the projections of one attention.

    Attributes:
        tiles: Of each weight, which entries belong to which group.
        count: How many groups there are.
    """

    tiles: Mapping[str, Tiles]
    count: int


@dataclass(frozen=True)
class Groups:
    """A pattern, and where it lies in the weights.

    Attributes:
        pattern: The pattern.
        axes: Where outputs and inputs are in each weight.
        units: Where whole groups are pruned; empty for patterns that choose single entries.
        channels: The channels of pattern "coupled-channels".
        prices: What counts as the size of the network; None for its entries.
    """

    pattern: Pattern = field(default_factory=Unstructured)
    axes: Mapping[str, WeightAxes] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    channels: ChannelGroups | None = None
    prices: Prices | None = None

    def counted(self, masks: Masks) -> int:
        """Return the size of what is alive, in entries or as :func:`priced_kept` counts it."""
        return masks.kept if self.prices is None else priced_kept(masks, self.prices)


def build_groups(
    pattern: Pattern,
    axes: Mapping[str, WeightAxes],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    channels: ChannelGroups | None = None,
    prices: Prices | None = None,
) -> Groups:
    """Find what a pattern ties together.

    ========  ====================================================================================
    pattern   groups
    ========  ====================================================================================
    block     rectangles of outputs times everything else, flattened; smaller ones at the edges
    channel   the entries of one output
    heads     the entries of one head in all projections of its attention; other weights in none
    ========  ====================================================================================

    Args:
        pattern: The pattern of the method.
        axes: Where outputs and inputs are in each weight.
        shapes: The shapes of these weights.
        channels: For pattern "coupled-channels", what goes together.
        prices: For the same pattern, what counts as the size of the network; None for its entries.

    Raises:
        PruningError: The pattern can't be laid over a weight.

    Example:
        >>> from infcop.core.pattern import Channel
        >>> axes = {"fc": WeightAxes(output=0, input=1)}
        >>> build_groups(Channel(), axes, {"fc": (10, 20)}).units[0].count
        10
    """
    if isinstance(pattern, Unstructured):
        return Groups(pattern, axes)
    if isinstance(pattern, NofM):
        _check_divisible(pattern, axes, shapes)
        return Groups(pattern, axes)
    if isinstance(pattern, CoupledChannels):
        if channels is None:
            raise PruningError(
                "pattern 'coupled-channels' needs the channels of the model; find them with "
                "infcop.collapse.channel_groups"
            )
        return Groups(pattern, axes, channels=channels, prices=prices)
    if isinstance(pattern, Heads):
        return Groups(pattern, axes, _attention_units(axes, shapes))
    tiles = {name: tiles_of(pattern, axes[name], shape) for name, shape in shapes.items()}
    return Groups(pattern, axes, tuple(Unit({n: t}, t.count) for n, t in tiles.items()))


def _check_divisible(
    pattern: NofM, axes: Mapping[str, WeightAxes], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    uneven = {}
    for name, shape in shapes.items():
        length = axes[name].turned_shape(shape)[1]
        if length % pattern.m:
            uneven[name] = length
    if uneven:
        lengths = ", ".join(f"'{name}' with {length}" for name, length in uneven.items())
        remedy = "choose an m that divides them"
        if len(uneven) < len(shapes):
            remedy = f"leave them dense: method.exclude = {list(uneven)}"
        raise PruningError(
            f"pattern {pattern.n}:{pattern.m} needs inputs in groups of {pattern.m}, "
            f"got {lengths}; {remedy}"
        )


def _attention_units(
    axes: Mapping[str, WeightAxes], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Unit, ...]:
    tiles: dict[str, dict[str, Tiles]] = {}
    counts = {}
    for name, one in axes.items():
        if one.heads is None:
            continue
        missing = [weight for weight in one.heads.weights if weight not in axes]
        if missing:
            present = [weight for weight in one.heads.weights if weight in axes]
            raise PruningError(
                f"pattern 'heads' needs all projections of attention "
                f"'{one.heads.attention}', but {_listed(missing)} can't be pruned or "
                f"is excluded; leave the others dense too: method.exclude = {present}"
            )
        tiles.setdefault(one.heads.attention, {})[name] = head_tiles(one.heads, one, shapes[name])
        counts[one.heads.attention] = one.heads.count
    if not tiles:
        raise PruningError(
            "pattern 'heads' needs attention whose projections are linear layers of "
            "usual names (q_proj, k_proj, v_proj and out_proj; qkv and proj; query, key and value) "
            "and which tells its number of heads (num_heads), got a model without; use pattern "
            "'channel' or 'unstructured'"
        )
    return tuple(Unit(own, counts[attention]) for attention, own in tiles.items())


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
