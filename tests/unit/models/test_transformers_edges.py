"""Edges of networks of transformers, built from small configurations."""

from __future__ import annotations

import pytest
import torch

from infcop.core.edges import Layout
from infcop.models.prunable import find_prunable
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


def bert(**options):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        num_labels=3,
        **options,
    )
    return BertForSequenceClassification(config)


def gpt2(**options):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=11,
        n_embd=8,
        n_layer=2,
        n_head=2,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
        **options,
    )
    return GPT2LMHeadModel(config)


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        **options,
    )
    return LlamaForCausalLM(config)


MAKERS = {"bert": bert, "gpt2": gpt2, "llama": llama}
MODELS = [(name, attention) for name in MAKERS for attention in ("eager", "sdpa")]


def small(name, attention="sdpa"):
    declare_missing_operators()
    torch.manual_seed(0)
    model = lively(MAKERS[name](attn_implementation=attention))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    return model, {"input_ids": torch.randint(11, (3, 5)), "attention_mask": mask}


@pytest.mark.parametrize(("name", "attention"), MODELS)
def test_golden_edges(name, attention):
    model, inputs = small(name, attention)
    graph = traced(model, inputs)
    assert written(model, graph) == golden(name)
    assert graph.unused == ()


@pytest.mark.parametrize(("name", "attention"), MODELS)
def test_edges_and_channels_are_those_of_the_intervention(name, attention):
    model, inputs = small(name, attention)
    graph = traced(model, inputs)
    assert covered(graph) == moved_by_intervention(model, inputs, graph)


@pytest.mark.parametrize("name", MAKERS)
def test_positional_and_keyword_arguments_give_the_same(name):
    model, inputs = small(name)
    tokens = inputs["input_ids"]
    assert traced(model, (tokens,)) == traced(model, {"input_ids": tokens})


@pytest.mark.parametrize("name", MAKERS)
def test_examples_come_first_and_a_changed_one_moves_its_own_places(name):
    model, inputs = small(name)
    graph = traced(model, inputs)
    assert graph.layouts == dict.fromkeys(graph.calls, Layout())
    others = inputs["input_ids"].clone()
    others[1] = (others[1] + 1) % 11
    moved = rows_that_move(model, inputs, {**inputs, "input_ids": others}, graph)
    for tap, rows in moved.items():
        assert rows == rows_of(1, 3, graph.layouts[tap])


def test_the_linear_layers_of_gpt2_are_prunable():
    model, _ = small("gpt2")
    prunable = find_prunable(model)
    # Its own class, whose weight is [inputs, outputs].
    assert prunable.shapes["transformer.h.0.attn.c_attn.weight"] == (8, 24)
    assert len(prunable.names) == 2 * 4 + 1
    assert prunable.excluded["transformer.wte.weight"].startswith("tied: the same tensor as")
