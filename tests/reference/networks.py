"""Networks that several tests look at."""

from __future__ import annotations

import torch
from torch import nn

# Of the network below: what feeds what, and what may be pruned.
EDGES = [("0", "4"), ("4", "8")]
WEIGHTS = ["0.weight", "4.weight", "8.weight"]
BOTH = ["information", "gradient"]


def network_of_everything(seed=0):
    """Return a network with all that a measurement must get right.

    Two convolutions and a linear layer, batch norm with statistics of its own, dropout,
    activations in place, and for images of any size.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    model[1].running_mean.normal_()
    return model
