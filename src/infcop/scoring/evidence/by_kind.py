"""What a score asks for, by the kind of its evidence: any score of a kind gets what others get."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import assert_never

from infcop.core.names import did_you_mean
from infcop.core.records import Cost
from infcop.core.rng import derive_seed
from infcop.core.score import Score
from infcop.errors import PruningError
from infcop.scoring import EvidenceKind
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.gradient import mean_gradient
from infcop.scoring.evidence.hessian import hessian_gradient
from infcop.scoring.evidence.inputs import input_norms
from infcop.scoring.evidence.squared import squared_gradient
from infcop.scoring.evidence.synaptic_once import synaptic_flow_once
from infcop.scoring.evidence.unit_correlation import unit_correlations

__all__ = ["evidence_of_kind", "moved", "noise"]

_HESSIAN_PRODUCT = 3
"""What an example's product with the Hessian costs, in units of its gradient."""


def evidence_of_kind(
    kind: EvidenceKind,
    score: Score,
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    examples: Examples,
    *,
    seed: int,
    movement: Mapping[str, Tensor] | None,
    checked: bool,
) -> tuple[Mapping[str, Tensor], Cost]:
    """Return evidence of a kind by parameter name, and what it cost.

    Args:
        kind: Which evidence.
        score: Read are ``mode`` (evaluation where it has none), ``temperature`` (else 1) and
            ``any_activation`` (else false), as far as the kind knows of them.
        model: The model, without wrappers.
        parameters: Its weights by name.
        examples: What it is called with.
        seed: Of noise.
        movement: Sums of ``-weight * gradient``, where training has made some.
        checked: Whether the network is known to be positively homogeneous.

    Raises:
        PruningError: The evidence can't be had.

    Example:
        >>> from infcop.core.score import Magnitude
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 1)
        >>> batch = (torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> values, cost = evidence_of_kind(
        ...     "input-norm", Magnitude(), model, {"weight": model.weight}, examples,
        ...     seed=0, movement=None, checked=False,
        ... )
        >>> values, cost.measuring
        ({'weight': tensor([[3., 1.]], dtype=torch.float64)}, 1)
    """
    train = getattr(score, "mode", "eval") == "train"
    match kind:
        case "none":
            return {}, Cost()
        case "noise":
            return noise(parameters, seed), Cost()
        case "movement":
            return moved(movement, parameters), Cost()
        case "gradient":
            mean = mean_gradient(model, parameters, examples, train=train)
            return mean.values(), Cost(measuring_gradient=mean.examples)
        case "hessian-gradient":
            temperature = getattr(score, "temperature", 1.0)
            mean = hessian_gradient(
                model, parameters, examples, train=train, temperature=temperature
            )
            return mean.values(), Cost(measuring_gradient=(1 + _HESSIAN_PRODUCT) * mean.examples)
        case "squared-gradient":
            mean = squared_gradient(model, parameters, examples)
            return mean.values(), Cost(measuring_gradient=mean.examples)
        case "synaptic-flow":
            any_activation = checked or getattr(score, "any_activation", False)
            return synaptic_flow_once(model, parameters, examples, any_activation=any_activation)
        case "input-norm":
            values, count = input_norms(model, parameters, examples)
            return values, Cost(measuring=count)
        case "input-correlation":
            values, count = unit_correlations(model, parameters, examples)
            return values, Cost(measuring=count)
        case _:
            assert_never(kind)


def noise(parameters: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return standard normal numbers for every weight, float64.

    By name, so that other layers and their order do not matter; on the CPU, so that the device
    does not.

    Example:
        >>> noise({"w": torch.zeros(2)}, seed=0)["w"].shape
        torch.Size([2])
    """
    drawn = {}
    for name, parameter in parameters.items():
        generator = torch.Generator().manual_seed(derive_seed(seed, "scoring", "noise", name))
        drawn[name] = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return drawn


def moved(
    movement: Mapping[str, Tensor] | None, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the sums of these weights, beside them.

    Raises:
        PruningError: There is none, or one is missing or of another shape than its weight.

    Example:
        >>> moved({"w": torch.ones(2), "b": torch.ones(1)}, {"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    if movement is None:
        raise PruningError(
            "score 'movement': nothing has been trained yet, so no weight has moved; start from a "
            "trained network (method.start), or use another score"
        )
    for name, parameter in parameters.items():
        if name not in movement or movement[name].shape != parameter.shape:
            got = f"shape {tuple(movement[name].shape)}" if name in movement else "none"
            raise PruningError(
                f"score 'movement': expected a sum of shape {tuple(parameter.shape)} for "
                f"'{name}', got {got}; {did_you_mean(name, movement)}"
            )
    return {name: movement[name].detach().to(p.device) for name, p in parameters.items()}
