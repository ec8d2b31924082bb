"""Pruning whole groups of entries, by the scope of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import Block, Channel, Heads
from infcop.core.scope import Budgets
from infcop.errors import LayerCollapseError, PruningError
from infcop.masking.densities import check_floor
from infcop.masking.groups import Groups
from infcop.masking.limits import layer_limits
from infcop.masking.prune_groups import Scored, protect, prune_units, score_units

__all__ = ["shrink_units"]


def shrink_units(
    scores: Mapping[str, Tensor],
    masks: Masks,
    method: MethodConfig,
    kept: int,
    target_kept: int,
    groups: Groups,
) -> Masks:
    """Remove whole groups until at most so many entries are left.

    With a scope that looks at each layer, this holds in each, so that all together may end some
    groups below. Weights that the pattern has no groups in are left as they are, and counted.

    Args:
        scores: Importance of every entry.
        masks: What is alive.
        method: Scope, ``keep_per_layer`` and ``empty_layers`` are used.
        kept: Entries to survive at most.
        target_kept: Entries to survive at the end of the search.
        groups: The groups of pattern "block", "channel" or "heads".

    Raises:
        PruningError: The counts or the scope can't be honoured, or scores are unusable.

    Example:
        >>> import torch
        >>> from infcop.masking.groups import build_groups
        >>> from infcop.models.weight_axes import WeightAxes
        >>> groups = build_groups(Channel(), {"fc": WeightAxes(0, 1)}, {"fc": (3, 2)})
        >>> scores = {"fc": torch.tensor([[3.0, 4.0], [1.0, 9.0], [0.0, 1.0]])}
        >>> masks, method = Masks.full({"fc": (3, 2)}), MethodConfig(name="mine")
        >>> shrink_units(scores, masks, method, 3, 2, groups)["fc"].tolist()
        [[False, False], [True, True], [False, False]]
    """
    pattern, scope = groups.pattern, method.scope
    assert isinstance(pattern, Block | Channel | Heads)
    if scope == "lamp":
        raise PruningError(
            f"scope 'lamp' is of single entries and has no meaning for pattern '{pattern.kind}'; "
            "use scope 'global', 'layerwise', 'uniform', 'erk' or densities of layers"
        )
    scored = score_units(groups.units, pattern.reduce, scores, masks)
    outside = masks.kept - sum(one.alive for one in scored)
    scored = _protected(scored, method, kept, target_kept, outside, masks)
    if scope == "global":
        pruned = prune_units(scored, kept - outside, masks)
    else:
        names = {next(iter(one.unit.tiles)): one for one in scored}
        shapes = {n: tuple(masks[n].shape) for one in scored for n in one.unit.tiles}
        if isinstance(scope, Budgets):
            check_floor(scope, shapes, target_kept - outside, method.keep_per_layer)
        limits = layer_limits(
            scope,
            shapes,
            {name: tuple(one.unit.tiles) for name, one in names.items()},
            alive={name: one.alive for name, one in names.items()},
            least={name: one.least for name, one in names.items()},
            kept=kept - outside,
            target_kept=target_kept - outside,
        )
        pruned = {}
        for name, one in names.items():
            pruned |= prune_units([one], limits[name], masks)
    return Masks({name: pruned.get(name, mask) for name, mask in masks.items()})


def _protected(
    scored: Sequence[Scored],
    method: MethodConfig,
    kept: int,
    target_kept: int,
    outside: int,
    masks: Masks,
) -> list[Scored]:
    """Protect the groups that layers keep at least.

    A scope that looks at each layer leaves it a group, as long as there are enough for all.
    """
    bare = protect(scored, method.keep_per_layer)
    one_each = protect(scored, max(1, method.keep_per_layer))
    required = one_each if method.empty_layers == "error" else bare
    least = outside + sum(one.least for one in required)
    if kept < least:
        remedies = ["ask for a higher density"]
        remedies += ["exclude the other weights (method.exclude)"] if outside else []
        remedies += ["lower keep_per_layer"] if method.keep_per_layer else []
        remedies += ["set empty_layers='report'"] if required is one_each else []
        where = f", {outside} of them in weights that it has no groups in" if outside else ""
        message = (
            f"pattern '{method.pattern.kind}' leaves {least} of {masks.total} entries at least "
            f"(density {least / masks.total:.6g}){where}, but only {kept} may survive; "
            f"{', or '.join(remedies)}"
        )
        raise PruningError(message) if target_kept < least else LayerCollapseError(message)
    by_layer = method.scope != "global"
    return one_each if by_layer and kept >= outside + sum(o.least for o in one_each) else bare
