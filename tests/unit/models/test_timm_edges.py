"""Edges of timm's networks: of small ones by hand and by intervention, of whole ones by number."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from infcop.core.edges import Layout
from infcop.models.vision import declare_missing_operators
from tests.unit.models.golden_edges import (
    covered,
    golden,
    lively,
    moved_by_intervention,
    rows_of,
    rows_that_move,
    traced,
    written,
)


def by_name(name, **options):
    declare_missing_operators()
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3, **options)


def mobilenet():
    declare_missing_operators()
    from timm.models._efficientnet_blocks import SqueezeExcite
    from timm.models.efficientnet import decode_arch_def
    from timm.models.mobilenetv3 import MobileNetV3

    torch.manual_seed(0)
    # The kinds of blocks that mobilenetv3_small_100 has, each once.
    blocks = [
        ["ds_r1_k3_s2_e1_c8_se0.25_nre"],
        ["ir_r1_k3_s2_e2_c16_nre", "ir_r1_k3_s1_e2_c16_nre"],
        ["ir_r1_k5_s1_e2_c24_se0.25", "ir_r1_k5_s1_e2_c24_se0.25"],
        ["cn_r1_k1_s1_c32"],
    ]
    return MobileNetV3(
        decode_arch_def(blocks),
        num_classes=3,
        stem_size=8,
        num_features=24,
        act_layer=nn.Hardswish,
        se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU),
    )


def efficientnet():
    declare_missing_operators()
    from timm.models.efficientnet import EfficientNet, decode_arch_def

    torch.manual_seed(0)
    blocks = [["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r3_k3_s2_e2_c16_se0.25"]]
    return EfficientNet(
        decode_arch_def(blocks), num_classes=3, stem_size=8, num_features=24, act_layer=nn.SiLU
    )


def mixer():
    declare_missing_operators()
    from timm.models.mlp_mixer import MlpMixer

    torch.manual_seed(0)
    return MlpMixer(num_classes=3, img_size=32, num_blocks=2, embed_dim=8)


SWIN = {"img_size": 56, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
DENSENET = {"block_config": (2, 3), "growth_rate": 4, "bn_size": 2, "act_layer": "silu"}
SMALL = {
    "resnet50": (partial(by_name, layers=(2, 1, 1, 1), channels=(4, 4, 8, 8)), 32),
    "mobilenetv3": (mobilenet, 32),
    "efficientnet": (efficientnet, 32),
    "densenet121": (partial(by_name, **DENSENET), 32),
    "convnext_atto": (partial(by_name, depths=(1, 2, 1, 1), dims=(4, 8, 8, 12)), 32),
    "vit_tiny_patch16_224": (partial(by_name, img_size=32, depth=2, embed_dim=8, num_heads=2), 32),
    "swin_tiny_patch4_window7_224": (partial(by_name, **SWIN), 56),
    "mixer": (mixer, 32),
}
# Some of their units are dead in a small instance, and a dead one moves nothing.
RECTIFIED = ("resnet50", "mobilenetv3")


def small(name):
    make, size = SMALL[name]
    model = lively(make() if make in (mobilenet, efficientnet, mixer) else make(name))
    return model, (torch.randn(3, 3, size, size, dtype=torch.float64),)


@pytest.mark.parametrize("name", SMALL)
def test_golden_edges_of_small_instances(name):
    model, inputs = small(name)
    graph = traced(model, inputs)
    assert written(model, graph) == golden(name)
    assert graph.unused == ()


@pytest.mark.parametrize("name", SMALL)
def test_edges_and_channels_are_those_of_the_intervention(name):
    model, inputs = small(name)
    graph = traced(model, inputs)
    found, moved = covered(graph), moved_by_intervention(model, inputs, graph)
    if name in RECTIFIED:
        assert set(found) == set(moved)
        assert all(moved[edge] <= found[edge] for edge in found)
    else:
        assert found == moved


@pytest.mark.parametrize("name", SMALL)
def test_a_changed_example_moves_its_own_places(name):
    model, inputs = small(name)
    graph = traced(model, inputs)
    assert list(graph.layouts) == list(graph.calls)
    others = inputs[0].clone()
    others[1] = torch.randn_like(others[1])
    for tap, rows in rows_that_move(model, inputs, (others,), graph).items():
        assert rows == rows_of(1, 3, graph.layouts[tap])


def test_windows_are_folded_into_the_axis_of_the_examples():
    model, inputs = small("swin_tiny_patch4_window7_224")
    # 14 x 14 positions are 4 windows of 7 x 7; after the merging of patches 1 is left.
    folded = {tap[0] for tap, layout in traced(model, inputs).layouts.items() if layout.fold > 1}
    attention = {
        f"layers.0.blocks.{block}.attn.{layer}" for block in (0, 1) for layer in ("qkv", "proj")
    }
    assert folded == attention
    assert traced(model, inputs).layouts["layers.0.blocks.1.attn.qkv", 0] == Layout(fold=4)


# By hand, from the numbers of blocks. A residual block reads all that its stage has written so far.
WHOLE = {
    # Each block has 2 edges inside, and reads 2, 3, ... writers; the first one of a stage reads
    # those of the stage before, twice. Then 4 into the classifier.
    "resnet50": (
        64,
        (2 + 2 + 4 + 5) + (8 + 2 + 4 + 5 + 6) + (10 + 2 + 4 + 5 + 6 + 7 + 8) + (14 + 2 + 4 + 5) + 4,
        "conv1",
        "fc",
    ),
    # A block has 5 edges inside, 2 without squeeze and excitation, and reads 1, 2, ... writers; the
    # first one of a stage reads those of the stage before. The first block of all reads the stem
    # with its depthwise convolution. At the end there are three, here two, single layers.
    "mobilenetv3_small_100": (
        64,
        5 + (3 + 3) + (7 + 6 + 7) + (8 + 6) + (7 + 6 + 7) + 3 + 1 + 1,
        "conv_stem",
        "classifier",
    ),
    "efficientnet_b0": (
        64,
        5 + (6 + 6) + (7 + 6) + (7 + 6 + 7) + (8 + 6 + 7) + (8 + 6 + 7 + 8) + 9 + 1 + 1,
        "conv_stem",
        "classifier",
    ),
    # In a block of n layers 1 + 2 + ... + n, and n inside; then n + 1 into what follows.
    "densenet121": (
        64,
        (21 + 6 + 7) + (78 + 12 + 13) + (300 + 24 + 25) + (136 + 16 + 17),
        "features.conv0",
        "classifier",
    ),
    # In a stage of n blocks 1 + 2 + ... + n, and 2 inside each; then n + 1 into what follows.
    "convnext_atto": (64, 3 * (3 + 4 + 3) + (21 + 12 + 7), "stem.0", "head.fc"),
    # A block has 2 edges inside, and two readers of 1, 2, 3, ... writers. The class token, which
    # alone is classified, has heard of the patches only through the attention.
    "vit_tiny_patch16_224": (224, 24 + sum(range(1, 25)) + 24, "patch_embed.proj", "head"),
    "swin_tiny_patch4_window7_224": (
        224,
        3 * (4 + sum(range(1, 5)) + 5) + (12 + sum(range(1, 13)) + 13),
        "patch_embed.proj",
        "head.fc",
    ),
    "mixer_b16_224": (32, 24 + sum(range(1, 25)) + 25, "stem.proj", "head"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks(name):
    size, count, first, last = WHOLE[name]
    # Fewer patches mean less to compute, and the same layers.
    options = {"img_size": size} if name.startswith("mixer") else {}
    graph = traced(by_name(name, **options), (torch.randn(2, 3, size, size),))
    assert (len(graph.edges), graph.layers[0], graph.layers[-1]) == (count, first, last)
    # Every layer but the first hears another one, and every one but the last is heard.
    assert {consumer for _, consumer in graph.edges} == set(graph.layers[1:])
    assert {producer for producer, _ in graph.edges} == set(graph.layers[:-1])
    assert graph.unused == graph.called_more_than_once == ()
