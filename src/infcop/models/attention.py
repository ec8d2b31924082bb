"""The heads of attention: which part of which projection each of them has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from infcop.models.kinds import input_channels, layer_kind

__all__ = ["HeadSlices", "head_slices"]

_SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("q_lin", "k_lin", "v_lin"),
)
_FUSED = ("qkv", "qkv_proj", "in_proj", "c_attn")
"""Taken for queries, then keys, then values, each with its heads in order. A forward pass has to
confirm it, since other orders go by the same names."""
_OUTPUT = ("out_proj", "o_proj", "proj", "c_proj", "out", "o", "out_lin")

_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_SIZES = ("head_dim", "attention_head_size")


@dataclass(frozen=True)
class HeadSlices:
    """Where the heads of one attention module are in one of its projections.

    Attributes:
        attention: Name of the attention module.
        weights: Names of the weights of all its projections, this one's too.
        count: Heads; of grouped queries, those of the keys, each with all its queries.
        side: Whether the heads are among the outputs (queries, keys, values) or the inputs (output
            projection) of this one.
        sections: Lengths of the stretches that follow each other along that side, one, or three
            where queries, keys and values are fused. Each is ``count`` equal pieces, one a head.
    """

    attention: str
    weights: tuple[str, ...]
    count: int
    side: Literal["output", "input"]
    sections: tuple[int, ...]


def head_slices(model: nn.Module) -> dict[str, HeadSlices]:
    """Return the part that the heads have in each projection of a model's attention, by weight.

    An attention module says how many heads it has, or how large they are, in an attribute of a
    usual name (``num_heads``, ``num_attention_heads``, ``n_head``, ``n_heads``, ``head_dim``,
    ``attention_head_size``). It has linear layers for queries, keys and values, apart or fused,
    and one for its output, under the names in use in timm, torchvision and transformers; that of
    the output may be ``output.dense`` beside the module. Anything else is passed over.

    ``torch.nn.MultiheadAttention`` is found too, with the packed weight that is no layer of its
    own. What is fused is taken for queries, then keys, then values, until
    :func:`~infcop.models.head_layout.check_fused_heads` has looked.

    Example:
        >>> class Attention(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.num_heads, self.qkv, self.proj = 2, nn.Linear(6, 18), nn.Linear(6, 6)
        >>> slices = head_slices(nn.Sequential(Attention()))
        >>> slices["0.qkv.weight"].count, slices["0.qkv.weight"].sections
        (2, (6, 6, 6))
        >>> slices["0.proj.weight"].side
        'input'
    """
    found: dict[str, HeadSlices] = {}
    for name, module in model.named_modules():
        for weight, one in _slices(model, name, module):
            found.setdefault(weight, one)
    return found


def _slices(model: nn.Module, name: str, module: nn.Module) -> Iterator[tuple[str, HeadSlices]]:
    if isinstance(module, nn.MultiheadAttention):
        yield from _packed(name, module)
        return
    output = _output(model, name, module)
    projections = _separate(module) or _fused(module)
    if output is None or not projections:
        return
    output_name, output_layer = output
    inputs = input_channels(output_layer)
    widths = tuple(_outputs(layer) for layer in projections.values())
    if len(widths) == 1:
        widths = _parts(module, widths[0], inputs)
    count = _count(module, widths, inputs)
    if count is None:
        return
    names = tuple(_joined(name, child, "weight") for child in projections)
    weights = (*names, _joined(output_name, "weight"))
    sections = [widths] if len(names) == 1 else [(width,) for width in widths]
    for weight, own in zip(names, sections, strict=True):
        yield weight, HeadSlices(name, weights, count, "output", own)
    yield weights[-1], HeadSlices(name, weights, count, "input", (inputs,))


def _packed(name: str, module: nn.MultiheadAttention) -> Iterator[tuple[str, HeadSlices]]:
    output = _joined(name, "out_proj.weight")
    packed = [own for own, _ in module.named_parameters(recurse=False) if own.endswith("weight")]
    weights = (*(_joined(name, own) for own in packed), output)
    yield output, HeadSlices(name, weights, module.num_heads, "input", (module.embed_dim,))


def _separate(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of queries, keys and values by their names, if there are three."""
    for names in _SEPARATE:
        layers = {name: layer for name in names if (layer := _linear(module, name)) is not None}
        if len(layers) == len(names):
            return layers
    return {}


def _fused(module: nn.Module) -> dict[str, nn.Module]:
    return next(
        ({name: layer} for name in _FUSED if (layer := _linear(module, name)) is not None), {}
    )


def _output(model: nn.Module, name: str, module: nn.Module) -> tuple[str, nn.Module] | None:
    for child in _OUTPUT:
        if (layer := _linear(module, child)) is not None:
            return _joined(name, child), layer
    parent_name, _, _ = name.rpartition(".")
    beside = getattr(model.get_submodule(parent_name), "output", None) if name else None
    dense = _linear(beside, "dense") if isinstance(beside, nn.Module) else None
    return (_joined(parent_name, "output.dense"), dense) if dense is not None else None


def _linear(module: nn.Module, name: str) -> nn.Module | None:
    layer = module._modules.get(name)
    return layer if layer is not None and layer_kind(layer) == "linear" else None


def _outputs(layer: nn.Module) -> int:
    return layer.get_parameter("weight").numel() // input_channels(layer)


def _parts(module: nn.Module, width: int, queries: int) -> tuple[int, ...]:
    """Return how many channels queries, keys and values have where they are fused, if that is sure.

    There are as many queries as the output projection takes.
    """
    if width == 3 * queries:
        return (queries, queries, queries)
    key_heads, size = _whole(module, "num_key_value_heads"), _size(module, queries)
    if key_heads is None or size is None or width != queries + 2 * key_heads * size:
        return ()
    return (queries, key_heads * size, key_heads * size)


def _count(module: nn.Module, widths: tuple[int, ...], inputs: int) -> int | None:
    """Return how many heads the keys have, or None where they don't divide the widths."""
    size = _size(module, widths[0]) if widths else None
    if size is None or widths[1] < size or widths[1] % size != 0:
        return None
    count = widths[1] // size
    return None if any(width % count for width in (*widths, inputs)) else count


def _size(module: nn.Module, queries: int) -> int | None:
    """Return the channels of one head of the queries."""
    for name in _COUNTS:
        if (heads := _whole(module, name)) is not None:
            return queries // heads if queries % heads == 0 else None
    return next((size for name in _SIZES if (size := _whole(module, name)) is not None), None)


def _whole(module: nn.Module, name: str) -> int | None:
    value = getattr(module, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
