from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from infcop.collapse import compact
from infcop.collapse.load import load_compact, packed
from infcop.errors import ModelError, PruningError
from tests.reference.collapse import Net, random_masks, without


def convolutions() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def tied() -> nn.Module:
    torch.manual_seed(1)
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(4, 6), layer, nn.ReLU(), layer, nn.Linear(6, 2))


def recurrent() -> nn.Module:
    torch.manual_seed(1)
    return Net(
        lambda net, x: net.last(net.hidden(net.cells(x)[0])),
        cells=nn.LSTM(4, 5, batch_first=True),
        hidden=nn.Linear(5, 8),
        last=nn.Linear(8, 2),
    )


CASES = [
    (convolutions, {"5.weight": without((6, 8, 1, 1), 1, 2, 5)}, (3, 2, 6, 6)),
    (convolutions, {"0.weight": without((8, 2, 3, 3), 0, 1), "8.weight": without((3, 6), 1, 0)},
     (3, 2, 6, 6)),
    (tied, {"4.weight": without((2, 6), 1, 3)}, (3, 4)),
    (recurrent, {"last.weight": without((2, 8), 1, 0, 4)}, (3, 7, 4)),
    (recurrent, {}, (3, 7, 4)),
]  # fmt: skip


def saved(model, small, path: Path) -> Path:
    tensors, facts = packed(model, small)
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, {"infcop": json.dumps(facts)})
    return path


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    first, second = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (one, other))
    return list(first) == list(second) and all(
        a.dtype == second[name].dtype
        and a.requires_grad == second[name].requires_grad
        and torch.equal(a, second[name])
        for name, a in first.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("make", "masks", "shape"), CASES)
def test_a_network_comes_back_bit_for_bit(make, masks, shape, dtype, tmp_path: Path) -> None:
    model, fresh = make().to(dtype).eval(), make().to(dtype).eval()
    inputs = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    small = compact(model, masks, (inputs,))
    path = saved(model, small, tmp_path / "compact.safetensors")
    for parameter in fresh.parameters():
        nn.init.uniform_(parameter)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    loaded = load_compact(fresh, path)
    assert same_bits(loaded, small.model)
    assert torch.equal(loaded(inputs), small.model(inputs))
    assert str(loaded) == str(small.model)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("seed", range(6))
def test_random_masks_come_back_too(seed: int, tmp_path: Path) -> None:
    model = convolutions().eval()
    inputs = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    small = compact(model, random_masks(model, 0.15, seed), (inputs,))
    loaded = load_compact(convolutions(), saved(model, small, tmp_path / "x.safetensors"))
    assert same_bits(loaded, small.model)


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    model = tied()
    small = compact(model, {"4.weight": without((2, 6), 1, 3)}, (torch.randn(3, 4),))
    loaded = load_compact(tied(), saved(model, small, tmp_path / "x.safetensors"))
    assert loaded[1] is loaded[3]
    assert loaded[1].weight is loaded[3].weight


def test_new_biases_are_there_and_not_trained(tmp_path: Path) -> None:
    model = convolutions().eval()
    masks = {"3.weight": without((8, 1, 3, 3), 0, 1)}
    nn.init.constant_(model[3].bias, 0.5)
    small = compact(model, masks, (torch.randn(2, 2, 6, 6),))
    assert small.new_biases
    loaded = load_compact(convolutions(), saved(model, small, tmp_path / "x.safetensors"))
    for name in small.new_biases:
        assert torch.equal(loaded.get_parameter(name), small.model.get_parameter(name))
        assert not loaded.get_parameter(name).requires_grad


def test_the_tensors_of_the_file_are_a_plain_state_dict(tmp_path: Path) -> None:
    model = convolutions().eval()
    small = compact(model, CASES[0][1], (torch.randn(2, 2, 6, 6),))
    assert packed(model, small)[0].keys() == small.model.state_dict().keys()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    model = convolutions().eval()
    small = compact(model, CASES[0][1], (torch.randn(2, 2, 6, 6),))
    return saved(model, small, tmp_path / "x.safetensors")


def test_another_model_is_refused(written: Path) -> None:
    wider = convolutions()
    wider[8] = nn.Linear(6, 4)
    with pytest.raises(ModelError, match=r"expected '8.weight' of shape \(3, 6\), got shape \(4"):
        load_compact(wider, written)
    with pytest.raises(ModelError, match="was made from another model"):
        load_compact(tied(), written)


def test_other_files_are_refused(tmp_path: Path, written: Path) -> None:
    model = convolutions()
    with pytest.raises(ModelError, match="there is no such file"):
        load_compact(model, tmp_path / "none")
    plain = tmp_path / "plain.safetensors"
    save_file(model.state_dict(), plain)
    with pytest.raises(ModelError, match="expected a compact network of this version"):
        load_compact(model, plain)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(written.read_bytes()[:-9])
    with pytest.raises(ModelError, match="can't be read as safetensors"):
        load_compact(model, cut)


def taken_apart(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, framework="pt") as file:
        return {n: file.get_tensor(n) for n in file.keys()}, json.loads(file.metadata()["infcop"])  # noqa: SIM118


def test_a_value_that_changed_is_noticed(written: Path) -> None:
    tensors, facts = taken_apart(written)
    for name in tensors:
        changed = {n: t.clone() for n, t in tensors.items()}
        changed[name].view(-1).view(torch.uint8)[0] ^= 1
        save_file(changed, written, {"infcop": json.dumps(facts)})
        with pytest.raises(ModelError, match=f"damaged: '{name}' has not the check sum"):
            load_compact(convolutions(), written)


def test_shapes_and_types_are_those_that_are_stated(written: Path) -> None:
    tensors, facts = taken_apart(written)
    shorter = tensors["5.weight"][:, :3].clone()
    whole = tensors["5.weight"].to(torch.int8)
    cases = [
        (shorter, {}, "states that shape .6, 6, 1, 1. is left of '5.weight', got shape .6, 3"),
        (whole, {}, "expected '5.weight' of type torch.int8, got torch.float32"),
        (None, [[0], None, None], "does not say what is left of '5.weight'"),
        (None, [None, [0, 1, 3, 4, 6, 8], None, None], "positions that '5.weight' has not"),
        (None, [None, [1, 0, 3, 4, 6, 7], None, None], "positions that '5.weight' has not"),
    ]
    for value, kept, told in cases:
        given = tensors if value is None else {**tensors, "5.weight": value}
        changed = {**facts, "sha256": {n: digest(t) for n, t in given.items()}}
        if kept:
            changed["kept"] = {**facts["kept"], "5.weight": kept}
        save_file(given, written, {"infcop": json.dumps(changed)})
        with pytest.raises(ModelError, match=told):
            load_compact(convolutions(), written)


def digest(tensor: torch.Tensor) -> str:
    text = f"{tensor.dtype} {tuple(tensor.shape)}:".encode()
    return hashlib.sha256(text + tensor.contiguous().numpy().tobytes()).hexdigest()


def test_a_frozen_transformer_is_made_smaller() -> None:
    """Without gradients its layer would run as one operation, which rounds otherwise."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
    masks = {"linear1.weight": without((16, 8), 0, *range(4))}
    layer.linear1.bias.zero_()
    small = compact(layer, masks, (torch.randn(3, 5, 8),))
    assert small.model.linear1.weight.shape == (12, 8)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {"": {"training": 0}}}, "expected a size 'training' in ''"),
        ({"sizes": {"none": {"groups": 2}}}, "expected a size 'groups' in 'none'"),
        ({"sizes": {"0": {"forward": 1}}}, "expected a size 'forward' in '0'"),
        ({"new_biases": ["3.bias"]}, "expected a layer '3' without a bias"),
        ({"new_biases": ["0.weight"]}, "expected a layer '0' without a bias"),
        ({"new_biases": ["0.bias"]}, "is damaged: it has no '0.bias'"),
        ({"version": 2}, "of this version"),
        ({"sizes": {"0": {"groups": "x"}}}, "of this version"),
    ],
)
def test_forged_facts_set_nothing_else(written: Path, change, message: str) -> None:
    model = convolutions().eval()
    small = compact(model, CASES[0][1], (torch.randn(2, 2, 6, 6),))
    tensors, facts = packed(model, small)
    tensors.pop("0.bias", None)
    save_file(tensors, written, {"infcop": json.dumps({**facts, **change})})
    with pytest.raises(ModelError, match=message):
        load_compact(convolutions(), written)


@pytest.mark.parametrize("masks", [None, [1], {"0.weight": [[True]]}])
def test_masks_are_a_mapping_to_tensors(masks) -> None:
    with pytest.raises(PruningError, match="expected masks as a mapping from names of parameters"):
        compact(nn.Sequential(nn.Linear(2, 1)), masks, (torch.ones(3, 2),))
