"""Whole channels, MLP units and heads of known networks are removed for good.

Collapsed completely: of every pruned weight the smaller network holds the entries that survive and
no others. Exact: it gives what the masked network gives, on inputs that collapse has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import channel_groups, compact
from infcop.core.channels import ChannelGroups
from infcop.core.mask import Masks
from infcop.core.pattern import Heads
from infcop.masking.groups import build_groups
from infcop.models.calling import call
from infcop.models.prunable import find_prunable
from infcop.models.vision import declare_missing_operators
from infcop.models.weight_axes import weight_axes
from tests.reference.collapse import masked, spared
from tests.reference.collapse_graphs import with_statistics

TIMM: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 20), "stem_width": 8},
    "mobilenetv3_small_100": {},
    "efficientnet_b0": {},
    "densenet121": {"growth_rate": 6, "block_config": (2, 2, 2, 2)},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20)},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4},
}
WIDTH, HEADS = 32, 4


def of_timm(name: str) -> nn.Module:
    declare_missing_operators()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return with_statistics(timm.create_model(name, num_classes=3, **TIMM[name]), 0).eval()


def bert(transformers: Any, **shared: Any) -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**shared))


def gpt2(transformers: Any, **shared: Any) -> nn.Module:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shared, **ends))


def llama(transformers: Any, **shared: Any) -> nn.Module:
    config = transformers.LlamaConfig(**shared, max_position_embeddings=16)
    return transformers.LlamaForCausalLM(config)


LANGUAGE: dict[str, Callable[..., nn.Module]] = {"bert": bert, "gpt2": gpt2, "llama": llama}


def of_transformers(name: str) -> nn.Module:
    declare_missing_operators()
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = LANGUAGE[name](
        transformers,
        **{"vocab_size": 20, "num_hidden_layers": 2, "hidden_size": WIDTH},
        **{"num_attention_heads": HEADS, "attn_implementation": "sdpa"},
        **({} if name == "gpt2" else {"intermediate_size": 48}),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def words(name: str, *shape: int) -> dict[str, Any]:
    own: dict[str, Any] = {"input_ids": torch.randint(20, shape)}
    return own if name == "bert" else {**own, "use_cache": False}


def thinned(groups: ChannelGroups, part: float, seed: int) -> Tensor:
    """Draw the channels that go: a part of every class, of which one stays at least."""
    generator = torch.Generator().manual_seed(seed)
    removed = torch.zeros(groups.count, dtype=torch.bool)
    for label in range(int(groups.classes.max()) + 1):
        own = (groups.classes == label).nonzero()[:, 0]
        order = torch.randperm(len(own), generator=generator)
        removed[own[order[: min(round(part * len(own)), len(own) - 1)]]] = True
    return removed


def without_heads(model: nn.Module, masks: Masks, *lost: int) -> Masks:
    """Remove heads from every attention."""
    prunable = find_prunable(model)
    axes = weight_axes(model, prunable.names)
    found = dict(masks)
    for unit in build_groups(Heads(), axes, prunable.shapes).units:
        chosen = np.isin(np.arange(unit.count), lost)
        for name, tiles in unit.tiles.items():
            found[name] = masks[name] & ~tiles.spread(chosen, prunable.shapes[name])
    return Masks(found)


def check(model: nn.Module, masks: Masks, inputs: Any, others: Any) -> None:
    small = compact(model, masks, inputs)
    assert not spared(small)
    left = dict(small.model.named_parameters(remove_duplicate=False))
    entries = {name: left[name].numel() for name in masks}
    assert entries == masks.kept_per_layer, "only what survives, and all of it"
    assert all(mask.all() for mask in small.masks.values())
    assert not small.new_biases
    with torch.no_grad():
        expected, found = (
            call(one.double(), others) for one in (masked(model, masks), small.model)
        )
    pairs = list(zip(tensors(expected), tensors(found), strict=True))
    assert pairs
    for own, other in pairs:
        assert float((own - other).abs().max()) <= 1e-11 * float(own.abs().max())


def tensors(output: Any) -> list[Tensor]:
    values = output.values() if isinstance(output, Mapping) else [output]
    return [value for value in values if isinstance(value, Tensor)]


@pytest.mark.parametrize("name", TIMM)
def test_channels_of_timm(name: str) -> None:
    model = of_timm(name)
    prunable = find_prunable(model)
    images = (torch.randn(2, 3, 32, 32),)
    groups = channel_groups(model, images, prunable.names)
    masks = groups.without(thinned(groups, 0.6, 0), Masks.full(prunable.shapes))
    others = (torch.randn(3, 3, 32, 32, dtype=torch.float64),)
    check(model, masks, images, others)


def test_all_but_one_channel_of_every_class() -> None:
    model = of_timm("resnet50")
    prunable = find_prunable(model)
    images = (torch.randn(2, 3, 32, 32),)
    groups = channel_groups(model, images, prunable.names)
    masks = groups.without(thinned(groups, 1.0, 0), Masks.full(prunable.shapes))
    check(model, masks, images, (torch.randn(1, 3, 64, 64, dtype=torch.float64),))


def test_heads_and_units_of_a_vision_transformer() -> None:
    model = of_timm("vit_tiny_patch16_224")
    prunable = find_prunable(model)
    images = (torch.randn(2, 3, 32, 32),)
    groups = channel_groups(model, images, prunable.names)
    units = groups.without(thinned(groups, 0.5, 1), Masks.full(prunable.shapes))
    check(model, without_heads(model, units, 0, 2), images, (torch.randn(1, 3, 32, 32).double(),))


@pytest.mark.parametrize("name", LANGUAGE)
def test_heads_and_units_of_transformers(name: str) -> None:
    model = of_transformers(name)
    prunable = find_prunable(model)
    groups = channel_groups(model, words(name, 2, 5), prunable.names)
    assert groups.count, "the units of the MLPs"
    units = groups.without(thinned(groups, 0.5, 1), Masks.full(prunable.shapes))
    masks = without_heads(model, units, 1, 2)
    assert masks.kept < units.kept
    check(model, masks, words(name, 2, 5), words(name, 3, 7))
