"""Models of timm, also beside a torchvision whose operators are not there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.library import Library

from infcop.errors import ConfigError

__all__ = ["declare_missing_operators", "timm_factory"]


def declare_missing_operators() -> None:
    """Make torchvision importable where its compiled operators don't fit the installed torch.

    The torchvision that is published for Linux is built for CUDA. Beside a torch for the CPU its
    library can't be loaded, ``import torchvision`` fails for want of the operator ``nms``, and so
    do timm and the models of transformers. Call this before the first import of any of them: it
    declares what the operators look like, which is all that the imports need. Calling one still
    fails, with torchvision's own message. Where torchvision works, or is absent, nothing happens.

    Example:
        >>> declare_missing_operators()
        >>> from torchvision.transforms import functional
    """
    if "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return
    if sys.platform != "win32" and not _library_loads():
        _declared()


def timm_factory(name: str) -> Callable[..., nn.Module]:
    """Return a factory of a timm model that takes the facts about the data.

    Image size is passed on to the models that are built for a fixed one. Weights are random
    unless ``pretrained=True`` is among the options.

    Args:
        name: A name of ``timm.list_models()``, with or without a tag.

    Raises:
        ConfigError: timm is missing or can't be imported, or has no such model.

    Example:
        >>> factory = timm_factory("resnet18")
        >>> factory(in_channels=1, image_size=28, num_classes=10).fc.out_features
        10
    """
    timm = _imported_timm()
    if not timm.is_model(name):
        known = timm.list_models()
        near = get_close_matches(name, known, n=4, cutoff=0.3)
        nearest = f"nearest are {', '.join(near)}" if near else "no name is near"
        raise ConfigError(
            f"timm_factory: timm has no model '{name}'; {nearest}; timm.list_models() gives all "
            f"{len(known)}"
        )

    def factory(*, in_channels: int, image_size: int, num_classes: int, **options: Any) -> Any:
        if "in_chans" in options:
            raise ConfigError(
                f"timm_factory: the option 'in_chans' of '{name}' is decided by the data; remove it"
            )
        described = timm.get_pretrained_cfg(name)
        if described is not None and described.fixed_input_size:
            options.setdefault("img_size", image_size)
        return timm.create_model(name, in_chans=in_channels, num_classes=num_classes, **options)

    return factory


def _imported_timm() -> Any:
    declare_missing_operators()
    try:
        import timm
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise ConfigError(
                "timm_factory: timm is not installed; pip install 'infcop[vision]'"
            ) from error
        raise ConfigError(
            f"timm_factory: can't import timm: {type(error).__name__}: {error}; install a "
            f"torchvision that was built for torch {torch.__version__}"
        ) from error
    return timm


def _library_loads() -> bool:
    """Whether torchvision is absent, or its operators are now loaded."""
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    folder = Path(spec.submodule_search_locations[0])
    for library in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        if library.is_file():
            try:
                torch.ops.load_library(library)  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return True
    return False


@cache
def _declared() -> Library:
    # The declarations live as long as this object, which the cache holds.
    library = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    return library
