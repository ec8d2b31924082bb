"""For every operation that collapse has a rule for, a function of eight channels that uses it.

Each takes values of shape [4, 8, 4, 4], channels second, and returns values with channels second.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CASES"]

Function = Callable[[Tensor], Tensor]


def _line(x: Tensor) -> Tensor:
    return x.flatten(2)


def _block(x: Tensor) -> Tensor:
    return x[..., None].expand(-1, -1, -1, -1, 2).contiguous()


def _columns(x: Tensor) -> Tensor:
    """Return [64, channels]."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _ones(x: Tensor, *shape: int) -> Tensor:
    return torch.ones(shape, dtype=x.dtype)


def _resized(mode: str, *, line: bool = False, block: bool = False, **options: bool) -> Function:
    def resize(x: Tensor) -> Tensor:
        given = _line(x) if line else _block(x) if block else x
        return functional.interpolate(given, scale_factor=2, mode=mode, **options)

    return resize


_POINTWISE: dict[str, Function] = {
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "log_sigmoid": functional.logsigmoid,
    "where": lambda x: torch.where(x > 0, x, x / 2),
    "__and__": lambda x: x * ((x > 0) & (x < 1)),
    "__or__": lambda x: x * ((x > 1) | (x < 0)),
    "__xor__": lambda x: x * ((x > 1) ^ (x < 0)),
    "negative": torch.negative,
    "subtract": lambda x: torch.subtract(x, x.tanh()),
    "divide": lambda x: torch.divide(x, x.exp()),
    "floor_divide": lambda x: x + torch.floor_divide(x.detach(), 2.0),
    "clip": lambda x: x.clip(-1, 1),
    "square": torch.square,
    "absolute": torch.absolute,
    "logaddexp": lambda x: torch.logaddexp(x, -x),
    "polar": lambda x: torch.view_as_real(torch.polar(x.exp(), x)).sum(-1),
    "hardtanh": functional.hardtanh,
    "selu": functional.selu,
    "masked_fill": lambda x: x.masked_fill(x > 1, 0.0),
    "mul": lambda x: x * x.tanh(),
    "multiply": lambda x: torch.multiply(x, x.tanh()),
    "to": lambda x: x.to(torch.float64).to(x.dtype),
    "type_as": lambda x: x.type_as(_ones(x, 1)),
    "contiguous": lambda x: x.transpose(2, 3).contiguous(),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x + x.detach(),
    "alias": lambda x: torch.ops.aten.alias(x),
    "lift_fresh_copy": lambda x: x * torch.tensor(2.0, dtype=x.dtype),
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "ones_like": lambda x: x + torch.ones_like(x),
    "full_like": lambda x: x + torch.full_like(x, 2.0),
    "fill": lambda x: x + x.clone().fill_(2.0),
    "zero": lambda x: x + x.clone().zero_(),
    "new_zeros": lambda x: x + x.new_zeros(1),
    "new_ones": lambda x: x + x.new_ones(1),
    "new_full": lambda x: x + x.new_full((1,), 2.0),
    "new_empty": lambda x: x + x.new_empty(1).fill_(2.0),
    "dropout": lambda x: functional.dropout(x, training=False),
    "feature_dropout": lambda x: functional.dropout2d(x, training=False),
    "alpha_dropout": lambda x: functional.alpha_dropout(x, training=False),
    "prelu": lambda x: functional.prelu(x, 0.1 * _ones(x, 1)),
    "glu": lambda x: functional.glu(torch.cat([x, x], 1), 1),
}

_MOVING: dict[str, Function] = {
    "view": lambda x: x.view(4, -1, 2, 8),
    "reshape": lambda x: x.transpose(2, 3).reshape(4, -1, 16),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)).flatten(1, 2),
    "permute": lambda x: x.permute(0, 1, 3, 2),
    "transpose": lambda x: x.transpose(2, 3),
    "t": lambda x: _columns(x).t().t(),
    "numpy_T": lambda x: _columns(x).T.T,
    "mT": lambda x: x.mT,
    "adjoint": lambda x: x.adjoint(),
    "movedim": lambda x: x.movedim(1, 3).movedim(3, 1),
    "moveaxis": lambda x: torch.moveaxis(x, 2, 3),
    "swapaxes": lambda x: x.swapaxes(2, 3),
    "swapdims": lambda x: x.swapdims(2, 3),
    "squeeze": lambda x: x.mean(2, keepdim=True).squeeze(2),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "expand": lambda x: x[:, :, None].expand(-1, -1, 2, -1, -1),
    "expand_as": lambda x: x + x.mean((2, 3), keepdim=True).expand_as(x),
    "view_as": lambda x: x.flatten(1).view_as(x),
    "reshape_as": lambda x: x.flatten(1).reshape_as(x),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "flip": lambda x: x.flip(1),
    "pixel_unshuffle": lambda x: functional.pixel_unshuffle(x, 2),
    "pixel_shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "select": lambda x: x.select(2, 1),
    "unbind": lambda x: x.unbind(2)[1],
    "roll": lambda x: x.roll(1, 2),
    "slice": lambda x: x[:, :, 1:],
    "narrow": lambda x: x.narrow(2, 1, 2),
    "chunk": lambda x: torch.add(*x.chunk(2, 1)),
    "split": lambda x: torch.add(*x.split(x.shape[1] // 2, 1)),
    "split_with_sizes": lambda x: x.split([1, 3], 2)[1],
    "tensor_split": lambda x: torch.add(*x.tensor_split(2, 1)),
    "cat": lambda x: torch.cat([x, x.tanh()], 1),
    "concat": lambda x: torch.concat([x, x.tanh()], 1),
    "concatenate": lambda x: torch.concatenate([x, x.tanh()], 1),
    "stack": lambda x: torch.stack([x, x.tanh()], 2),
    "pad": lambda x: functional.pad(x, (1, 1)),
    "constant_pad_nd": lambda x: torch.constant_pad_nd(x, (1, 1)),
    "index": lambda x: x[:, :, torch.tensor([1, 0])],
    "index_select": lambda x: x.index_select(2, torch.tensor([1, 0])),
    "embedding": lambda x: x * functional.embedding(torch.tensor([1]), _ones(x, 2, 1)),
}

_SUMS: dict[str, Function] = {
    "linear": lambda x: functional.linear(x, _ones(x, 3, 4)),
    "matmul": lambda x: x @ _ones(x, 4, 3),
    "mm": lambda x: _columns(x).mT.mm(_columns(x)[:, :1]).mT + _columns(x),
    "bmm": lambda x: _line(x).bmm(_ones(x, 4, 16, 3)),
    "mv": lambda x: _columns(x) * _columns(x).mT.mv(_columns(x)[:, 0]),
    "dot": lambda x: x * x.flatten().dot(x.flatten()),
    "addmm": lambda x: torch.addmm(_columns(x), _ones(x, 64, 1), _columns(x)[:1]),
    "baddbmm": lambda x: torch.baddbmm(_line(x), _line(x), _ones(x, 4, 16, 16)),
    "einsum": lambda x: torch.einsum("bchw,wv->bchv", x, _ones(x, 4, 3)),
    "scaled_dot_product_attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    **{
        f"conv{n}d": (
            lambda x, n=n: getattr(functional, f"conv{n}d")(
                {1: _line, 2: lambda x: x, 3: _block}[n](x), _ones(x, 3, x.shape[1], *[1] * n)
            )
        )
        for n in (1, 2, 3)
    },
    **{
        f"conv_transpose{n}d": (
            lambda x, n=n: getattr(functional, f"conv_transpose{n}d")(
                {1: _line, 2: lambda x: x, 3: _block}[n](x), _ones(x, x.shape[1], 3, *[2] * n)
            )
        )
        for n in (1, 2, 3)
    },
}

_REDUCTIONS: dict[str, Function] = {
    **{
        name: (lambda x, name=name: getattr(torch, name)(x, dim=(2, 3)))
        for name in ("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "nansum", "nanmean")
    },
    **{
        name: (lambda x, name=name: getattr(torch, name)(x, dim=(2, 3))[0])
        for name in ("var_mean", "std_mean")
    },
    **{
        name: (lambda x, name=name: getattr(torch, name)(x, dim=2).values)
        for name in ("max", "min", "median")
    },
    **{
        name: (lambda x, name=name: x.mean(2) * getattr(torch, name)(x, dim=2))
        for name in ("argmax", "argmin", "count_nonzero")
    },
    **{name: (lambda x, name=name: x * getattr(x > 0, name)()) for name in ("any", "all")},
    "prod": lambda x: x.prod(2),
    "norm": lambda x: torch.ops.aten.norm(x, 2, [2]),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, dim=2),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(2),
    "cumsum": lambda x: x.cumsum(2),
    "cumprod": lambda x: x.cumprod(2),
}

_NORMALISATIONS: dict[str, Function] = {
    "batch_norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "instance_norm": functional.instance_norm,
    "group_norm": lambda x: functional.group_norm(x, 4),
    "layer_norm": lambda x: functional.layer_norm(x, (4,)),
    "rms_norm": lambda x: functional.rms_norm(x, (4,)),
}

_POOLING: dict[str, Function] = {
    **{
        f"{kind}_pool{n}d": (
            lambda x, kind=kind, n=n: getattr(functional, f"{kind}_pool{n}d")(
                {1: _line, 2: lambda x: x, 3: _block}[n](x), 2
            )
        )
        for kind in ("max", "avg", "adaptive_avg")
        for n in (1, 2, 3)
    },
    **{
        f"max_pool{n}d_with_indices": (
            lambda x, n=n: getattr(functional, f"max_pool{n}d")(
                {1: _line, 2: lambda x: x, 3: _block}[n](x), 2, return_indices=True
            )[0]
        )
        for n in (1, 2, 3)
    },
    **{
        f"adaptive_max_pool{n}d": (
            lambda x, n=n: getattr(functional, f"adaptive_max_pool{n}d")(
                {1: _line, 2: lambda x: x, 3: _block}[n](x), 2
            )
        )
        for n in (1, 2, 3)
    },
    "upsample_nearest1d": _resized("nearest", line=True),
    "upsample_nearest2d": _resized("nearest"),
    "upsample_nearest3d": _resized("nearest", block=True),
    "_upsample_nearest_exact1d": _resized("nearest-exact", line=True),
    "_upsample_nearest_exact2d": _resized("nearest-exact"),
    "_upsample_nearest_exact3d": _resized("nearest-exact", block=True),
    "upsample_linear1d": _resized("linear", line=True),
    "upsample_bilinear2d": _resized("bilinear"),
    "upsample_trilinear3d": _resized("trilinear", block=True),
    "upsample_bicubic2d": _resized("bicubic"),
    "_upsample_bilinear2d_aa": _resized("bilinear", antialias=True),
    "_upsample_bicubic2d_aa": _resized("bicubic", antialias=True),
}

CASES = {**_POINTWISE, **_MOVING, **_SUMS, **_REDUCTIONS, **_NORMALISATIONS, **_POOLING}
