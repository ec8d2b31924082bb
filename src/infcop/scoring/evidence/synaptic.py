"""The synaptic flow of a network and its derivative by every weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.records import Cost
from infcop.errors import PruningError
from infcop.models.calling import Inputs, call
from infcop.models.nested import described, mapped, tensors_in
from infcop.models.prunable import get_parameters
from infcop.models.unwrap import uncompiled
from infcop.scoring.evidence.positive import ones_like_one, positive_copy, without_shifts

__all__ = ["synaptic_flow"]

_SCALES = (1.0, 2.0, 2.0**-20, 2.0**20)
"""Of the input, to see whether the flow scales with it. The small and the large one tell
activations apart that are straight for the values that the weights happen to give."""

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Flow:
    """What running a positive network gave.

    Attributes:
        total: The sum of its outputs, :math:`R`.
        derivatives: Of :math:`R` by every weight.
        reaches: Whether the input has any influence on the output.
        scaled: Of the network without biases, :math:`R(s x) / s` for several :math:`s`; empty
            where that was not asked for.
    """

    total: float
    derivatives: dict[str, Tensor]
    reaches: bool
    scaled: tuple[float, ...]

    def is_exact(self, dtype: torch.dtype) -> bool:
        """Whether neither overflow nor underflow can have falsified anything."""
        finfo = torch.finfo(dtype)
        # Below this, numbers lose digits on their way to zero.
        numbers = torch.tensor([self.total, *self.scaled], dtype=torch.float64).abs()
        known = bool((numbers.isfinite() & (numbers > finfo.tiny / finfo.eps)).all())
        return known and self.reaches and self.is_finite and self.refuted is None

    @property
    def refuted(self) -> tuple[float, float] | None:
        """A scale, and how much of what it should be the flow is there; None if all is well."""
        for scale, found in zip(_SCALES, self.scaled, strict=False):
            wanted = self.scaled[0]
            # Written so that NaN is found too.
            if not abs(found - wanted) <= _TOLERANCE * abs(wanted):
                return scale, found / wanted if wanted else math.nan
        return None

    @property
    def cost(self) -> Cost:
        """Passes of a single example."""
        return Cost(measuring=len(self.scaled), measuring_gradient=1)

    @property
    def is_finite(self) -> bool:
        """Whether all derivatives are finite."""
        return all(bool(d.isfinite().all()) for d in self.derivatives.values())


def synaptic_flow(
    model: nn.Module,
    names: Sequence[str],
    inputs: Inputs,
    *,
    any_activation: bool,
) -> tuple[dict[str, Tensor], Cost]:
    r"""Return :math:`\partial R / \partial |w|` for every weight, and what it cost.

    :math:`R` is the sum of the outputs of a copy of the network in which everything is positive
    (:func:`~infcop.scoring.evidence.positive.positive_copy`), for a single example of ones (Tanaka
    et al. 2020, arXiv 2006.05467, section 6). Computed in the precision of the model, and again
    in float64 where that overflows or underflows: the flow of a deep network may be 1e34.

    Args:
        model: Any model; it is not run itself, and nothing in it changes.
        names: Its prunable weights.
        inputs: What it is called with for some batch; only shapes and types matter.
        any_activation: Whether to accept a network in which the flow is not conserved.

    Raises:
        PruningError: A parameter is not finite, an input is not floating point, the flow is not
            finite or zero, or does not scale with the input.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> synaptic_flow(model, ["weight"], (torch.zeros(9, 2),), any_activation=False)[0]
        {'weight': tensor([[1., 1.]])}
    """
    weights = get_parameters(model, names).values()
    native = torch.float32 if any(w.dtype == torch.float32 for w in weights) else torch.float64
    flow = _flow(positive_copy(model), names, ones_like_one(inputs), scaled=not any_activation)
    cost = flow.cost
    if native == torch.float32 and not flow.is_exact(native):
        wide = positive_copy(model, torch.float64), ones_like_one(inputs, torch.float64)
        flow = _flow(wide[0], names, wide[1], scaled=not any_activation)
        cost += flow.cost
    _check(flow)
    return flow.derivatives, cost


def _flow(positive: nn.Module, names: Sequence[str], ones: Any, *, scaled: bool) -> _Flow:
    given = list(tensors_in(ones))
    weights = get_parameters(positive, names)
    with uncompiled(), torch.enable_grad():
        total = _total(positive, ones)
        if not total.requires_grad:
            raise PruningError(
                "score 'synflow': expected outputs that depend on the weights, got detached ones; "
                "return them with their gradients"
            )
        # Of the inputs too: with biases there is flow where no path is left from the input.
        found = torch.autograd.grad(total, [*weights.values(), *given], materialize_grads=True)
    derivatives = dict(zip(weights, found, strict=False))
    reaches = any(bool((derivative != 0).any()) for derivative in found[len(weights) :])
    by_scale: tuple[float, ...] = ()
    if scaled:
        without_shifts(positive)
        with uncompiled(), torch.no_grad():
            by_scale = tuple(
                float(_total(positive, mapped(ones, partial(torch.mul, scale)))) / scale
                for scale in _SCALES
            )
    return _Flow(float(total.detach()), derivatives, reaches, by_scale)


def _total(positive: nn.Module, ones: Inputs) -> Tensor:
    """Return the sum of all outputs."""
    try:
        output = call(positive, ones)
    except Exception as error:  # whatever the user's model raises
        raise PruningError(
            f"score 'synflow': the model rejected an example of ones ({described(ones)}): "
            f"{type(error).__name__}: {error}; use a score that looks at data"
        ) from error
    found = [tensor.sum() for tensor in tensors_in(output) if tensor.is_floating_point()]
    if not found:
        raise PruningError(
            "score 'synflow': expected the model to return tensors, alone or in tuples, lists and "
            f"mappings, got {type(output).__name__}; return the logits"
        )
    return torch.stack(found).sum()


def _check(flow: _Flow) -> None:
    # Before the network is blamed for an activation: a flow may as well be too large to be scaled.
    known = (flow.total, *flow.scaled)
    if not (all(map(math.isfinite, known)) and flow.is_finite):
        got = next((number for number in known if not math.isfinite(number)), flow.total)
        raise PruningError(
            f"score 'synflow': expected a finite flow, got {got:g} in float64 too, or one whose "
            "derivatives are not finite; look for divisions by zero, exponentials and very large "
            "weights in the model, or use another score"
        )
    if flow.refuted is not None:
        scale, share = flow.refuted
        raise PruningError(
            "score 'synflow': expected a network that is positively homogeneous, whose outputs for "
            f"{scale:g} times the input are {scale:g} times as large, got {share:.3g} of that: it "
            "holds an activation such as GELU, tanh or softmax, or a normalisation of each "
            "example. Its flow is not conserved, so nothing keeps layers from emptying; set "
            "score.any_activation to score it all the same"
        )
    if flow.total == 0 or not flow.reaches:
        raise PruningError(
            "score 'synflow': expected flow from the input to the output, got none: the network is "
            "dead, or pruned until no path is left. Prune less, or look for layers whose weights "
            "are all zero"
        )
