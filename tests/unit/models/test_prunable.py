from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from infcop.errors import ModelError
from infcop.models.prunable import find_prunable, get_parameters, prunable_layers
from infcop.models.zoo import ZOO


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.second = nn.Conv1d(4, 4, 3)
        self.first = nn.Linear(4, 4)
        self.deconvolution = nn.ConvTranspose2d(2, 3, 2)
        self.cube = nn.Conv3d(2, 3, 2, bias=False)
        self.norm = nn.GroupNorm(2, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.lstm = nn.LSTM(4, 4)
        self.bilinear = nn.Bilinear(2, 2, 2)
        self.scale = nn.Parameter(torch.ones(4))


def test_kinds_in_definition_order():
    found = find_prunable(Everything())
    assert found.shapes == {
        "second.weight": (4, 4, 3),
        "first.weight": (4, 4),
        "deconvolution.weight": (2, 3, 2, 2),
        "cube.weight": (3, 2, 2, 2, 2),
        "attention.out_proj.weight": (4, 4),
    }
    assert found.names == tuple(found.shapes)


def test_every_other_parameter_has_its_reason():
    model = Everything()
    found = find_prunable(model)
    assert set(found.names) | set(found.excluded) == {n for n, _ in model.named_parameters()}
    unknown = "not the weight of a linear layer or a convolution"
    expected = {
        "embedding.weight": "embedding",
        "second.bias": "bias",
        "norm.weight": "normalisation",
        "norm.bias": "normalisation",
        "attention.in_proj_weight": "packed projection of an attention layer, not a module of "
        "its own",
        "attention.in_proj_bias": "bias",
        "lstm.weight_ih_l0": "recurrent layer",
        "lstm.bias_ih_l0": "recurrent layer",
        "bilinear.weight": f"{unknown} (Bilinear)",
        "scale": f"{unknown} (Everything)",
    }
    assert {name: found.excluded[name] for name in expected} == expected


def test_a_bare_layer_and_a_subclass():
    class Cosine(nn.Linear):
        pass

    assert find_prunable(Cosine(2, 3)).shapes == {"weight": (3, 2)}


def test_frozen_empty_and_non_floating_weights_are_excluded():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    model[1].weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    model[2].weight = nn.Parameter(torch.ones(0, 2))
    found = find_prunable(model)
    assert found.names == ("3.weight",)
    assert found.excluded["0.weight"] == "frozen: requires_grad is False"
    assert found.excluded["1.weight"] == "not floating point (torch.int8)"
    assert found.excluded["2.weight"] == "empty"


def test_parametrized_weights_are_excluded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = nn.utils.weight_norm(nn.Linear(2, 2))
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)), old, nn.Linear(2, 2))
    found = find_prunable(model)
    assert found.names == ("2.weight",)
    reasons = {name: reason for name, reason in found.excluded.items() if "bias" not in name}
    assert set(reasons) == {
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "1.weight_g",
        "1.weight_v",
    }
    assert set(reasons.values()) == {"parametrized: the weight is computed from it"}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.encoder = nn.Linear(3, 3)
        self.decoder = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.encoder.weight
        self.head.weight = self.embedding.weight
        self.alias = self.head


def test_tied_weights_are_pruned_once():
    found = find_prunable(Tied())
    assert found.names == ("encoder.weight", "head.weight")
    tied = {name: text for name, text in found.excluded.items() if text.startswith("tied")}
    assert tied == {
        "embedding.weight": "tied: the same tensor as 'head.weight', which is pruned",
        "decoder.weight": "tied: the same tensor as 'encoder.weight', which is pruned",
        "alias.weight": "tied: the same tensor as 'head.weight', which is pruned",
    }


def test_tied_through_memory_only():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    found = find_prunable(model)
    assert found.names == ("0.weight",)
    assert found.excluded["1.weight"].startswith("tied")


def test_layers_of_tied_weights():
    model = Tied()
    layers = prunable_layers(model, find_prunable(model))
    assert layers == {"encoder": model.encoder, "decoder": model.decoder, "head": model.head}


def test_get_parameters_knows_second_names():
    model = Tied()
    names = find_prunable(model).names
    assert get_parameters(model, names) == {
        "encoder.weight": model.encoder.weight,
        "head.weight": model.embedding.weight,
    }
    with pytest.raises(ModelError, match=r"no parameter 'haed.weight'; did you mean 'head.weight'"):
        get_parameters(model, ["haed.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ModelError, match=rf"got {name} in '0.weight'.*model.float\(\)"):
        find_prunable(nn.Sequential(nn.Linear(2, 2)).to(dtype))


def test_double_precision_and_a_frozen_half_part_are_fine():
    model = nn.Sequential(nn.Embedding(3, 2).half(), nn.Linear(2, 2).double())
    model[0].weight.requires_grad_(False)
    assert find_prunable(model).names == ("1.weight",)


def test_lazy_models_are_refused_until_they_are_initialised():
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(ModelError, match=r"'0\.weight' is not initialised yet; run one batch"):
        find_prunable(model)
    model(torch.zeros(1, 3))
    assert find_prunable(model).shapes == {"0.weight": (2, 3)}


def test_torch_pruned_models_are_refused_until_pruning_is_permanent():
    model = nn.Sequential(nn.Linear(2, 2))
    prune.random_unstructured(model[0], "weight", amount=0.5)
    with pytest.raises(ModelError, match=r"prune.remove\(module, 'weight'\)"):
        find_prunable(model)
    prune.remove(model[0], "weight")
    assert find_prunable(model).names == ("0.weight",)


def test_nothing_prunable_says_what_was_found():
    model = nn.Sequential(nn.Embedding(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))
    model[1].weight.requires_grad_(False)
    with pytest.raises(ModelError) as caught:
        find_prunable(model)
    for part in ("1 x embedding (0.weight)", "1 x frozen", "1 x bias", "2 x normalisation"):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="no parameter at all"):
        find_prunable(nn.ReLU())
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module, got dict"):
        find_prunable({})


def test_finding_changes_nothing():
    model = ZOO["lenet-300-100"].factory(in_channels=1, image_size=8, num_classes=3)
    before = [(name, p, p._version, p.requires_grad) for name, p in model.named_parameters()]
    assert find_prunable(model) == find_prunable(model)
    after = [(name, p, p._version, p.requires_grad) for name, p in model.named_parameters()]
    assert all(a[1] is b[1] and a[2:] == b[2:] for a, b in zip(before, after, strict=True))
