"""Networks that are exported, and some that can't be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from infcop.export.manifest import DataOrigin, Densities, Manifest, MeasuredMetrics
from infcop.export.sizes import SizeTable


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 3)),
    )


class Words(nn.Module):
    """Keyword inputs of two types, two outputs, a tied weight and an optional input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor, scale: Tensor, skip: Tensor | None = None) -> dict[str, Any]:
        inner = self.embedding(words) * scale[:, None, None]
        mixed, _ = self.attention(inner, inner, inner, need_weights=False)
        if skip is not None:
            mixed = mixed + skip
        return {"words": self.head(mixed), "mean": mixed.mean(dim=(1, 2))}


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(4, 6))


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Bessel(nn.Module):
    """An operator that ONNX has not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def manifest(**changes: Any) -> Manifest:
    facts: dict[str, Any] = {
        "network": "masked",
        "model": "net",
        "parameters": 10,
        "method": "lth",
        "settings_sha256": "0" * 64,
        "seed": 0,
        "density": Densities(asked=0.1, asked_in="parameters", prunable=0.1, all=0.2),
        "data": DataOrigin(name="custom", sha256=None, train=3, held_out=1, test=0, split={}),
        "metrics": MeasuredMetrics(measured_on="held-out", dense={}, sparse={"accuracy": 0.5}),
        "licence": None,
        "versions": {"infcop": "0"},
        "sizes": SizeTable(dense=4, sparse=3, csr=2, zip=1),
        "tied": {},
    }
    return Manifest(**{**facts, **changes})
