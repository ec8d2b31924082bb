"""Everything that looking into a model must not change."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return a model's values, modes, gradients and hooks, and the generators, to be compared."""
    return {
        "values": {name: _bytes(value) for name, value in model.state_dict().items()},
        "identities": {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()},
        "modes": [module.training for module in model.modules()],
        "trainable": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": {
            name: None if p.grad is None else _bytes(p.grad) for name, p in model.named_parameters()
        },
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "generators": (
            random.getstate(),
            np.random.get_state()[1].tobytes(),
            torch.get_rng_state().numpy().tobytes(),
        ),
        "recording": torch.is_grad_enabled(),
    }


def _bytes(value: Tensor) -> bytes:
    found: bytes = value.detach().cpu().numpy().tobytes()
    return found
