"""How a scope that gives each layer a density of its own shares out what survives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction as Rational

from infcop.core.names import did_you_mean
from infcop.core.scope import Budgets
from infcop.errors import PruningError
from infcop.masking.exact import as_written

__all__ = ["budget_counts", "budget_weights", "check_floor", "erk_weights", "size_weights"]

Shapes = Mapping[str, tuple[int, ...]]


def size_weights(shapes: Shapes) -> dict[str, int]:
    """Return the entries of each layer: in proportion to them, all have the same density.

    Example:
        >>> size_weights({"conv": (8, 3, 3, 3), "fc": (10, 8)})
        {'conv': 216, 'fc': 80}
    """
    return {name: math.prod(shape) for name, shape in shapes.items()}


def erk_weights(shapes: Shapes) -> dict[str, int]:
    r"""Return the proportions of the kept entries by the Erdos-Renyi kernel rule.

    The density of a layer is proportional to the sum of its dimensions over their product,

    .. math:: d_l \propto \frac{n_{in} + n_{out} + h + w}{n_{in}\, n_{out}\, h\, w}

    (Evci et al., arXiv 1911.11134, section 3; of a linear layer without ``h`` and ``w``). So the
    number of its entries is proportional to the sum. A layer that would come to more than 1 stays
    dense, and the others share the rest.

    Example:
        >>> erk_weights({"conv": (8, 3, 3, 3), "fc": (10, 8)})
        {'conv': 17, 'fc': 18}
    """
    return {name: sum(shape) for name, shape in shapes.items()}


def budget_weights(budgets: Budgets, shapes: Shapes, target_kept: int) -> dict[str, Rational]:
    """Return the proportions of the removed entries by given densities.

    On the way to them each layer has lost the same part of what it loses in the end.

    Example:
        >>> budgets = Budgets(densities={"fc*": 0.25, "*": 0.5})
        >>> budget_weights(budgets, {"conv": (10,), "fc1": (40,)}, target_kept=15)
        {'conv': Fraction(5, 1), 'fc1': Fraction(30, 1)}
    """
    counts = budget_counts(budgets, shapes, target_kept)
    return {name: math.prod(shapes[name]) - count for name, count in counts.items()}


def budget_counts(budgets: Budgets, shapes: Shapes, target_kept: int) -> dict[str, Rational]:
    """Return how many entries given densities leave of each layer, before rounding.

    Args:
        budgets: Densities by names; the first that matches a layer counts.
        shapes: The shapes of the layers.
        target_kept: Entries that the search keeps of them at its end.

    Raises:
        PruningError: A layer has no density, a density has no layer, or all together don't come to
            what the search keeps, up to one entry a layer.

    Example:
        >>> budget_counts(Budgets(densities={"*": 0.3}), {"fc": (5, 3)}, target_kept=5)
        {'fc': Fraction(9, 2)}
    """
    used: set[str] = set()
    counts = {}
    for name, size in size_weights(shapes).items():
        pattern = next((p for p in budgets.densities if fnmatchcase(name, p)), None)
        if pattern is None:
            raise PruningError(
                f"scope: expected a density for every layer, got none for '{name}'; add it to "
                "scope.densities, or '*' as the last for all that are left"
            )
        used.add(pattern)
        counts[name] = as_written(budgets.densities[pattern]) * size
    for pattern in budgets.densities:
        if pattern not in used:
            earlier = [name for name in shapes if fnmatchcase(name, pattern)]
            raise PruningError(
                f"scope: the density for '{pattern}' counts for no layer; "
                + (
                    f"an earlier one matches '{earlier[0]}' already, so put it first"
                    if earlier
                    else did_you_mean(pattern, shapes)
                )
            )
    together = sum(counts.values(), Rational(0))
    if abs(together - target_kept) > len(counts):
        total = sum(size_weights(shapes).values())
        raise PruningError(
            f"scope: the densities of the layers come to {float(together / total):.6g} together, "
            f"but the search ends at {target_kept / total:.6g}; set density: "
            f"{float(together / total):.6g}, or other densities of layers"
        )
    return counts


def check_floor(budgets: Budgets, shapes: Shapes, target_kept: int, keep_per_layer: int) -> None:
    """Check that no density leaves a layer less than it must keep.

    Raises:
        PruningError: One does, or :func:`budget_counts` raises it.

    Example:
        >>> check_floor(Budgets(densities={"*": 0.3}), {"fc": (5, 2)}, 3, keep_per_layer=3)
    """
    sizes = size_weights(shapes)
    for name, count in budget_counts(budgets, shapes, target_kept).items():
        if count < min(sizes[name], keep_per_layer):
            raise PruningError(
                f"scope: the density of '{name}' leaves {float(count):g} of its {sizes[name]} "
                f"entries, fewer than keep_per_layer={keep_per_layer}; raise its density or lower "
                "keep_per_layer"
            )
