from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from infcop.errors import ConfigError, ModelError
from infcop.models.build import build_model
from infcop.models.zoo import ZOO

USER_MODULE = """
from torch import nn
import networks_helper

def tiny(num_classes, hidden=3):
    return nn.Sequential(nn.Linear(4, hidden), nn.Linear(hidden, num_classes))

def anything(**arguments):
    model = nn.Linear(1, 1)
    model.arguments = arguments
    return model

def nothing_of_the_data():
    return nn.Linear(2, 2)

def needs(depth):
    return nn.Linear(depth, depth)

def broken():
    raise RuntimeError("no weights today")

def a_number():
    return 3

class Net(nn.Module):
    def __init__(self, in_channels, image_size):
        super().__init__()
        self.fc = nn.Linear(in_channels * image_size, 1)

constant = 5
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "user_networks.py").write_text(USER_MODULE)
    (tmp_path / "networks_helper.py").write_text("")
    (tmp_path / "user_broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    yield "user_networks"
    for name in ("user_networks", "networks_helper", "user_broken"):
        sys.modules.pop(name, None)


def build(name, **options):
    return build_model(name, in_channels=2, image_size=16, num_classes=5, options=options)


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"vgg-16"}))
def test_zoo_models_by_name(name):
    assert build(name)(torch.zeros(1, 2, 16, 16)).shape == (1, 5)


def test_options_reach_the_factory():
    assert build("resnet-20", width=0.5).fc.in_features == 32


def test_a_factory_in_the_current_directory(user_module):
    path = list(sys.path)
    model = build(f"{user_module}:tiny", hidden=7)
    assert model[0].out_features == 7
    assert model[1].out_features == 5
    assert sys.path == path


def test_facts_are_passed_as_far_as_the_signature_takes_them(user_module):
    assert build(f"{user_module}:Net").fc.in_features == 32
    assert isinstance(build(f"{user_module}:nothing_of_the_data"), nn.Linear)
    assert build(f"{user_module}:anything", flag=True).arguments == {
        "in_channels": 2,
        "image_size": 16,
        "num_classes": 5,
        "flag": True,
    }


@pytest.mark.parametrize("source", ["timm", "timm.models"])
def test_a_model_of_timm(source):
    model = build(f"{source}:resnet10t", stem_width=8)
    assert model(torch.zeros(2, 2, 16, 16)).shape == (2, 5)
    assert model.conv1[-1].out_channels == 16


def test_a_module_that_imports_timm(user_module, tmp_path):
    """Also where the installed torchvision does not fit: what it lacks is declared before."""
    text = "from timm import create_model\n\ndef small():\n    return create_model('resnet18')\n"
    (tmp_path / "user_broken.py").write_text(text)
    assert isinstance(build("user_broken:small"), nn.Module)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("lenet-300", {}, ConfigError, "did you mean 'lenet-300-100'"),
        ("lenet-5", {"widht": 2}, ConfigError, "no option 'widht'; did you mean 'width'"),
        ("lenet-5", {"num_classes": 2}, ConfigError, "'num_classes'.*decided by the data"),
        ("lenet-300-100", {"width": 2}, ConfigError, "no option 'width'; nothing is known here"),
        ("no_such_package.models:net", {}, ConfigError, "'no_such_package.models'.*ModuleNotFound"),
        ("user_broken:net", {}, ConfigError, "can't import 'user_broken'.*ZeroDivisionError"),
        ("..relative:net", {}, ConfigError, "can't import '..relative'"),
        ("user_networks:", {}, ConfigError, "expected package.module:factory or timm:name"),
        (":tiny", {}, ConfigError, "expected package.module:factory or timm:name"),
        ("user_networks:tinny", {}, ConfigError, "'tinny'.*did you mean 'tiny'"),
        ("user_networks:constant", {}, ConfigError, "nothing callable named 'constant'"),
        ("user_networks:tiny", {"hiden": 1}, ConfigError, "did you mean 'hidden'"),
        ("user_networks:needs", {}, ConfigError, "missing a required argument: 'depth'"),
        ("user_networks:broken", {}, ModelError, "RuntimeError: no weights today"),
        ("user_networks:a_number", {}, ModelError, "return a torch.nn.Module, got int"),
        ("lenet-5", {"width": -1}, ConfigError, "expected option width"),
        ("timm:resnet5", {}, ConfigError, "no model 'resnet5'; nearest are resnet50"),
        ("timm:", {}, ConfigError, "expected package.module:factory or timm:name, got 'timm:'"),
        ("timm:resnet18", {"num_classes": 2}, ConfigError, "'num_classes'.*decided by the data"),
        ("timm:resnet18", {"widht": 2}, ModelError, "'timm:resnet18' failed.*argument 'widht'"),
    ],
)
def test_errors_name_the_remedy(user_module, name, options, error, message):
    with pytest.raises(error, match=message):
        build(name, **options)


def test_the_path_is_restored_after_an_error(user_module):
    path = list(sys.path)
    with pytest.raises(ModelError) as caught:
        build(f"{user_module}:broken")
    assert sys.path == path
    assert isinstance(caught.value.__cause__, RuntimeError)
