"""Gathering what a score needs to know of the model and the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from infcop.core.records import Cost
from infcop.core.rng import derive_seed, preserved_rng
from infcop.core.score import Score
from infcop.errors import PruningError
from infcop.models.prunable import get_parameters
from infcop.models.unwrap import unwrapped
from infcop.scoring import SCORES
from infcop.scoring.evidence.by_kind import evidence_of_kind
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.together import Together
from infcop.scoring.score_all import score_all
from infcop.tasks.base import Task

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Evidence", "gather", "score_all"]


@dataclass(frozen=True)
class Evidence:
    """What a score knows beside the weights.

    Attributes:
        values: By parameter name, on the devices of the parameters, broadcastable to them; empty
            for a score that needs none. In float64 where the device has it, but for movement,
            which is handed on as it was given.
        cost: What gathering it took.
    """

    values: Mapping[str, Tensor]
    cost: Cost


def gather(
    score: Score,
    model: nn.Module,
    names: Sequence[str],
    task: Task,
    batches: Callable[[], Iterable[Any]],
    *,
    seed: int,
    movement: Mapping[str, Tensor] | None = None,
    checked: bool = False,
    group: ProcessGroup | None = None,
) -> Evidence:
    """Gather what a score needs of the model and the data.

    The model, its gradients, training flags and buffers, and the global generators stay as they
    were, also after an exception. Of a compiled or distributed model, the one inside is run. A
    parameter that several layers share gets the sum of what they contribute.

    Costs: an example for each forward pass; for each with a backward pass, one in
    ``measuring_gradient``, and three for a product with the Hessian. The artificial example of the
    synaptic flow counts like any other.

    Several processes, each with a model of the same weights and batches of its own, gather the
    evidence of all their examples together: the same bits in each, which do not depend on who has
    which examples, beyond rounding in float64. A process may have none. The cost is that of all of
    them. Where one fails, all raise, and none waits for it. The first with a batch runs the
    synaptic flow for all; noise and movement need nothing of the others.

    Args:
        score: Which score, with its settings.
        model: The model on its device, with its pruned weights at exactly zero.
        names: Names of its prunable parameters.
        task: Says what the loss is and what the model is called with.
        batches: Gives the batches anew, on the model's device, the same each time.
        seed: Noise depends on it and on the name of the parameter alone; what the model draws, on
            it and on nothing drawn before.
        movement: Sums of a :class:`~infcop.scoring.movement.MovementSum`, for the score of that
            name. Under distributed data parallel training they are those of all processes already,
            since the gradients that they are made of are averaged.
        checked: Whether this model has been gathered from for this score before, and only masks
            have changed since. Whether the synaptic flow is conserved is then not asked again,
            which takes about as long as the flow itself: masks change no activation. Training may.
        group: The processes that gather together; None for this one alone. What the model draws
            depends on the rank too.

    Raises:
        PruningError: There is no example, or what was gathered is not finite or tells nothing; the
            message says what to change. With ``group``, also if another process has failed.
        ModelError: A name is unknown, or the model writes to its parameters.

    Example:
        >>> from infcop.core.score import Snip
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 2)
        >>> data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
        >>> task = Classification(data, data)
        >>> evidence = gather(Snip(), model, ["weight"], task, lambda: data, seed=0)
        >>> evidence.values["weight"].shape, evidence.cost.measuring_gradient
        (torch.Size([2, 2]), 4)
    """
    model = unwrapped(model)
    kind = SCORES[score.kind].evidence
    settings = f"{score!r}{', checked,' if checked else ''} with seed {seed}"
    together = _together(group, settings, model, names)
    # What is made in inference mode could not be differentiated later.
    with preserved_rng(), torch.inference_mode(False), together.ending_alike():
        parameters = get_parameters(model, names)
        if kind not in ("none", "noise", "movement"):
            _check_trainable(parameters)
        place = ("scoring", together.rank) if together.rank else ("scoring",)
        examples = Examples(task, batches, derive_seed(seed, *place), together)
        values, cost = evidence_of_kind(
            kind,
            score,
            model,
            parameters,
            examples,
            seed=seed,
            movement=movement,
            checked=checked,
        )
        if kind != "movement":
            values = {name: _beside(value, parameters[name]) for name, value in values.items()}
        _check_finite(score, values)
    return Evidence(values, cost)


def _check_finite(score: Score, values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        if not bool(value.isfinite().all()):
            raise PruningError(
                f"score '{score.kind}': expected finite evidence, got NaN or infinity for "
                f"'{name}'; look for non-finite inputs, weights or losses, or train with a smaller "
                "learning rate"
            )


def _together(
    group: ProcessGroup | None, settings: str, model: nn.Module, names: Sequence[str]
) -> Together:
    known = dict(model.named_parameters(remove_duplicate=False))
    shapes = {name: tuple(known[name].shape) for name in names if name in known}
    device = next((parameter.device for parameter in known.values()), None)
    return Together(group, f"{settings} of {shapes}", device)


def _check_trainable(parameters: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            raise PruningError(
                f"gather: expected '{name}' to be trainable, but it is frozen; set its "
                "requires_grad, or leave it out"
            )


def _beside(evidence: Tensor, weight: Tensor) -> Tensor:
    """Return evidence on the device of its weight, in float64 where that device has it.

    Squares of gradients and products of many layers leave the range of float32.
    """
    dtype = torch.float32 if weight.device.type == "mps" else torch.float64
    return evidence.detach().to(dtype).to(weight.device)
