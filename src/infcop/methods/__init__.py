"""Named methods: each a short composition of the independent axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infcop.core.method import MethodConfig
from infcop.core.names import did_you_mean
from infcop.core.validation import merged, validated
from infcop.errors import ConfigError
from infcop.methods.before_training import grasp, random, snip
from infcop.methods.bimp import bimp
from infcop.methods.dynamic_sparse import rigl, set_
from infcop.methods.early_bird import early_bird
from infcop.methods.fine_tune import fine_tune
from infcop.methods.gmp import gmp
from infcop.methods.infcop import infcop, infcop_rewind
from infcop.methods.infcop_published import infcop_gf, infcop_if
from infcop.methods.lr_rewind import lr_rewind, lr_rewind_one_shot
from infcop.methods.lth import lth
from infcop.methods.lth_rewind import lth_rewind
from infcop.methods.movement import movement
from infcop.methods.one_shot import one_shot
from infcop.methods.reference_code import infcop_gf_reference_code, infcop_if_reference_code
from infcop.methods.sap import sap
from infcop.methods.synflow import synflow

__all__ = ["METHODS", "NamedMethod", "resolve_method"]


@dataclass(frozen=True)
class NamedMethod:
    """A method and what ``infcop methods`` says about it."""

    build: Callable[[], MethodConfig]
    summary: str


METHODS: dict[str, NamedMethod] = {
    "bimp": NamedMethod(
        bimp, "iterative pruning; a pass per level at a rate that falls from what pruning did"
    ),
    "early-bird": NamedMethod(
        early_bird, "the dense training ends once its mask has settled; pruning at once"
    ),
    "fine-tune": NamedMethod(
        fine_tune, "iterative pruning; a pass per level at the last rate of the dense training"
    ),
    "gmp": NamedMethod(
        gmp, "gradual pruning in the course of one training, ever less at each of many levels"
    ),
    "grasp": NamedMethod(grasp, "before training: keep what the gradient flow would miss"),
    "infcop": NamedMethod(
        infcop, "the default: a level trains as long as pruning has disturbed the flow"
    ),
    "infcop-gf": NamedMethod(
        infcop_gf, "adaptive pruning; a level stops when the gradient flow has come back"
    ),
    "infcop-gf-reference-code": NamedMethod(
        infcop_gf_reference_code,
        "as infcop-gf with quirks of the authors' code, to reproduce their runs",
    ),
    "infcop-if": NamedMethod(
        infcop_if, "adaptive pruning; a level stops when the information flow has come back"
    ),
    "infcop-if-reference-code": NamedMethod(
        infcop_if_reference_code,
        "as infcop-if with quirks of the authors' code, to reproduce their runs",
    ),
    "infcop-rewind": NamedMethod(
        infcop_rewind, "as infcop, and the final training goes back to an early pass"
    ),
    "lr-rewind": NamedMethod(
        lr_rewind, "iterative pruning that keeps the weights and runs the whole schedule again"
    ),
    "lr-rewind-one-shot": NamedMethod(
        lr_rewind_one_shot, "pruning all at once, then the whole schedule again"
    ),
    "lth": NamedMethod(
        lth, "iterative magnitude pruning, a fixed fraction per level, the full budget each time"
    ),
    "lth-rewind": NamedMethod(
        lth_rewind, "as lth over all layers together, going back to an early pass of the training"
    ),
    "movement": NamedMethod(
        movement, "gradual pruning of the weights that training moves towards zero"
    ),
    "one-shot": NamedMethod(
        one_shot, "pruning the trained network at once, then one more training"
    ),
    "random": NamedMethod(
        random, "before training: keep weights at random, the floor for every score"
    ),
    "rigl": NamedMethod(
        rigl, "a random mask that moves: weights grow where the gradient is largest"
    ),
    "sap": NamedMethod(sap, "adaptive pruning by the PQ index, the full budget at every level"),
    "set": NamedMethod(set_, "a random mask that moves: weights grow anywhere after every pass"),
    "snip": NamedMethod(
        snip, "before training: keep the connections that the loss depends on most"
    ),
    "synflow": NamedMethod(
        synflow, "before training and without data: keep the flow from input to output"
    ),
}


def resolve_method(method: str | Mapping[str, object] | MethodConfig) -> MethodConfig:
    """Return the axes of a named method, changed as asked for.

    Args:
        method: A name; a mapping with a ``name`` and the axes to change; or the axes themselves.

    Raises:
        ConfigError: The name or an axis is unknown.

    Example:
        >>> resolve_method({"name": "lth", "scope": "global"}).scope
        'global'
    """
    if isinstance(method, MethodConfig):
        return method
    if not isinstance(method, str | Mapping):
        raise ConfigError(
            f"method: expected a name, or a mapping with a name and the axes to change, got "
            f"{method!r}; {did_you_mean(method, METHODS)}"
        )
    changes = {"name": method} if isinstance(method, str) else dict(method)
    name = changes.get("name")
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method: got {name!r}; {did_you_mean(name, METHODS)}")
    base = METHODS[name].build().model_dump()
    return validated(MethodConfig, merged(base, changes), at="method")
