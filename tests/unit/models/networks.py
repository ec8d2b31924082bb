"""Small networks of many kinds, in double precision and evaluation mode, with their inputs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class UNet(nn.Module):
    """Two resolutions; the way up gets the way down beside it."""

    def __init__(self):
        super().__init__()
        self.down1, self.norm1 = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.down2, self.norm2 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.bottom = nn.Conv2d(4, 5, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(5, 4, 2, stride=2)
        self.join2 = nn.Conv2d(8, 4, 3, padding=1)
        self.join1 = nn.Conv2d(7, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        one = self.norm1(self.down1(x)).relu()
        two = self.norm2(self.down2(functional.max_pool2d(one, 2))).relu()
        low = self.bottom(functional.avg_pool2d(two, 2)).relu()
        low = self.join2(torch.cat([self.up2(low), two], dim=1)).relu()
        high = functional.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.join1(torch.cat([one, high], dim=1)).relu())


class Dense(nn.Module):
    """Every layer gets the outputs of all before it, joined step by step."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * index) for index in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * index, 3, 1) for index in range(3))
        self.norm, self.fc = nn.BatchNorm2d(13), nn.Linear(13, 2)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(functional.relu(norm(x)))], dim=1)
        return self.fc(functional.adaptive_avg_pool2d(self.norm(x).relu(), 1).flatten(1))


class Flattened(nn.Module):
    """Two branches are joined along their channels, then flattened with their positions."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.fc = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3), nn.Linear(20, 2)

    def forward(self, x):
        x = torch.cat([self.one(x), self.other(x)], dim=1).tanh()
        return self.fc(nn.Flatten()(functional.max_pool2d(x, 2)))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk1, self.trunk2 = nn.Linear(3, 4), nn.Linear(4, 5)
        self.head = nn.Linear(10, 2)

    def embed(self, x):
        return self.trunk2(self.trunk1(x).relu())

    def forward(self, one, other):
        return self.head(torch.cat([self.embed(one), self.embed(other)], dim=1))


class Recurrent(nn.Module):
    """One block is run three times, each time on what it gave."""

    def __init__(self):
        super().__init__()
        self.inp, self.block1, self.block2 = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4)
        self.step, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.step(self.inp(x))
        for _ in range(3):
            x = x + self.block2(self.block1(x).tanh())
        x = self.step(self.step(x).tanh())
        return self.out(x)


class Memory(nn.Module):
    """An LSTM between linear layers, batch or time first."""

    def __init__(self, batch_first):
        super().__init__()
        self.inp, self.out = nn.Linear(3, 4), nn.Linear(5, 2)
        self.batch_first = batch_first
        self.lstm = nn.LSTM(4, 5, batch_first=batch_first)

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        return self.out(self.lstm(self.inp(x))[0])


class Windows(nn.Module):
    """Attention within windows that are folded into the batch axis, cyclically shifted."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(2, 4, 1)
        self.norm, self.qkv, self.proj = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 4)
        self.fc1, self.fc2, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)

    def attend(self, x):
        b, h, w, c = x.shape
        x = torch.roll(x, shifts=(-1, -1), dims=(1, 2))
        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(x).reshape(-1, 4, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 4, c)
        x = self.proj(x).view(b, h // 2, w // 2, 2, 2, c)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(x, shifts=(1, 1), dims=(1, 2))

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        x = x + self.attend(self.norm(x))
        x = x + self.fc2(functional.gelu(self.fc1(x)))
        return self.head(x.mean(dim=(1, 2)))


class Gated(nn.Module):
    """Squeeze and excitation: the channels are scaled by a small network of their means."""

    def __init__(self):
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.excite, self.point = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        x = self.conv(x)
        gate = self.excite(functional.silu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.point(x * gate.sigmoid())


class Shuffled(nn.Module):
    """Channels are split, half of them convolved, joined and shuffled, twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.one, self.two = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def shuffled(self, x, conv):
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat([kept, conv(changed).relu()], dim=1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    def forward(self, x):
        x = self.shuffled(self.stem(x), self.one)
        return self.head(self.shuffled(x, self.two))


class Mixed(nn.Module):
    """Images and numbers, given by name."""

    def __init__(self):
        super().__init__()
        self.image, self.table = nn.Conv2d(1, 3, 3), nn.Linear(4, 2)
        self.head = nn.Linear(5, 2)

    def forward(self, *, image, numbers, scale=1.0):
        seen = self.image(image).amax((2, 3))
        return self.head(torch.cat([seen, scale * self.table(numbers)], dim=-1))


class Grouped(nn.Module):
    """Queries with two heads share the keys and values of one."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.proj, self.head = nn.Linear(4, 4), nn.Linear(4, 7)

    def forward(self, tokens):
        x = self.embedding(tokens)
        q = self.q(x).unflatten(-1, (2, 2)).transpose(1, 2)
        k, v = (layer(x).unsqueeze(1).expand(-1, 2, -1, -1) for layer in (self.k, self.v))
        x = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x.transpose(1, 2).flatten(2) + self.proj(x.transpose(1, 2).flatten(2)))


def transformer():
    return nn.Sequential(
        nn.Linear(3, 4), nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Linear(4, 2)
    )


def prepared(network, *shapes):
    """Return a network made by a function, ready to be compared bit by bit, and random inputs."""
    torch.manual_seed(0)
    model = network().double().eval()
    return model, tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


def mixed():
    model, (image, numbers) = prepared(Mixed, (5, 1, 6, 6), (5, 4))
    return model, {"image": image, "numbers": numbers, "scale": 0.5}


def grouped():
    model, _ = prepared(Grouped)
    return model, (torch.randint(7, (5, 3)),)


NETWORKS = {
    "unet": lambda: prepared(UNet, (3, 2, 8, 8)),
    "dense": lambda: prepared(Dense, (3, 1, 4, 4)),
    "flattened": lambda: prepared(Flattened, (3, 1, 6, 6)),
    "siamese": lambda: prepared(Siamese, (6, 3), (6, 3)),
    "recurrent": lambda: prepared(Recurrent, (6, 3)),
    "lstm": lambda: prepared(lambda: Memory(True), (4, 5, 3)),
    "time-major": lambda: prepared(lambda: Memory(False), (4, 5, 3)),
    "windows": lambda: prepared(Windows, (3, 2, 4, 4)),
    "gated": lambda: prepared(Gated, (3, 1, 4, 4)),
    "shuffled": lambda: prepared(Shuffled, (3, 1, 4, 4)),
    "transformer": lambda: prepared(transformer, (4, 5, 3)),
    "mixed": mixed,
    "grouped": grouped,
}
