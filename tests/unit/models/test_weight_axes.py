"""Axes of weights, and where the heads of attention are, in networks of three libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from infcop.errors import ModelError
from infcop.models.attention import HeadSlices, head_slices
from infcop.models.prunable import find_prunable
from infcop.models.vision import declare_missing_operators
from infcop.models.weight_axes import WeightAxes, weight_axes

# -- axes ------------------------------------------------------------------------------------------


def axes_of(layer: nn.Module) -> WeightAxes:
    return weight_axes(layer, ["weight"])["weight"]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(4, 6), WeightAxes(0, 1)),
        (nn.Conv1d(4, 6, 3), WeightAxes(0, 1)),
        (nn.Conv3d(4, 6, 3, groups=2), WeightAxes(0, 1, groups=2)),
        (nn.ConvTranspose1d(4, 6, 3), WeightAxes(1, 0)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), WeightAxes(1, 0, groups=2)),
    ],
)
def test_axes_of_layers(layer: nn.Module, expected: WeightAxes) -> None:
    assert axes_of(layer) == expected


def test_the_linear_layer_of_transformers_is_turned() -> None:
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(6, 4)
    assert axes_of(layer) == WeightAxes(1, 0)
    assert axes_of(layer).outputs_first(layer.weight).shape == (6, 4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 6),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(4, 6, (3, 2)),
        nn.ConvTranspose2d(4, 6, (3, 2), groups=2),
        nn.ConvTranspose1d(6, 6, 3, groups=6),
    ],
)
def test_turning_there_and_back_changes_nothing(layer: nn.Module) -> None:
    axes, weight = axes_of(layer), layer.get_parameter("weight").detach()
    turned = axes.outputs_first(weight)
    assert turned.shape[0] == 6
    assert torch.equal(axes.restored(turned), weight)


def test_an_output_of_a_grouped_transposed_convolution_is_its_row() -> None:
    layer = nn.ConvTranspose1d(4, 6, 1, groups=2, bias=False)
    turned = axes_of(layer).outputs_first(layer.weight.detach())
    inputs = torch.randn(1, 4, 1)
    expected = [
        float(turned[o, :, 0] @ inputs[0, 2 * (o // 3) : 2 * (o // 3) + 2, 0]) for o in range(6)
    ]
    assert layer(inputs)[0, :, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_wrappers_are_looked_through_and_names_must_be_of_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert list(weight_axes(DataParallel(model), ["0.weight"])) == ["0.weight"]
    for name in ("1.weight", "0.bias", "nowhere.weight", "weight"):
        with pytest.raises(ModelError, match=f"convolution, got '{name}'"):
            weight_axes(model, [name])


# -- heads -----------------------------------------------------------------------------------------


class Separate(nn.Module):
    """Attention under names of choice, grouped queries possible."""

    def __init__(self, names: tuple[str, ...], sizes: tuple[int, ...], **attributes: Any) -> None:
        super().__init__()
        *projections, output = names
        for name, size in zip(projections, sizes, strict=True):
            self.add_module(name, nn.Linear(8, size))
        self.add_module(output, nn.Linear(attributes.pop("inputs", sizes[0]), 8))
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    "names",
    [
        ("q_proj", "k_proj", "v_proj", "out_proj"),
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("query", "key", "value", "out"),
        ("q", "k", "v", "o"),
        ("q", "k", "v", "proj"),
        ("q_lin", "k_lin", "v_lin", "out_lin"),
    ],
)
@pytest.mark.parametrize(
    "attribute",
    [
        *({"num_heads": 3}, {"num_attention_heads": 3}, {"n_heads": 3}, {"n_head": 3}),
        *({"head_dim": 4}, {"attention_head_size": 4}),
    ],
)
def test_usual_names(names: tuple[str, ...], attribute: dict[str, int]) -> None:
    slices = head_slices(Separate(names, (12, 12, 12), **attribute))
    weights = tuple(f"{name}.weight" for name in names)
    assert list(slices) == list(weights)
    for name in weights[:3]:
        assert slices[name] == HeadSlices("", weights, 3, "output", (12,))
    assert slices[weights[3]] == HeadSlices("", weights, 3, "input", (12,))


def test_grouped_queries_go_with_their_keys() -> None:
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    for attribute in ({"num_heads": 6}, {"head_dim": 4}):
        slices = head_slices(Separate(names, (24, 8, 8), **attribute))
        assert {one.count for one in slices.values()} == {2}
        assert [one.sections for one in slices.values()] == [(24,), (8,), (8,), (24,)]


def test_fused_projections() -> None:
    plain = head_slices(Separate(("qkv", "proj"), (36,), num_heads=3, inputs=12))
    assert plain["qkv.weight"].sections == (12, 12, 12)
    assert plain["proj.weight"].sections == (12,)
    grouped = Separate(("qkv_proj", "o_proj"), (40,), head_dim=4, num_key_value_heads=2, inputs=24)
    assert head_slices(grouped)["qkv_proj.weight"].sections == (24, 8, 8)
    assert head_slices(grouped)["qkv_proj.weight"].count == 2


@pytest.mark.parametrize(
    "module",
    [
        Separate(("q", "k", "v", "o"), (12, 12, 12)),
        Separate(("q", "k", "v", "o"), (12, 12, 12), num_heads=5),
        Separate(("q", "k", "v", "o"), (12, 10, 12), num_heads=3),
        Separate(("q", "k", "v", "o"), (12, 12, 7), num_heads=3),
        Separate(("q", "k", "v", "other"), (12, 12, 12), num_heads=3),
        Separate(("q", "k", "w", "o"), (12, 12, 12), num_heads=3),
        Separate(("q", "k", "v", "o"), (12, 12, 12), num_heads=True),
        # Keys and values alone, or with something else.
        Separate(("c_attn", "c_proj"), (24,), num_heads=3, inputs=12),
        Separate(("in_proj", "out_proj"), (31,), num_heads=3, inputs=12),
        Separate(("qkv", "proj"), (36,), num_heads=5, inputs=12),
    ],
)
def test_what_is_not_surely_attention_is_passed_over(module: nn.Module) -> None:
    assert head_slices(nn.Sequential(module, nn.Linear(2, 2))) == {}


def test_packed_attention_names_the_weights_that_are_no_layers() -> None:
    same = head_slices(nn.Sequential(nn.MultiheadAttention(8, 2)))
    assert list(same) == ["0.out_proj.weight"]
    assert same["0.out_proj.weight"].weights == ("0.in_proj_weight", "0.out_proj.weight")
    apart = head_slices(nn.MultiheadAttention(8, 2, kdim=4, vdim=4))
    assert apart["out_proj.weight"].weights[:3] == (
        *("q_proj_weight", "k_proj_weight", "v_proj_weight"),
    )


# -- heads of whole networks -----------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _torchvision_may_lack_operators() -> None:
    declare_missing_operators()


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=11,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=8,
        )
    )


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(
        GPT2Config(vocab_size=11, n_embd=12, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)
    )


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(
            vocab_size=11,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=3,
            intermediate_size=12,
        )
    )


def timm_transformer() -> nn.Module:
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=3
    )


def attention_outputs(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return what each output projection is given."""
    seen: list[Tensor] = []
    layers = {
        name.removesuffix(".weight")
        for name, one in head_slices(model).items()
        if one.side == "input"
    }
    handles = [
        module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
        for name, module in model.named_modules()
        if name in layers
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("build", [bert, gpt2, llama, timm_transformer])
def test_a_silenced_head_is_silent_where_the_output_projection_says(build: Any) -> None:
    """With its values at zero, the head's channels there are zero, and only they."""
    torch.manual_seed(0)
    model = build().eval()
    images = build is timm_transformer
    inputs = torch.randn(1, 3, 32, 32) if images else torch.tensor([[1, 2, 3, 4, 5]])
    names = find_prunable(model).names
    slices = {n: one.heads for n, one in weight_axes(model, names).items() if one.heads}
    assert {w for one in slices.values() for w in one.weights} == set(slices)
    attentions = {one.attention: one for one in slices.values()}
    assert len(attentions) == 2
    first = next(iter(attentions.values()))
    *_, values_name, output_name = first.weights
    values, output = slices[values_name], slices[output_name]
    assert (values.count, values.side, output.side) == (3, "output", "input")
    width = values.sections[-1]
    start = sum(values.sections[:-1])
    module = model.get_submodule(values_name.removesuffix(".weight"))
    axes = weight_axes(model, [values_name])[values_name]
    for head in range(3):
        piece = slice(start + head * width // 3, start + (head + 1) * width // 3)
        saved = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with torch.no_grad():
            axes.outputs_first(module.weight)[piece] = 0
            if module.bias is not None:
                module.bias[piece] = 0
        seen = attention_outputs(model, inputs)[0]
        module.load_state_dict(saved)
        silent = (seen == 0).flatten(0, -2).all(dim=0)
        whole = output.sections[0] // 3
        expected = torch.zeros_like(silent)
        expected[head * whole : (head + 1) * whole] = True
        assert torch.equal(silent, expected)
