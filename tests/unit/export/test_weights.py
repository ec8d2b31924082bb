"""Plain files of weights load where they came from, tied ones too."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model

from infcop.export.tensors import plain
from infcop.export.weights import write_safetensors, write_state_dict
from tests.reference.export import same_bits
from tests.reference.export_networks import Words, manifest


def test_safetensors_hold_a_tied_tensor_once_and_the_manifest(tmp_path: Path) -> None:
    model = Words()
    found = plain(model.state_dict(), "test")
    write_safetensors(found, tmp_path / "a.safetensors", manifest(tied=found.tied))
    assert found.tied == {"head.weight": "embedding.weight"}
    assert same_bits(
        dict(sorted(load_file(tmp_path / "a.safetensors").items())),
        dict(sorted(found.tensors.items())),
    )
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()["infcop"])
    assert told == manifest(tied=found.tied).model_dump(mode="json")
    other = Words()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert load_model(other, tmp_path / "a.safetensors") == (set(), [])
    assert same_bits(other.state_dict(), model.state_dict())


def test_a_state_dict_is_read_without_running_code(tmp_path: Path) -> None:
    model = Words()
    found = plain({**model.state_dict(), "part": torch.randn(100, 100)[:1]}, "test")
    for name in ("a.pt", "b.pt"):
        write_state_dict(found, tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert (tmp_path / "a.pt").stat().st_size < 20_000, "memory that no tensor shows is left out"
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    part = loaded.pop("part")
    assert part.shape == (1, 100)
    assert loaded["head.weight"].data_ptr() == loaded["embedding.weight"].data_ptr()
    assert set(loaded) == set(model.state_dict())
    Words().load_state_dict(loaded, strict=True)
