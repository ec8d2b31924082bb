"""Small networks with all that scores and patterns may meet, and what is scored on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.models.prunable import find_prunable
from infcop.scoring import SCORES
from infcop.scoring.gather import gather, score_all
from infcop.scoring.movement import MovementSum
from infcop.tasks.classification import Classification


class Branches(nn.Module):
    """Two layers side by side: where one of them is empty, the other one still works."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs).relu() + self.second(inputs).relu()
        logits: Tensor = self.last(hidden)
        return logits


class Attention(nn.Module):
    """Four heads of two channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 8) for _ in range(3))
        self.out_proj = nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        apart = [
            layer(inputs).unflatten(-1, (4, 2)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        ]
        mixed = nn.functional.scaled_dot_product_attention(*apart)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output


class AllLayers(nn.Module):
    """What a pattern may meet: convolutions, one of them turned and in groups, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 1)
        self.turned = nn.ConvTranspose1d(8, 8, 2, stride=2, groups=2)
        self.attention = Attention()
        self.last = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.turned(self.conv(inputs).relu()).transpose(1, 2)
        logits: Tensor = self.last(self.attention(tokens).mean(dim=1))
        return logits


def convolutional() -> nn.Module:
    """Return 147 weights behind batch norm with statistics of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    model[1].running_mean.normal_()
    return model


def straight() -> nn.Module:
    """Return 103 weights without biases, in float64: positively homogeneous in each layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 5, bias=False),
        nn.ReLU(),
        nn.Linear(5, 3, bias=False),
    ).double()


def batches(
    *shape: int, sizes: Sequence[int] = (5, 4), dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    """Return inputs of this shape with one of three labels each."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, *shape, generator=generator, dtype=dtype), torch.arange(size) % 3)
        for size in sizes
    ]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the prunable weights, as they are in the model."""
    return {name: model.get_parameter(name).detach() for name in find_prunable(model).names}


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the prunable weights."""
    return {name: tuple(weight.shape) for name, weight in weights_of(model).items()}


@torch.no_grad()
def mask_weights(model: nn.Module, masks: Masks) -> None:
    """Set pruned weights to zero."""
    for name, weight in weights_of(model).items():
        weight.masked_fill_(~masks[name].to(weight.device), 0)


def moved(model: nn.Module, data: Sequence[Any]) -> dict[str, Tensor]:
    """Return where one step on each batch would move the weights, from where they are."""
    task, model = Classification([0], [0]), deepcopy(model).eval()
    movement = MovementSum({name: model.get_parameter(name) for name in weights_of(model)})
    for batch in data:
        model.zero_grad()
        task.training_step(model, batch).backward()
        movement.add()
    return movement.values()


def scored(
    score: Any,
    model: nn.Module,
    data: Sequence[Any],
    masks: Masks | None = None,
    *,
    seed: int = 0,
    movement: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gather what a score needs, and score all weights that survive."""
    weights = weights_of(model)
    if movement is None and SCORES[score.kind].evidence == "movement":
        movement = moved(model, data)
    evidence = gather(
        score,
        model,
        list(weights),
        Classification([0], [0]),
        lambda: data,
        seed=seed,
        movement=movement,
    )
    return score_all(score, weights, evidence.values, masks or Masks.full(shapes_of(model)))
