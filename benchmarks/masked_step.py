"""Training steps under masks, ours and those of ``torch.nn.utils.prune``, for ``scores.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from infcop.core.mask import Masks
from infcop.masking.apply import MaskEnforcer
from infcop.models.build import build_model
from infcop.models.prunable import find_prunable, get_parameters

__all__ = ["Network", "Training", "Way", "build_network", "check_same", "masking_alone"]

Way = Literal["plain", "ours", "theirs"]

_KEPT = 0.1
_BATCH = 64


@dataclass(frozen=True)
class Network:
    """A model with the values that its prunable weights began with."""

    model: nn.Module
    parameters: dict[str, nn.Parameter]
    values: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]

    @property
    def entries(self) -> int:
        return sum(values.numel() for values in self.values.values())

    @property
    def owners(self) -> list[tuple[nn.Module, str]]:
        """Modules and attributes of the weights."""
        split = (name.rpartition(".") for name in self.values)
        return [(self.model.get_submodule(module), attribute) for module, _, attribute in split]

    def weights(self) -> list[Tensor]:
        """What the modules computed with last."""
        return [getattr(module, attribute).detach() for module, attribute in self.owners]

    def restore(self) -> None:
        """Take reparametrisations off and put the first values back."""
        for module, attribute in self.owners:
            if prune.is_pruned(module):
                prune.remove(module, attribute)
        for weight, values in zip(self.weights(), self.values.values(), strict=True):
            weight.copy_(values)


def build_network(name: str, *, channels: int, size: int, classes: int) -> Network:
    torch.manual_seed(0)
    model = build_model(
        name, in_channels=channels, image_size=size, num_classes=classes, options={}
    )
    prunable = find_prunable(model)
    parameters = get_parameters(model, prunable.names)
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    return Network(model, parameters, values, prunable.shapes)


class Training:
    """A network that is trained on one batch: plainly, or with a tenth of its weights."""

    def __init__(self, name: str, way: Way) -> None:
        channels, size = (1, 28) if name.startswith("lenet") else (3, 32)
        self.network = build_network(name, channels=channels, size=size, classes=10)
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(_BATCH, channels, size, size, generator=generator)
        self._labels = torch.randint(0, 10, (_BATCH,), generator=generator)
        masks = Masks(
            {
                name: torch.rand(shape, generator=generator) < _KEPT
                for name, shape in self.network.shapes.items()
            }
        )
        self.enforcer: MaskEnforcer | None = None
        if way == "ours":
            self.enforcer = MaskEnforcer(self.network.parameters, masks)
            self.enforcer.apply()
        if way == "theirs":
            for (module, attribute), mask in zip(self.network.owners, masks.values(), strict=True):
                prune.custom_from_mask(module, attribute, mask.float())
        self._optimizer = torch.optim.SGD(
            self.network.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )

    def step(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(self.network.model(self.inputs), self._labels).backward()
        if self.enforcer is None:
            self._optimizer.step()
        else:
            self.enforcer.mask_gradients()
            self._optimizer.step()
            self.enforcer.apply()


def check_same(ours: Training, theirs: Training) -> None:
    """Times can be compared only of ways that train the same network, here bit for bit."""
    theirs.network.model(theirs.inputs)  # multiplies with the masks once more
    pairs = zip(ours.network.weights(), theirs.network.weights(), strict=True)
    if not all(torch.equal(own, other) for own, other in pairs):
        raise SystemExit("training under the same masks came out differently")


def masking_alone(ours: Training, theirs: Training) -> dict[str, Callable[[], None]]:
    """Return what either way adds to a step, by itself."""
    assert ours.enforcer is not None
    enforcer, owners = ours.enforcer, theirs.network.owners
    hooks = [(m, hook) for m, _ in owners for hook in m._forward_pre_hooks.values()]
    gradients = [torch.ones_like(weight) for weight in theirs.network.weights()]
    leaves = [getattr(module, f"{attribute}_orig") for module, attribute in owners]

    def enforce() -> None:
        enforcer.mask_gradients()
        enforcer.apply()

    def reparametrise() -> None:
        for leaf in leaves:
            leaf.grad = None
        for module, hook in hooks:
            hook(module, ())
        torch.autograd.backward([getattr(m, attribute) for m, attribute in owners], gradients)

    return {"ours": enforce, "theirs": reparametrise}
