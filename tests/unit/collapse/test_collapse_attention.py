"""Collapse of attention and of other ways to mix tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.reference.collapse import Net, collapsed, random_masks, shapes, without


def attention(fused: bool, packed: bool, heads: int = 4, size: int = 3) -> Net:
    width = heads * size

    def forward(n: Net, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        if packed:
            parts = n.qkv(x).reshape(batch, length, 3, n.heads, -1).permute(2, 0, 3, 1, 4)
            query, key, value = parts.unbind(0)
        else:
            query, key, value = (
                layer(x).view(batch, length, n.heads, -1).transpose(1, 2)
                for layer in (n.q, n.k, n.v)
            )
        if fused:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        else:
            mixed = (query @ key.mT / 2).softmax(-1) @ value
        return n.out(mixed.transpose(1, 2).reshape(batch, length, -1))

    layers = {name: nn.Linear(5, width) for name in "qkv"}
    if packed:
        layers = {"qkv": nn.Linear(5, 3 * width)}
    net = Net(forward, **layers, out=nn.Linear(width, 2))
    net.heads = heads
    return net


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_head_that_nothing_reads_goes(fused: bool, packed: bool) -> None:
    net = attention(fused, packed)
    masks = {"out.weight": without((2, 12), 1, 3, 4, 5)}
    result = collapsed(net, masks, torch.randn(2, 4, 5))
    assert result.model.heads == 3
    assert shapes(result)["out.weight"] == (2, 9)
    assert {shape[0] for name, shape in shapes(result).items() if name != "out.weight"} == {
        27 if packed else 9
    }


def test_a_dimension_goes_from_all_heads_or_none() -> None:
    net = attention(fused=False, packed=False)
    one_head = {"v.weight": without((12, 5), 0, 4), "out.weight": without((2, 12), 1, 4)}
    result = collapsed(net, one_head, torch.randn(2, 4, 5))
    assert shapes(result)["v.weight"] == (12, 5)
    every_head = {"out.weight": without((2, 12), 1, 1, 4, 7, 10)}
    result = collapsed(net, every_head, torch.randn(2, 4, 5))
    assert shapes(result)["v.weight"] == (8, 5)
    assert shapes(result)["q.weight"] == (12, 5)
    assert result.model.heads == 4


def test_queries_and_keys_lose_dimensions_together() -> None:
    net = attention(fused=False, packed=False)
    net.q.bias = None
    masks = {"q.weight": without((12, 5), 0, 2, 5, 8, 11)}
    result = collapsed(net, masks, torch.randn(2, 4, 5))
    assert shapes(result)["q.weight"] == shapes(result)["k.weight"] == (8, 5)
    assert shapes(result)["v.weight"] == (12, 5)


def test_a_scale_by_the_size_of_heads_keeps_them() -> None:
    """Fused attention without an explicit scale divides by the root of the size."""
    net = attention(fused=True, packed=False)
    net.q.bias = None
    masks = {"q.weight": without((12, 5), 0, 2, 5, 8, 11)}
    result = collapsed(net, masks, torch.randn(2, 4, 5))
    assert shapes(result)["q.weight"] == shapes(result)["k.weight"] == (12, 5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_stay_as_they_are(kind: type[nn.RNNBase]) -> None:
    net = Net(
        lambda n, x: n.last(n.wide(n.rnn(x)[0][:, -1]).relu()),
        **{"rnn": kind(3, 4, batch_first=True), "wide": nn.Linear(4, 6), "last": nn.Linear(6, 2)},
    )
    masks = {"last.weight": without((2, 6), 1, 3), "wide.weight": without((6, 4), 1, 2)}
    result = collapsed(net, masks, torch.randn(2, 5, 3))
    assert result.model.wide.weight.shape == (5, 4)
    reasons = {layer.name: layer.reason for layer in result.report.layers}
    assert reasons["rnn"] == f"{kind.__name__.lower()} of 'rnn' has no rule"


def test_multihead_attention_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=True)
    masks = random_masks(layer, 0.05, 0)
    result = collapsed(layer, masks, torch.randn(2, 3, 8))
    assert result.model.linear1.out_features < 20
    assert result.model.self_attn.in_proj_weight.shape == (24, 8)


def test_units_that_mix_tokens() -> None:
    net = Net(
        lambda n, x: n.last((n.up(x.mT).relu() @ n.down.weight.mT).mT).mean(1),
        **{"up": nn.Linear(5, 9), "down": nn.Linear(9, 4, bias=False), "last": nn.Linear(3, 2)},
    )
    result = collapsed(net, {"down.weight": without((4, 9), 1, 0, 7)}, torch.randn(2, 5, 3))
    assert shapes(result) == {"up.weight": (7, 5), "down.weight": (4, 7), "last.weight": (2, 3)}


def test_einstein_sums() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        q, k = n.q(x).unflatten(-1, (2, 3)), n.k(x).unflatten(-1, (2, 3))
        scores = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return n.out(torch.einsum("bhij,bjhd->bihd", scores, k).flatten(2))

    net = Net(forward, q=nn.Linear(4, 6), k=nn.Linear(4, 6), out=nn.Linear(6, 1))
    result = collapsed(net, {"out.weight": without((1, 6), 1, 0, 1, 2)}, torch.randn(2, 5, 4))
    kept = result.kept["q.weight"][0]
    assert kept is None or kept.tolist() == [3, 4, 5]
