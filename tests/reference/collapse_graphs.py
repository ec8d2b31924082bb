"""Random networks for collapsing: graphs of layers over images, chains of layers.

Thousands of them: ``python -m tests.reference.collapse_graphs --count 3000``.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from infcop.collapse import compact
from tests.reference.collapse import agrees, drawn_masks, spared

__all__ = [
    *("ACTIVATIONS", "RandomNet", "Residual", "mlp", "random_chain", "swept", "with_statistics"),
]

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.Identity)


class RandomNet(nn.Module):
    """A random graph of layers over images, drawn from a seed.

    Values are kept in a list; each step takes some of them and appends its result. At the end all
    values that nothing has used are pooled, joined and classified, so that every branch matters.
    """

    def __init__(self, seed: int, steps: int = 7, channels: int = 3) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.steps = nn.ModuleList()
        self.sources: list[tuple[int, ...]] = []
        self.sizes = [(channels, 0)]  # channels, and how often the image was halved
        for _ in range(steps):
            self._append(self.draw.randrange(len(self.sizes)))
        used = {at for sources in self.sources for at in sources}
        self.ends = [at for at in range(1, len(self.sizes)) if at not in used]
        side = self.draw.choice((1, 2))
        self.pool = nn.AdaptiveAvgPool2d(side)
        features = sum(self.sizes[at][0] for at in self.ends) * side**2
        self.head = nn.Sequential(
            nn.Linear(features, 6), self.draw.choice(ACTIVATIONS)(), nn.Linear(6, 3)
        )
        with_statistics(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step, sources in zip(self.steps, self.sources, strict=True):
            values.append(step(*(values[at] for at in sources)))
        pooled = [self.pool(values[at]).flatten(1) for at in self.ends]
        return self.head(torch.cat(pooled, dim=1))

    def _append(self, source: int) -> None:
        channels, halved = self.sizes[source]
        alike = [at for at, size in enumerate(self.sizes) if size[1] == halved]
        other = self.draw.choice(alike)
        kind = self.draw.choice(
            (
                *("conv", "conv", "residual", "residual", "concat", "gate", "pool", "shuffle"),
                *("halves", "transposed", "group norm", "sum", "grouped", "branches", "padded"),
                *("places", "ramp", "spread"),
            )
        )
        even = channels % 2 == 0
        if kind == "residual":
            self._add(Residual(self._block(channels, channels)), (source,), channels, halved)
        elif kind == "concat":
            self._add(Concat(), (source, other), channels + self.sizes[other][0], halved)
        elif kind == "gate":
            self._add(Gate(channels), (source,), channels, halved)
        elif kind == "pool":
            pool = self.draw.choice((nn.MaxPool2d, nn.AvgPool2d))(3, 1, padding=1)
            self._add(pool, (source,), channels, halved)
        elif kind == "shuffle" and even:
            self._add(Shuffle(2), (source,), channels, halved)
        elif kind == "grouped" and even:
            layer = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels // 2)
            self._add(layer, (source,), 2 * channels, halved)
        elif kind == "branches":
            parts = self._block(channels, 3), self._block(channels, 4)
            self._add(Branches(*parts), (source,), 7, halved)
        elif kind in ("padded", "ramp", "spread"):
            step = {"padded": Padded, "ramp": Ramp, "spread": Spread}[kind]()
            self._add(step, (source,), channels, halved)
        elif kind == "places":
            self._add(Places(channels, self.draw.random() < 0.5), (source,), channels, halved)
        elif kind == "halves" and even and channels > 2:
            block = self._block(channels // 2, channels // 2)
            self._add(Halves(block), (source,), channels, halved)
        elif kind == "transposed" and halved:
            layer = nn.ConvTranspose2d(channels, 4, 2, stride=2, bias=self.draw.random() < 0.5)
            self._add(layer, (source,), 4, halved - 1)
        elif kind == "group norm":
            self._add(nn.GroupNorm(2 if even else 1, channels), (source,), channels, halved)
        elif kind == "sum":
            adapt = nn.Conv2d(self.sizes[other][0], channels, 1, bias=self.draw.random() < 0.5)
            self._add(Sum(adapt), (source, other), channels, halved)
        else:
            out = self.draw.choice((4, 6, 8, channels))
            stride = self.draw.choice((1, 1, 2)) if halved < 2 else 1
            block = self._block(channels, out, stride)
            self._add(block, (source,), out, halved + (stride == 2))

    def _add(self, step: nn.Module, sources: tuple[int, ...], channels: int, halved: int) -> None:
        self.steps.append(step)
        self.sources.append(sources)
        self.sizes.append((channels, halved))

    def _block(self, channels: int, out: int, stride: int = 1) -> nn.Module:
        """A convolution, perhaps grouped or depthwise, perhaps normalised, with an activation."""
        draw = self.draw
        kernel = draw.choice((1, 3))
        common = [g for g in (1, 2, 3, 4, channels) if channels % g == 0 and out % g == 0]
        parts: list[nn.Module] = [
            nn.Conv2d(
                channels,
                out,
                kernel,
                stride,
                padding=kernel // 2,
                groups=draw.choice((1, 1, *common)),
                bias=draw.random() < 0.5,
                padding_mode=draw.choice(("zeros", "zeros", "circular", "replicate")),
            )
        ]
        if draw.random() < 0.5:
            parts.append(nn.BatchNorm2d(out))
        parts.append(nn.PReLU(out) if draw.random() < 0.1 else draw.choice(ACTIVATIONS)())
        return nn.Sequential(*parts)


class Residual(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Sum(nn.Module):
    def __init__(self, adapt: nn.Module) -> None:
        super().__init__()
        self.adapt = adapt

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.adapt(y)


class Concat(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], dim=1)


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Padded(nn.Module):
    """Means that see a border of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 1)


class Ramp(nn.Module):
    """Larger from row to row."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[2], dtype=x.dtype)[:, None] / 10


class Spread(nn.Module):
    """Each channel is spread over the positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).softmax(dim=2).reshape(x.shape)


class Places(nn.Module):
    """As much of a table of positions as the image is large."""

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        table = torch.randn(channels, 20, 20, generator=torch.Generator().manual_seed(channels))
        if learned:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[:, : x.shape[2], : x.shape[3]]


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, 3, 1), nn.ReLU(inplace=True))
        self.expand = nn.Sequential(nn.Conv2d(3, channels, 1), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.squeeze(x.mean((2, 3), keepdim=True)))


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *side = x.shape
        x = x.view(batch, self.groups, channels // self.groups, *side)
        return x.transpose(1, 2).reshape(batch, channels, *side)


class Halves(nn.Module):
    """Only one half of the channels is computed with."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        return torch.cat([self.block(one), other], dim=1)


def random_chain(seed: int) -> nn.Sequential:
    """Convolutions that see no border of zeros, normalised or not, then linear layers."""
    draw = random.Random(seed)
    layers: list[nn.Module] = []
    channels = 2
    for _ in range(draw.randint(2, 4)):
        out = draw.choice((4, 6, 9))
        padded = draw.random() < 0.3
        layers.append(
            nn.Conv2d(
                *(channels, out, 3),
                padding=int(padded),
                padding_mode="circular" if padded else "zeros",
                bias=draw.random() < 0.6,
            )
        )
        if draw.random() < 0.5:
            layers.append(nn.BatchNorm2d(out))
        layers.append(draw.choice((nn.Tanh, nn.Sigmoid, nn.GELU))())
        if draw.random() < 0.3:
            layers.append(nn.AvgPool2d(2, 1))
        channels = out
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 7), nn.Tanh()]
    layers.append(nn.Linear(7, 2))
    model = nn.Sequential(*layers)
    with_statistics(model, seed)
    return model


def mlp(widths: list[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with activations between them."""
    layers: list[nn.Module] = []
    for at in range(len(widths) - 1):
        layers += [nn.Linear(widths[at], widths[at + 1]), activation()]
    return nn.Sequential(*layers[:-1])


def with_statistics(model: nn.Module, seed: int) -> nn.Module:
    """Give normalisations random parameters and statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                for tensor in (module.weight, module.bias):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_mean, module.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def swept(seed: int, *, fold: bool = True) -> str:
    """Collapse one random graph; return what became of it."""
    model = RandomNet(seed, steps=4 + seed % 8).double().eval()
    masks = drawn_masks(model, seed)
    generator = torch.Generator().manual_seed(seed)
    never_halved = not any(halved for _, halved in model.sizes)
    side = 1 if never_halved else (12, 4, 8)[seed % 3]

    def images(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    small = compact(model, masks, (images(2, 3, side, side),), fold=fold)
    for batch, height, width in ((3, side, side), (1, 16, 16), (2, 8, 20)):
        if not agrees(model, masks, small, images(batch, 3, height, width)):
            return "differs"
    if spared(small):
        return "spared"
    smaller = small.report.parameters_after < small.report.parameters_before
    return "smaller" if smaller else "the same size"


def main() -> None:
    """Collapse many random graphs and count what became of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.count):
        found = swept(seed, fold=seed % 4 > 0)
        counts[found] += 1
        if found in ("differs", "spared"):
            print(f"seed {seed}: {found}", flush=True)
    print(dict(counts), flush=True)


if __name__ == "__main__":
    main()
