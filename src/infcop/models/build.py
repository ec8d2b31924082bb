"""Building a model from its name: one of the zoo, one of timm, or any importable factory."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from infcop.core.names import did_you_mean
from infcop.errors import ConfigError, InfcopError, ModelError
from infcop.models.vision import declare_missing_operators, timm_factory
from infcop.models.zoo import ZOO

__all__ = ["build_model", "call_factory"]


def build_model(
    name: str,
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    options: Mapping[str, Any],
) -> nn.Module:
    """Build a model of the zoo or of timm, or call a factory of the user's.

    A factory of the user's is told the three facts about the data as far as its signature takes
    them. Initial weights come from the global generators, so seed them first.

    Args:
        name: A key of ``infcop.models.zoo.ZOO``; ``timm:name``, for instance ``timm:resnet50``;
            or ``package.module:factory``, imported with the current directory on the path.
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        num_classes: Number of classes.
        options: Further keyword arguments of the factory.

    Raises:
        ConfigError: The name or an option is unknown, or the module can't be imported.
        ModelError: The factory failed or did not return an ``nn.Module``.

    Example:
        >>> model = build_model(
        ...     "lenet-5", in_channels=1, image_size=28, num_classes=10, options={"width": 2}
        ... )
        >>> model.conv1.out_channels
        12
    """
    facts = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    with _current_directory_importable():
        factory = _factory(name)
        arguments = _arguments(name, factory, facts, options)
        model = _called(name, factory, arguments)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"build_model: expected '{name}' to return a torch.nn.Module, got "
            f"{type(model).__name__}; name a class of modules or a function that returns one"
        )
    return model


def call_factory(name: str) -> Any:
    """Call a factory of the user's without arguments, and return whatever it gives.

    Args:
        name: ``package.module:factory``, imported with the current directory on the path.

    Raises:
        ConfigError: The name is not of this form, the module can't be imported, or the factory
            needs arguments.
        ModelError: The factory failed.

    Example:
        >>> call_factory("collections:Counter")
        Counter()
    """
    with _current_directory_importable():
        factory = _imported_factory(name)
        return _called(name, factory, _arguments(name, factory, {}, {}))


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    # As `python -m` does; an installed command starts without it.
    directory = os.getcwd()
    if directory in sys.path:
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)


def _factory(name: str) -> Callable[..., Any]:
    source, colon, model = name.partition(":")
    # The models are also found in timm.models, but there they don't take the facts by our names.
    if source in ("timm", "timm.models") and model:
        return timm_factory(model)
    return _imported_factory(name) if colon else _zoo_factory(name)


def _zoo_factory(name: str) -> Callable[..., Any]:
    if name not in ZOO:
        raise ConfigError(
            f"build_model: no model '{name}' in the zoo; {did_you_mean(name, ZOO)}; "
            "a factory of your own is written package.module:factory, a model of timm timm:name"
        )
    return ZOO[name].factory


def _imported_factory(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(
            f"build_model: expected package.module:factory or timm:name, got '{name}'"
        )
    declare_missing_operators()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module may raise anything while it is imported
        raise ConfigError(
            f"build_model: can't import '{module_name}' of '{name}': "
            f"{type(error).__name__}: {error}; it was looked for in the current directory "
            "and among the installed packages"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        callables = (key for key, value in vars(module).items() if callable(value))
        public = [key for key in callables if not key.startswith("_")]
        raise ConfigError(
            f"build_model: nothing callable named '{attribute}' in '{module_name}'; "
            f"{did_you_mean(attribute, public)}"
        )
    return factory  # type: ignore[no-any-return]


def _arguments(
    name: str,
    factory: Callable[..., Any],
    facts: Mapping[str, int],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    signature = _signature(name, factory)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = [key for key, parameter in signature.parameters.items() if parameter.kind in named]
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    for option in options:
        if option in facts:
            raise ConfigError(
                f"build_model: the option '{option}' of '{name}' is decided by the data; remove it"
            )
        if option not in accepted and not takes_any:
            known = [key for key in accepted if key not in facts]
            raise ConfigError(
                f"build_model: '{name}' has no option '{option}'; {did_you_mean(option, known)}"
            )
    passed = {key: value for key, value in facts.items() if takes_any or key in accepted}
    arguments = {**passed, **options}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"build_model: '{name}' can't be called with {sorted(arguments)}: {error}; "
            "give what is missing in the model's options"
        ) from error
    return arguments


def _signature(name: str, factory: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"build_model: the arguments of '{name}' are unknown ({error}); "
            "wrap it in a function of your own"
        ) from error


def _called(name: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except InfcopError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise ModelError(
            f"build_model: '{name}' failed when called with {dict(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error
