"""Fused projections are accepted only where a forward pass shows the heads where they are taken to
be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DataParallel

import infcop
from infcop.errors import ModelError
from infcop.models.attention import head_slices
from infcop.models.head_layout import check_fused_heads
from infcop.models.vision import declare_missing_operators

ELSEWHERE = (
    "a forward pass shows that the model mixes or orders them otherwise; use another pattern"
)
UNSEEN = "the model calls no such layer, so that can't be seen; use another pattern"


class Attention(nn.Module):
    """Three heads of two channels, whose fused projection is laid out in one of several ways."""

    def __init__(self, layout: str = "parts first", key_heads: int = 3) -> None:
        super().__init__()
        self.layout, self.num_heads, self.num_key_value_heads = layout, 3, key_heads
        self.key_heads = key_heads
        self.qkv, self.proj = nn.Linear(6, 6 + 4 * key_heads), nn.Linear(6, 6)
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(6)
        self.mix = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        fused = self.qkv(inputs)
        if self.layout == "by hand":
            fused = functional.linear(inputs, self.qkv.weight, self.qkv.bias)
        if self.layout == "heads first":
            parts = fused.unflatten(-1, (3, 3, 2)).unbind(-2)
        elif self.layout == "channels first":
            parts = fused.unflatten(-1, (3, 2, 3)).movedim(-1, -2).unbind(-3)
        else:
            sizes = (6, 2 * self.key_heads, 2 * self.key_heads)
            parts = tuple(part.unflatten(-1, (-1, 2)) for part in fused.split(sizes, -1))
        if self.layout == "values first":
            parts = parts[2], parts[1], parts[0]
        queries, keys, values = (part.transpose(-3, -2) for part in parts)
        groups = 3 // self.key_heads
        keys, values = (part.repeat_interleave(groups, -3) for part in (keys, values))
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        if self.layout == "mixed heads":
            mixed = self.mix(mixed.movedim(-3, -1)).movedim(-1, -3)
        mixed = self.dropout(mixed).transpose(-3, -2).flatten(-2)
        given = {"input": mixed} if self.layout == "by keyword" else {}
        output: Tensor = self.proj(**given) if given else self.proj(mixed)
        return self.norm(output.transpose(-2, -1)).transpose(-2, -1)


class Unused(Attention):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def ran(model: nn.Module) -> None:
    inputs = torch.randn(2, 5, 6, dtype=next(model.parameters()).dtype)
    check_fused_heads(model, head_slices(model), lambda model: model(inputs))


@pytest.mark.parametrize(
    ("layout", "key_heads"),
    [("parts first", 3), ("parts first", 1), ("values first", 3), ("by keyword", 3)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_heads_in_order_are_accepted(layout: str, key_heads: int, dtype: torch.dtype) -> None:
    ran(nn.Sequential(Attention(layout, key_heads), Attention(layout, key_heads)).to(dtype))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Attention("heads first"), ELSEWHERE),
        (Attention("channels first"), ELSEWHERE),
        (Attention("mixed heads"), ELSEWHERE),
        (Unused(), UNSEEN),
    ],
    ids=["heads first", "channels first", "mixed heads", "never called"],
)
def test_heads_elsewhere_are_refused_with_the_layer_and_the_remedy(
    module: nn.Module, says: str
) -> None:
    model = nn.Sequential(Attention(), module)
    with pytest.raises(ModelError, match=says) as caught:
        ran(model)
    message = str(caught.value)
    assert "'1.qkv.weight' is taken for queries, keys and values, each with 3 heads" in message
    assert message.endswith("method.exclude = ['1.qkv.weight', '1.proj.weight']")


def test_a_projection_whose_output_is_not_used_is_refused() -> None:
    with pytest.raises(ModelError, match=ELSEWHERE):
        ran(Attention("by hand"))


def test_weights_do_not_matter_and_wrappers_are_looked_through() -> None:
    for layout, accepted in (("parts first", True), ("heads first", False)):
        model = Attention(layout)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        if accepted:
            ran(DataParallel(model).module)
            check_fused_heads(
                DataParallel(model), head_slices(model), lambda one: one(torch.randn(1, 4, 6))
            )
        else:
            with pytest.raises(ModelError, match=ELSEWHERE):
                ran(model)


def test_projections_that_are_apart_are_not_looked_at() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    check_fused_heads(model, head_slices(model), lambda _: pytest.fail("no pass is needed"))


def broken(model: nn.Module) -> None:
    model(torch.randn(1, 4, 6))
    raise ValueError("the data are gone")


def plain(model: nn.Module) -> None:
    model(torch.randn(1, 4, 6))


@pytest.mark.parametrize("layout", ["parts first", "heads first"])
@pytest.mark.parametrize("forward", [plain, broken])
def test_the_model_is_left_as_it_was(layout: str, forward: Callable[[nn.Module], None]) -> None:
    model = Attention(layout)
    model.proj.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    heads = head_slices(model)
    try:
        check_fused_heads(model, heads, forward)
    except (ModelError, ValueError):
        assert (layout, forward) != ("parts first", plain)
    else:
        assert (layout, forward) == ("parts first", plain)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


# -- networks of libraries -------------------------------------------------------------------------

TOKENS = torch.tensor([[1, 2, 3, 4, 5], [2, 2, 1, 3, 4]])
SMALL = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(n_embd=12, n_layer=2, n_head=3, **SMALL))


def phi3() -> nn.Module:
    from transformers import Phi3Config, Phi3Model

    return Phi3Model(
        Phi3Config(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=3,
            intermediate_size=12,
            pad_token_id=0,
            **SMALL,
        )
    )


def codegen() -> nn.Module:
    from transformers import CodeGenConfig, CodeGenModel

    return CodeGenModel(CodeGenConfig(n_embd=32, n_layer=1, n_head=8, rotary_dim=4, **SMALL))


def bigcode() -> nn.Module:
    from transformers import GPTBigCodeConfig, GPTBigCodeModel

    return GPTBigCodeModel(
        GPTBigCodeConfig(n_embd=32, n_layer=1, n_head=4, multi_query=False, **SMALL)
    )


def vit() -> nn.Module:
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=3
    )


def of_maxvit(head_first: bool) -> nn.Module:
    from timm.models.maxxvit import AttentionCl

    return nn.Sequential(AttentionCl(32, 32, dim_head=8, head_first=head_first))


@pytest.mark.parametrize(
    ("build", "inputs", "accepted"),
    [
        (gpt2, TOKENS, True),
        (phi3, TOKENS, True),
        (vit, torch.randn(2, 3, 32, 32), True),
        (lambda: of_maxvit(head_first=False), torch.randn(2, 5, 32), True),
        (lambda: of_maxvit(head_first=True), torch.randn(2, 5, 32), False),
        (codegen, TOKENS, False),
        (bigcode, TOKENS, False),
    ],
    ids=["gpt2", "phi3", "vit", "maxvit", "maxvit head first", "codegen", "bigcode"],
)
def test_attention_of_libraries(build: Any, inputs: Tensor, accepted: bool) -> None:
    declare_missing_operators()
    model = build()
    heads = head_slices(model)
    assert any(len(one.sections) == 3 for one in heads.values())
    if accepted:
        check_fused_heads(model, heads, lambda model: model(inputs))
    else:
        with pytest.raises(ModelError, match=ELSEWHERE):
            check_fused_heads(model, heads, lambda model: model(inputs))


# -- in a search -----------------------------------------------------------------------------------


class Classifier(nn.Module):
    def __init__(self, layout: str) -> None:
        super().__init__()
        self.attention, self.last = Attention(layout), nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(self.attention(inputs).mean(dim=1))
        return logits


@pytest.mark.parametrize("layout", ["parts first", "heads first"])
def test_a_search_looks_before_it_trains(tmp_path: Path, layout: str) -> None:
    data = [(torch.randn(4, 5, 6), torch.arange(4) % 2) for _ in range(2)]
    settings: dict[str, Any] = {
        "method": {
            "name": "lth",
            "pattern": "heads",
            "schedule": "one-shot",
            "exclude": ["last", "*.mix"],
        },
        "density": 0.67,
        "dense": {"passes": 1},
        "levels": {"max_passes": 1},
        "final": {"passes": 1},
        "execution": {"device": "cpu", "threads": 1},
        "run_dir": tmp_path,
    }
    model = Classifier(layout)
    task = infcop.Classification(data, data)
    if layout == "parts first":
        kept = infcop.search(model, task, **settings).masks.kept_per_layer
        assert kept["attention.qkv.weight"] == 72
        assert kept["attention.proj.weight"] == 24
    else:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(ModelError, match=ELSEWHERE):
            infcop.search(model, task, **settings)
        assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
