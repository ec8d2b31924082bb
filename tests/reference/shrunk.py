"""Small networks in float64 to be searched with and without collapse, and what both must share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import infcop
from infcop.core.records import RunRecord

SETTINGS: dict[str, Any] = {
    "density": 0.1,
    "method": {"name": "lth", "schedule": {"kind": "fraction", "remove": 0.78}},
    "dense": {"passes": 2},
    "levels": {"max_passes": 1, "unit": 0.5},
    "final": {"passes": 2},
    "execution": {"device": "cpu", "threads": 1},
}

SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.05, "clip_norm": 0.5, "lr": 0.05}
ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5, "lr": 0.01}


class Residual(nn.Module):
    """Convolutions whose outputs are added up, with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)),
        )
        self.last = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        first = self.stem(inputs)
        outputs: Tensor = self.last((first + self.inner(first)).relu().mean(dim=(2, 3)))
        return outputs


class Attentive(nn.Module):
    """Attention of four heads over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.embed, self.norm = nn.Linear(8, 16), nn.LayerNorm(16)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(16, 16) for _ in range(3))
        self.out_proj = nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.embed(inputs.squeeze(1))
        normed = self.norm(hidden)
        apart = [
            layer(normed).view(len(normed), -1, self.num_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        ]
        mixed = nn.functional.scaled_dot_product_attention(*apart).transpose(1, 2).flatten(2)
        outputs: Tensor = self.last((hidden + self.out_proj(mixed)).mean(dim=1))
        return outputs


def layered() -> nn.Module:
    """Return linear layers whose units become useless early."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 20), nn.Tanh()),
        nn.Linear(20, 3),
    )


def batches(count: int, seed: int) -> list[Any]:
    """Return batches of a problem that can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        inputs = torch.randn(16, 1, 8, 8, generator=generator, dtype=torch.float64)
        labels = (inputs[:, 0, :4].mean(dim=(1, 2)) > 0).long() + (inputs[:, 0, 0, 0] > 0).long()
        found.append((inputs, labels))
    return found


def searched(
    make: Any,
    folder: Path,
    *,
    collapse: bool,
    task: type[infcop.Classification] = infcop.Classification,
    progress: Any = None,
    **changes: Any,
) -> infcop.Result:
    """Run a short search; mappings among the changes are merged into the settings."""
    torch.manual_seed(0)
    settings = dict(SETTINGS)
    for key, value in changes.items():
        merge = isinstance(value, dict) and key in settings
        settings[key] = {**settings[key], **value} if merge else value
    settings["levels"] = {**settings["levels"], "collapse": collapse}
    data = task(batches(4, 0), batches(2, 1), batches(2, 2))
    return infcop.search(make().double(), data, run_dir=folder, progress=progress, **settings)


def numbers_of(record: RunRecord) -> list[tuple[str, Any]]:
    """Return all values of a record with their places, but for times and what was trained."""
    left_out = {"seconds", "trained_parameters", "collapse"}

    def walk(node: Any, place: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key not in left_out:
                    yield from walk(value, f"{place}.{key}")
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from walk(value, f"{place}.{number}")
        else:
            yield place, node

    return list(walk(record.model_dump(mode="json"), ""))


def assert_same_search(ours: infcop.Result, plain: infcop.Result, tolerance: float = 1e-9) -> None:
    """Compare records, masks, all parameters and outputs."""
    found, expected = numbers_of(ours.record), numbers_of(plain.record)
    assert [place for place, _ in found] == [place for place, _ in expected]
    for (place, one), (_, other) in zip(found, expected, strict=True):
        if isinstance(other, float) and math.isfinite(other):
            assert abs(one - other) <= tolerance * max(1.0, abs(other)), (place, one, other)
        else:
            assert one == other, place
    for name, mask in plain.masks.items():
        assert torch.equal(ours.masks[name], mask), name
    pairs = zip(ours.model.named_parameters(), plain.model.named_parameters(), strict=True)
    for (name, one), (same, other) in pairs:
        assert name == same
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance, msg=name)
    inputs = batches(1, 9)[0][0]
    with torch.no_grad():
        ours.model.eval(), plain.model.eval()
        found, expected = ours.model(inputs), plain.model(inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
