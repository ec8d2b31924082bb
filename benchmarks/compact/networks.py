"""The known networks, with what they are called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from infcop.models.build import build_model
from infcop.models.calling import Inputs
from infcop.models.vision import declare_missing_operators

__all__ = ["OUTPUTS", "ZOO_IMAGES", "Network", "image_network", "known_networks"]

_ANY_SIZE = 64
"""Height and width of the images for networks of timm that take any."""
ZOO_IMAGES = {
    "lenet-300-100": (1, 28),
    "lenet-5": (1, 28),
    "vgg-16": (3, 32),
    "resnet-20": (3, 32),
    "resnet-56": (3, 32),
    "resnet-18": (3, 32),
}
"""Channels and size of the images for networks of the zoo."""
_TIMM = {
    "resnet50": _ANY_SIZE,
    "mobilenetv3_small_100": _ANY_SIZE,
    "efficientnet_b0": _ANY_SIZE,
    "densenet121": _ANY_SIZE,
    "convnext_atto": _ANY_SIZE,
    "vit_tiny_patch16_224": 224,
    "regnety_002": _ANY_SIZE,
    "ghostnet_100": _ANY_SIZE,
    "mobilevit_xxs": _ANY_SIZE,
    "res2net50_26w_4s": _ANY_SIZE,
}
"""The last four for grouped convolutions, concatenations, attention beside convolutions, and parts
of a split that differ in what becomes of them."""
_LANGUAGE = ("BERT", "GPT-2", "Llama")
_CLASSES, _WORDS, _LENGTH = 10, 1000, 32
OUTPUTS = (_CLASSES, _WORDS)
"""Outputs of the last layers."""


@dataclass(frozen=True)
class Network:
    """A known network.

    Attributes:
        build: Makes it, with the same weights every time.
        inputs: Makes inputs of so many examples.
        about: Of what size it and its inputs are.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    about: str


def image_network(name: str, channels: int, size: int, classes: int = _CLASSES) -> Network:
    """Return a network of the zoo or of timm with random weights."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        return build_model(
            name, in_channels=channels, image_size=size, num_classes=classes, options={}
        ).eval()

    def inputs(examples: int) -> Inputs:
        generator = torch.Generator().manual_seed(examples)
        return (torch.randn(examples, channels, size, size, generator=generator),)

    return Network(build, inputs, f"{channels} x {size} x {size}")


def known_networks() -> dict[str, Network]:
    """Return the networks of the zoo, of timm and of transformers."""
    found = {name: image_network(name, *facts) for name, facts in ZOO_IMAGES.items()}
    for name, size in _TIMM.items():
        found[name] = image_network(f"timm:{name}", 3, size)
    return found | {name: _language_network(name) for name in _LANGUAGE}


def _language_network(name: str) -> Network:
    def build() -> nn.Module:
        declare_missing_operators()
        import transformers

        shared: dict[str, Any] = {"vocab_size": _WORDS, "attn_implementation": "sdpa"}
        usual = {
            **{"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4},
            **{"intermediate_size": 1024, **shared},
        }
        torch.manual_seed(0)
        if name == "BERT":
            return transformers.BertModel(transformers.BertConfig(**usual)).eval()
        if name == "Llama":
            grouped = transformers.LlamaConfig(**usual, num_key_value_heads=2)
            return transformers.LlamaForCausalLM(grouped).eval()
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        config = transformers.GPT2Config(n_layer=4, n_embd=256, n_head=4, **shared, **ends)
        return transformers.GPT2LMHeadModel(config).eval()

    def inputs(examples: int) -> Inputs:
        generator = torch.Generator().manual_seed(examples)
        words = torch.randint(_WORDS, (examples, _LENGTH), generator=generator)
        return {"input_ids": words, **({} if name == "BERT" else {"use_cache": False})}

    return Network(build, inputs, f"4 blocks of width 256, {_LENGTH} words")
