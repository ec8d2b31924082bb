"""The Hessian of the mean loss times its gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from infcop.errors import PruningError
from infcop.models.gradients import loss_gradients
from infcop.models.nested import mapped, tensors_in
from infcop.models.nodes import nodes_behind
from infcop.scoring.evidence.examples import Examples
from infcop.scoring.evidence.gradient import WeightedMean, mean_gradient, no_gradient
from infcop.scoring.evidence.measuring import measuring

__all__ = ["hessian_gradient"]


def hessian_gradient(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    examples: Examples,
    *,
    train: bool,
    temperature: float,
) -> WeightedMean:
    r"""Return :math:`H g` of the mean loss over all examples, with respect to the weights given.

    Two passes over the data: one sums up :math:`g`, the other the products of each batch's Hessian
    with it, :math:`\frac{1}{N} \sum_b B_b H_b g`. Several processes join :math:`g` between the two,
    so that each multiplies with the same one. All outputs of the model are divided by the
    temperature, before the loss (Wang et al. 2020, arXiv 2002.07376; the public code of arXiv
    2006.05467). Weights that are exactly zero count as pruned: they have no part in :math:`g`.

    Args:
        model: The model.
        parameters: Its weights by name.
        examples: What the loss is computed on.
        train: Whether in training mode.
        temperature: Divides every floating-point tensor that the model returns.

    Raises:
        PruningError: There is no example; no gradient, or none of a gradient, can be had; or the
            temperature can't be applied.

    Example:
        >>> from infcop.tasks.classification import Classification
        >>> model = nn.Linear(2, 2)
        >>> batch = (torch.ones(3, 2), torch.tensor([0, 1, 1]))
        >>> examples = Examples(Classification([batch], [batch]), lambda: [batch], seed=0)
        >>> found = hessian_gradient(
        ...     model, {"weight": model.weight}, examples, train=False, temperature=200.0
        ... )
        >>> found.examples, found.values()["weight"].shape
        (3, torch.Size([2, 2]))
    """
    products = WeightedMean()
    # Fused attention has no second derivatives.
    with _divided_outputs(model, temperature) as divided, sdpa_kernel(SDPBackend.MATH):
        gradient = mean_gradient(model, parameters, examples, train=train).values()
        vectors = {
            name: gradient[name].to(p.device, p.dtype).masked_fill(p.detach() == 0, 0)
            for name, p in parameters.items()
        }
        with measuring(model, train=train, gradients=True):
            for size, batch in examples:
                loss = examples.task.training_step(model, batch)
                products.add(_product(loss, parameters, vectors), size)
    # A process without examples calls nothing.
    if temperature != 1 and products.examples and not divided:
        raise PruningError(
            f"score 'grasp': expected task.training_step to call the model, so that the "
            f"temperature ({temperature:g}) can divide its outputs, but it calls only parts of it; "
            "call model(...), or set score.temperature to 1"
        )
    return products.joined(parameters, examples.together)


def _product(
    loss: Tensor, parameters: Mapping[str, Tensor], vectors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the Hessian of a loss times vectors."""
    gradients = loss_gradients(loss, parameters, create_graph=True, failed=no_gradient)
    _refuse_single_derivatives(gradients.values())
    # A loss that is linear in a weight has a gradient without a graph there.
    curved = [name for name, gradient in gradients.items() if gradient.requires_grad]
    if not curved:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    try:
        products = torch.autograd.grad(
            [gradients[name] for name in curved],
            list(parameters.values()),
            [vectors[name] for name in curved],
            materialize_grads=True,
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _not_twice(str(error)) from error
    return dict(zip(parameters, products, strict=True))


def _refuse_single_derivatives(gradients: Iterable[Tensor]) -> None:
    """What may be differentiated once stands in the graph, but leads nowhere and is passed over."""
    if any(node.name() == "torch::autograd::Error" for node in nodes_behind(gradients)):
        raise _not_twice("a function is marked with once_differentiable")


def _not_twice(reason: str) -> PruningError:
    return PruningError(
        "score 'grasp': expected a model that can be differentiated twice, but autograd says: "
        f"{reason}; replace that operation, or use another score"
    )


@contextmanager
def _divided_outputs(model: nn.Module, temperature: float) -> Iterator[set[str]]:
    """Divide while the context lasts; yields what kinds of outputs have been divided."""
    divided: set[str] = set()
    if temperature == 1:
        yield divided
        return

    def divide(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        divided.add(type(output).__name__)
        return _divided(output, temperature)

    handle = model.register_forward_hook(divide)
    try:
        yield divided
    finally:
        handle.remove()


def _divided(output: Any, temperature: float) -> Any:
    divided = mapped(output, lambda t: t / temperature if t.is_floating_point() else t)
    before, after = map(_floating, (output, divided))
    if not before or before & after:
        raise PruningError(
            "score 'grasp': expected the model to return tensors, alone or in tuples, lists and "
            f"dictionaries, for the temperature ({temperature:g}) to divide, got "
            f"{type(output).__name__}; return the logits, with the loss computed by the task, or "
            "set score.temperature to 1"
        )
    return divided


def _floating(output: Any) -> set[int]:
    return {id(tensor) for tensor in tensors_in(output) if tensor.is_floating_point()}
