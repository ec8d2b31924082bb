from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import infcop
from infcop.errors import ConfigError
from infcop.models.vision import declare_missing_operators, timm_factory

# What the package does while it is imported, as far as it matters here.
TORCHVISION = """
import torch

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty(0)
"""


def run(code, *, path):
    """Run code in a fresh interpreter; packages on the path hide installed ones."""
    found = os.pathsep.join([str(path), str(Path(infcop.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": found},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def torchvision(folder, source=TORCHVISION, library=b"built for another torch"):
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    (package / "_C.so").write_bytes(library)
    return folder


def test_a_torchvision_without_operators_can_be_imported(tmp_path):
    code = """
import gc, torch
from infcop.models.vision import declare_missing_operators
try:
    import torchvision
except RuntimeError as error:
    print(error)
declare_missing_operators()
declare_missing_operators()
gc.collect()
import torchvision
print(torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default)
"""
    assert run(code, path=torchvision(tmp_path)) == [
        "operator torchvision::nms does not exist",
        "torchvision.nms.default torchvision.qnms.default",
    ]


def test_nothing_is_declared_where_torchvision_works_or_is_absent(tmp_path):
    # Any library that can be loaded stands for one with operators.
    works = torchvision(tmp_path, "", Path(torch._C.__file__).read_bytes())
    code = """
import sys, torch
from infcop.models.vision import declare_missing_operators
declare_missing_operators()
print(hasattr(torch.ops.torchvision, "nms"))
sys.modules["torchvision"] = None
declare_missing_operators()
print(hasattr(torch.ops.torchvision, "nms"))
"""
    assert run(code, path=works) == ["False", "False"]


def test_the_installed_packages_can_be_imported(tmp_path):
    code = """
from infcop.models.vision import declare_missing_operators
declare_missing_operators()
import timm, torchvision
from transformers import BertModel
print(timm.is_model("resnet50"))
"""
    assert run(code, path=tmp_path) == ["True"]


def test_an_import_that_fails_otherwise_is_a_clear_error(tmp_path):
    broken = torchvision(
        tmp_path, "raise RuntimeError('operator torchvision::roi_align is missing')"
    )
    code = """
from infcop.errors import ConfigError
from infcop.models.vision import timm_factory
try:
    timm_factory("resnet18")
except ConfigError as error:
    print(error)
"""
    (message,) = run(code, path=broken)
    assert "can't import timm: RuntimeError: operator torchvision::roi_align is missing" in message
    assert f"install a torchvision that was built for torch {torch.__version__}" in message


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'infcop\[vision\]'"):
        timm_factory("resnet18")


def build(name, image_size=32, **options):
    return timm_factory(name)(in_channels=2, image_size=image_size, num_classes=5, **options)


def test_the_facts_reach_a_model_under_its_own_names():
    model = build("resnet18.a1_in1k")
    assert model.conv1.in_channels == 2
    assert model(torch.zeros(2, 2, 32, 32)).shape == (2, 5)


def test_the_image_size_reaches_a_model_that_is_built_for_one():
    model = build("vit_tiny_patch16_224", depth=1)
    assert model(torch.zeros(2, 2, 32, 32)).shape == (2, 5)
    # The user may know better.
    assert build("vit_tiny_patch16_224", depth=1, img_size=48).patch_embed.img_size == (48, 48)


def test_weights_are_fetched_only_if_asked_for(monkeypatch):
    declare_missing_operators()
    import timm

    seen = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: seen.append(options))
    build("resnet18")
    build("resnet18", pretrained=True)
    facts = {"in_chans": 2, "num_classes": 5}
    assert seen == [facts, {**facts, "pretrained": True}]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5", {}, r"no model 'resnet5'; nearest are resnet50, .*timm.list_models\(\) gives"),
        ("hf-hub:someone/resnet", {}, "no model 'hf-hub:someone/resnet'"),
        ("?", {}, "no model '\\?'; no name is near"),
        ("resnet18", {"in_chans": 3}, "'in_chans' of 'resnet18' is decided by the data; remove it"),
    ],
)
def test_errors_name_the_remedy(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **options)
