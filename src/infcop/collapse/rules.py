"""Which rule an operation follows."""

from __future__ import annotations

from typing import Any

import torch

from infcop.collapse import (
    rules_attention,
    rules_conv,
    rules_index,
    rules_linear,
    rules_norm,
    rules_pointwise,
    rules_pool,
    rules_reduce,
    rules_structure,
)
from infcop.collapse.call import Rule, unknown
from infcop.collapse.rules_pointwise import pointwise

__all__ = ["RULES", "SIZED", "rule_for"]

RULES: dict[str, Rule] = {
    **rules_pointwise.RULES,
    **rules_structure.RULES,
    **rules_index.RULES,
    **rules_linear.RULES,
    **rules_conv.RULES,
    **rules_reduce.RULES,
    **rules_norm.RULES,
    **rules_pool.RULES,
    **rules_attention.RULES,
}
"""The rule of each operation, by its name in ATen."""

SIZED = frozenset(
    (
        *("view", "reshape", "unflatten", "expand", "split", "split_with_sizes"),
        *("chunk", "tensor_split", "repeat_interleave", "layer_norm", "rms_norm", "group_norm"),
        *("flatten", "repeat", "slice", "narrow", "batch_norm", "instance_norm"),
    )
)
"""Operations for which a model may state sizes."""


def rule_for(name: str, target: Any) -> Rule:
    """Return the rule of an operation.

    Args:
        name: The name of the operation in ATen, without the mark of writing in place.
        target: The operation.

    Example:
        >>> rule_for("tanh", torch.ops.aten.tanh.default).__name__
        'pointwise'
        >>> rule_for("fft_fft", torch.ops.aten.fft_fft.default).__name__
        'unknown'
    """
    if name in RULES:
        return RULES[name]
    tags = getattr(target, "tags", ())
    random = torch.Tag.nondeterministic_seeded in tags
    return pointwise if torch.Tag.pointwise in tags and not random else unknown
