from __future__ import annotations

import inspect

import pytest
import torch

from infcop.errors import ConfigError, ModelError
from infcop.models.graph import trace_graph
from infcop.models.prunable import find_prunable
from infcop.models.zoo import ZOO
from infcop.models.zoo.parts import kaiming_normal

GRAY = {"in_channels": 1, "image_size": 28, "num_classes": 10}
COLOUR = {"in_channels": 3, "image_size": 32, "num_classes": 10}


def counts(model):
    weights = sum(p.numel() for name, p in model.named_parameters() if "weight" in name)
    return weights, sum(p.numel() for p in model.parameters())


def test_lenet_300_100_has_the_published_size():
    weights, total = counts(ZOO["lenet-300-100"].factory(**GRAY))
    assert (weights, total - weights) == (266_200, 410)


def test_lenet_5_on_32x32_has_the_published_shapes():
    model = ZOO["lenet-5"].factory(in_channels=1, image_size=32, num_classes=10)
    assert find_prunable(model).shapes == {
        "conv1.weight": (6, 1, 5, 5),
        "conv2.weight": (16, 6, 5, 5),
        "fc1.weight": (120, 400),
        "fc2.weight": (84, 120),
        "fc3.weight": (10, 84),
    }


@pytest.mark.parametrize(
    ("name", "parameters", "prunable"),
    [
        # Published (option A): 0.27 M and 0.85 M; the two projections add 2,752 parameters.
        ("resnet-20", 269_722 + 2_752, 20 + 2),
        ("resnet-56", 853_018 + 2_752, 56 + 2),
        ("resnet-18", 11_173_962, 18 + 3),
        # 14,710,464 in the convolutions of configuration D, 530,442 in the classifier and 8,448
        # in the normalisations.
        ("vgg-16", 14_710_464 + 530_442 + 8_448, 16),
    ],
)
def test_published_sizes(name, parameters, prunable):
    model = ZOO[name].factory(**COLOUR)
    assert counts(model)[1] == parameters
    assert len(find_prunable(model).names) == prunable


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("facts", [GRAY, {**COLOUR, "image_size": 40, "num_classes": 7}])
def test_forward_shapes(name, facts):
    options = {"width": 0.1} if "width" in inspect.signature(ZOO[name].factory).parameters else {}
    if name == "vgg-16":
        facts = {**facts, "image_size": facts["image_size"] + 32}
    model = ZOO[name].factory(**facts, **options)
    images = torch.randn(2, facts["in_channels"], facts["image_size"], facts["image_size"])
    assert model(images).shape == (2, facts["num_classes"])


@pytest.mark.parametrize("name", ["lenet-300-100", "resnet-20", "resnet-18"])
def test_small_images(name):
    model = ZOO[name].factory(in_channels=1, image_size=8, num_classes=10)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("name", "least"), [("lenet-5", 16), ("vgg-16", 32)])
def test_too_small_images_are_refused_and_the_least_ones_work(name, least):
    factory = ZOO[name].factory
    with pytest.raises(ModelError, match=rf"{name}: expected image_size >= {least}.*{least - 1}"):
        factory(in_channels=1, image_size=least - 1, num_classes=10)
    model = factory(in_channels=1, image_size=least, num_classes=10, width=0.1)
    assert model(torch.zeros(2, 1, least, least)).shape == (2, 10)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("fact", GRAY)
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "10"])
def test_nonsense_facts_are_refused(name, fact, value):
    with pytest.raises(ModelError, match=rf"{name}: expected {fact} to be an integer >= 1"):
        ZOO[name].factory(**{**COLOUR, fact: value})


@pytest.mark.parametrize("name", ["lenet-5", "vgg-16", "resnet-20", "resnet-56", "resnet-18"])
@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf"), "wide", True])
def test_nonsense_widths_are_refused(name, width):
    with pytest.raises(ConfigError, match="expected option width to be a positive number"):
        ZOO[name].factory(**COLOUR, width=width)


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet-20"])
def test_weights_come_from_the_global_generator(name):
    def build(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in ZOO[name].factory(**COLOUR).parameters()])

    assert torch.equal(build(0), build(0))
    assert not torch.equal(build(0), build(1))


def test_kaiming_variance_is_two_over_fan_in():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 64, 3), torch.nn.Linear(200, 100))
    kaiming_normal(model)
    for layer, fan_in in zip(model, (32 * 9, 200), strict=True):
        assert layer.weight.var().item() == pytest.approx(2 / fan_in, rel=0.05)
        assert not layer.bias.any()


def test_projection_shortcuts_only_where_the_shape_changes():
    model = ZOO["resnet-18"].factory(**COLOUR, width=0.1)
    projections = [name for name in find_prunable(model).names if "shortcut" in name]
    assert projections == [f"stages.{stage}.0.shortcut.0.weight" for stage in (1, 2, 3)]


@pytest.mark.parametrize("name", ["resnet-20", "resnet-56", "resnet-18"])
def test_a_stem_with_a_stride_quarters_the_maps_and_changes_no_weight(name):
    torch.manual_seed(0)
    plain, halved = (
        ZOO[name].factory(**COLOUR, width=0.1, stem_stride=stride).eval() for stride in (1, 2)
    )
    images = torch.randn(2, 3, 32, 32)
    assert plain.conv1(images).shape[2:] == (32, 32)
    assert halved.conv1(images).shape[2:] == (16, 16)
    halved.load_state_dict(plain.state_dict())
    # Every other place of the same maps.
    assert torch.allclose(halved.conv1(images), plain.conv1(images)[:, :, ::2, ::2], atol=1e-6)
    assert halved(images).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet-20", "resnet-56", "resnet-18"])
@pytest.mark.parametrize("stride", [0, -1, 1.0, True, "2"])
def test_nonsense_strides_are_refused(name, stride):
    with pytest.raises(ModelError, match=rf"{name}: expected stem_stride to be an integer >= 1"):
        ZOO[name].factory(**COLOUR, stem_stride=stride)


def test_padding_is_zeros_around_the_images():
    torch.manual_seed(0)
    small = ZOO["vgg-16"].factory(**GRAY, width=0.1, padding=2).eval()
    large = ZOO["vgg-16"].factory(**{**GRAY, "image_size": 32}, width=0.1).eval()
    large.load_state_dict(small.state_dict())
    images = torch.randn(2, 1, 28, 28)
    around = torch.zeros(2, 1, 32, 32)
    around[:, :, 2:30, 2:30] = images
    assert torch.equal(small(images), large(around))


def test_padding_hides_no_layer_from_the_graph():
    model = ZOO["vgg-16"].factory(**GRAY, width=0.1, padding=2)
    inputs = (torch.randn(2, 1, 28, 28),)
    edges = trace_graph(model, inputs, find_prunable(model), examples=2).edges
    assert len(edges) == 15


@pytest.mark.parametrize("padding", [-1, 1.0, True, "2"])
def test_nonsense_padding_is_refused(padding):
    with pytest.raises(ModelError, match="vgg-16: expected padding to be an integer >= 0"):
        ZOO["vgg-16"].factory(**COLOUR, padding=padding)


def test_too_little_padding_is_told_what_is_enough():
    with pytest.raises(ModelError, match=r"got 27 and padding 2; .* a padding of 3$"):
        ZOO["vgg-16"].factory(**{**GRAY, "image_size": 27}, padding=2)
    assert ZOO["vgg-16"].factory(**{**GRAY, "image_size": 27}, width=0.1, padding=3)
