"""Collapse holds: on random graphs, on the zoo, on networks of timm and transformers.

``compact`` refuses what it can't verify. So each test asks for more than that nothing is refused:
that no unit was kept only because something failed, that inputs of other sizes give the same, that
a second collapse finds nothing, that the parameters count what they should.

For a longer sweep: ``INFCOP_COLLAPSE_GRAPHS=500 pytest tests/conformance/test_collapse_holds.py``,
or ``python -m tests.reference.collapse_graphs --count 3000``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import Compact, compact
from infcop.collapse.plan import sliced
from infcop.models.vision import declare_missing_operators
from infcop.models.zoo import ZOO
from tests.reference.collapse import (
    agrees,
    drawn_masks,
    living_channels,
    masked,
    random_masks,
    spared,
)
from tests.reference.collapse_graphs import RandomNet, random_chain, swept, with_statistics
from tests.reference.collapse_tokens import RandomTokens

GRAPHS = int(os.environ.get("INFCOP_COLLAPSE_GRAPHS", "8"))


def a_second_collapse_finds_nothing(small: Compact, inputs: Any, fold: bool = True) -> None:
    again = compact(small.model, small.masks, inputs, fold=fold)
    assert again.report.parameters_after == small.report.parameters_after


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("seed", range(GRAPHS))
def test_random_graphs_over_images(seed: int, fold: bool) -> None:
    assert swept(seed, fold=fold) in ("smaller", "the same size")


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("seed", [0, 3, 6])
def test_a_second_collapse_of_images_finds_nothing(seed: int, fold: bool) -> None:
    model = RandomNet(seed).double().eval()
    images = (torch.randn(2, 3, 12, 12, dtype=torch.float64),)
    small = compact(model, drawn_masks(model, seed), images, fold=fold)
    a_second_collapse_finds_nothing(small, images, fold)


def trained(model: nn.Module, masks: Mapping[str, Tensor], images: Tensor, goal: Tensor) -> None:
    """Ten steps with momentum that keep to the masks."""
    model.train()
    kept = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(kept, lr=0.02, momentum=0.9)
    parameters = dict(model.named_parameters())
    for _ in range(10):
        optimizer.zero_grad()
        ((model(images) - goal) ** 2).mean().backward()
        for name, mask in masks.items():
            if parameters[name].grad is not None:
                parameters[name].grad.mul_(mask)
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask)


@pytest.mark.parametrize("seed", range(GRAPHS))
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_without_folding_it_trains_as_the_masked_network_does(
    seed: int, dtype: torch.dtype, most: float
) -> None:
    steps = {torch.float64: 4 + seed % 8, torch.float32: 3}[dtype]
    model = RandomNet(seed, steps=steps).to(dtype)
    masks = drawn_masks(model, seed)
    images = torch.randn(8, 3, 12, 12, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    small = compact(model, masks, (images,), fold=False)
    assert small.report.verified[-1].endswith("in training mode")
    original, goal = masked(model, masks), torch.ones(8, 3, dtype=dtype)
    trained(original, masks, images, goal)
    trained(small.model, small.masks, images, goal)
    values = dict(original.named_parameters())
    for name, found in small.model.named_parameters():
        expected = sliced(values[name].detach(), small.kept[name])
        allowed = most * max(1, float(expected.abs().max()))
        assert float((found.detach() - expected).abs().max()) <= allowed


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_chains_keep_what_varies_and_matters(seed: int) -> None:
    torch.manual_seed(seed)
    model = random_chain(seed).double().eval()
    masks = random_masks(model, 0.08, seed)
    images = torch.randn(8, 2, 12, 12, dtype=torch.float64)
    small = compact(model, masks, (images,))
    layers = {n: m for n, m in model.named_children() if isinstance(m, nn.Conv2d | nn.Linear)}
    original = masked(model, masks)
    living = living_channels(original, {n: original.get_submodule(n) for n in layers}, images)
    left = {name: len(small.model.get_submodule(name).weight) for name in layers}
    last = list(layers)[-1]
    for name in [name for name in layers if name != last]:
        if min(living.values()):
            assert left[name] == living[name]
        else:
            assert left[name] >= max(1, living[name])


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_random_stacks_over_tokens(seed: int) -> None:
    model = RandomTokens(seed, blocks=1 + seed % 4).double().eval()
    masks = drawn_masks(model, seed)

    def example(number: int, *shape: int) -> Tensor:
        x = model.example(number, *shape)
        return x.double() if x.is_floating_point() else x

    small = compact(model, masks, (example(seed),))
    for length in (5, 1, 8) if model.any_length else (5,):
        assert agrees(model, masks, small, example(seed + 1, 3, length))
    if seed % 3 == 0 and not spared(small):
        a_second_collapse_finds_nothing(small, (example(seed),))


@pytest.mark.parametrize(
    ("name", "options", "density"),
    [
        ("lenet-300-100", {}, 0.02),
        ("lenet-5", {}, 0.05),
        ("resnet-20", {"width": 0.5}, 0.02),
        ("vgg-16", {"width": 0.125}, 0.02),
    ],
)
def test_the_zoo(name: str, options: dict[str, Any], density: float) -> None:
    torch.manual_seed(0)
    model = ZOO[name].factory(in_channels=1, image_size=32, num_classes=10, **options).eval()
    small = compact(model, random_masks(model, density, 0), (torch.randn(2, 1, 32, 32),))
    assert not spared(small)
    assert type(small.model) is type(model)
    assert small.report.parameters_after < small.report.parameters_before
    state = small.model.state_dict()
    names = {*small.kept, *small.new_biases}
    assert {*state} == names
    assert sum(p.numel() for p in small.model.parameters()) == small.report.parameters_after


TIMM: dict[str, dict[str, Any]] = {
    "resnet18": {"channels": (8, 8, 16, 16), "stem_width": 8},
    "mobilenetv3_small_050": {},
    "densenet121": {"growth_rate": 4, "block_config": (2, 2)},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20)},
}


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name: str) -> None:
    declare_missing_operators()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **TIMM[name]).eval()
    with_statistics(model, 0)
    density = 0.01 if name == "resnet18" else 0.05
    small = compact(model, random_masks(model, density, 0), (torch.randn(2, 3, 32, 32),))
    assert not spared(small)
    assert small.report.parameters_after < small.report.parameters_before


def language_models() -> dict[str, Callable[..., nn.Module]]:
    declare_missing_operators()
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 12}
    attention = {"num_attention_heads": 4, "attn_implementation": "sdpa"}

    def bert() -> nn.Module:
        return transformers.BertModel(transformers.BertConfig(**sizes, **attention))

    def gpt2() -> nn.Module:
        config = transformers.GPT2Config(
            **{"vocab_size": 20, "n_layer": 2, "n_embd": 16, "n_head": 4, "n_inner": 12},
            **{"bos_token_id": 0, "eos_token_id": 0},
        )
        return transformers.GPT2LMHeadModel(config)

    def llama(keys: int = 2) -> nn.Module:
        config = transformers.LlamaConfig(
            **sizes, **attention, num_key_value_heads=keys, max_position_embeddings=16
        )
        return transformers.LlamaForCausalLM(config)

    return {"bert": bert, "gpt2": gpt2, "llama": llama}


HEAD_OUTPUTS = {
    # the weight that reads the heads, and which of its dimensions
    "bert": ("attention.output.dense.weight", 1),
    "gpt2": ("attn.c_proj.weight", 0),
    "llama": ("self_attn.o_proj.weight", 1),
}


@pytest.mark.parametrize("name", HEAD_OUTPUTS)
def test_transformers_with_scattered_zeros(name: str) -> None:
    model, inputs = language_model(name)
    masks = {
        key: mask
        for key, mask in random_masks(model, 0.05, 0).items()
        if "embed" not in key and "wte" not in key and "wpe" not in key
    }
    small = compact(model, masks, inputs)
    assert small.report.parameters_after < small.report.parameters_before


@pytest.mark.parametrize("name", HEAD_OUTPUTS)
def test_transformers_lose_heads(name: str) -> None:
    """Of the first block the first head of four, or the first two where these share keys."""
    model, inputs = language_model(name)
    end, dim = HEAD_OUTPUTS[name]
    key = next(key for key, _ in model.named_parameters() if key.endswith(end))
    lost = 8 if name == "llama" else 4
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask.narrow(dim, 0, lost).fill_(False)
    small = compact(model, {key: mask}, inputs)
    assert not spared(small)
    left = {key: tuple(p.shape) for key, p in small.model.named_parameters() if p.ndim > 1}
    assert left[key][dim] == 16 - lost
    changed = {key for key, p in model.named_parameters() if p.ndim > 1 and left[key] != p.shape}
    assert len(changed) == (2 if name == "gpt2" else 4), "queries, keys, values and outputs"


def language_model(name: str) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = language_models()[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    inputs: dict[str, Any] = {"input_ids": torch.randint(20, (2, 5))}
    return model, inputs if name == "bert" else {**inputs, "use_cache": False}
