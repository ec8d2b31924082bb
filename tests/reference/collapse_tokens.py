"""Random networks for collapsing: blocks over sequences of tokens."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.reference.collapse_graphs import ACTIVATIONS, Residual

__all__ = ["RandomTokens"]


class RandomTokens(nn.Module):
    """A random stack of blocks over sequences of tokens, drawn from a seed.

    The tokens are looked up or projected, with or without a first one of its own; blocks attend,
    mix channels or positions, with or without normalisation before them and a sum around them.
    Positions have numbers, parameters, or a part of a table.

    Attributes:
        any_length: Whether it takes sequences of other lengths.
    """

    def __init__(self, seed: int, blocks: int = 3, length: int = 5) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.looked_up = draw.random() < 0.5
        width = draw.choice((8, 12))
        self.first = nn.Embedding(9, width) if self.looked_up else nn.Linear(4, width)
        places = draw.choice(("none", "none", "fixed", "table", "learned table"))
        self.places = nn.Parameter(torch.zeros(1, length, width)) if places == "fixed" else None
        self.table = nn.Parameter(torch.zeros(12, width)) if places == "learned table" else None
        if places == "table":
            self.table = None
            self.register_buffer("numbers", torch.randn(12, width))
        else:
            self.numbers = None
        self.start = nn.Parameter(torch.zeros(1, 1, width)) if draw.random() < 0.3 else None
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            kinds = (Attention, Attention, Gated, Channels, Spread, Sum, Positions)
            # A first token makes sequences longer.
            block: nn.Module = draw.choice(kinds[:-1] if self.start is not None else kinds)(
                draw, width, length
            )
            norm = draw.choice((nn.Identity, nn.Identity, nn.LayerNorm, nn.RMSNorm))
            block = nn.Sequential(nn.Identity() if norm is nn.Identity else norm(width), block)
            self.blocks.append(Residual(block) if draw.random() < 0.7 else block)
        fixed = any(isinstance(block, Positions) for block in self.modules())
        self.any_length = not fixed and self.places is None
        self.pooled = draw.random() < 0.5
        self.last = nn.Linear(width, 3)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.places is not None:
            x = x + self.places
        table = self.table if self.table is not None else self.numbers
        if table is not None:
            x = x + table[: x.shape[1]]
        if self.start is not None:
            x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.last(x.mean(dim=1) if self.pooled else x[:, 0])

    def example(self, seed: int, batch: int = 2, length: int = 5) -> Tensor:
        """Return inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.looked_up:
            return torch.randint(9, (batch, length), generator=generator)
        return torch.randn(batch, length, 4, generator=generator)


class Attention(nn.Module):
    """Attention of several heads: packed or separate projections, fused or written out."""

    def __init__(self, draw: random.Random, width: int, length: int) -> None:
        super().__init__()
        del length
        self.num_heads, self.head_dim = draw.choice(((2, 3), (4, 3), (4, 2), (2, 5)))
        self.packed, self.fused = draw.random() < 0.5, draw.random() < 0.6
        self.shared_keys = not self.packed and draw.random() < 0.3
        self.scale = 0.5
        inner = self.num_heads * self.head_dim
        if self.packed:
            self.qkv = nn.Linear(width, 3 * inner, bias=draw.random() < 0.5)
        else:
            keys = inner // 2 if self.shared_keys else inner
            self.query = nn.Linear(width, inner)
            self.key = nn.Linear(width, keys, bias=draw.random() < 0.5)
            self.value = nn.Linear(width, keys, bias=draw.random() < 0.5)
        self.out = nn.Linear(inner, width, bias=draw.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        if self.packed:
            parts = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query, key, value = (
                layer(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
        if self.shared_keys:
            key, value = (one.repeat_interleave(2, dim=1) for one in (key, value))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        else:
            mixed = (query @ key.transpose(-2, -1) * self.scale).softmax(dim=-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """Two projections that multiply each other, packed or apart."""

    def __init__(self, draw: random.Random, width: int, length: int) -> None:
        super().__init__()
        del length
        self.packed = draw.random() < 0.5
        inner = draw.choice((6, 10))
        self.up = nn.Linear(width, 2 * inner if self.packed else inner)
        self.gate = nn.Identity() if self.packed else nn.Linear(width, inner)
        self.down = nn.Linear(inner, width, bias=draw.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            one, other = self.up(x).chunk(2, dim=-1)
            return self.down(one * functional.silu(other))
        return self.down(self.up(x) * functional.silu(self.gate(x)))


class Channels(nn.Sequential):
    def __init__(self, draw: random.Random, width: int, length: int) -> None:
        del length
        inner = draw.choice((6, 16))
        up, down = nn.Linear(width, inner), nn.Linear(inner, width, bias=draw.random() < 0.5)
        super().__init__(up, draw.choice(ACTIVATIONS)(), down)


class Spread(Channels):
    """Each channel is spread over the positions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(dim=1)


class Sum(Channels):
    """Each channel becomes the sum over all positions up to each."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = super().forward(x)
        earlier = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril()
        return torch.einsum("ij,bjc->bic", earlier, hidden)


class Positions(Channels):
    """The same, from position to position."""

    def __init__(self, draw: random.Random, width: int, length: int) -> None:
        super().__init__(draw, length, width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
