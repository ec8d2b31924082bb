"""Running the graph of a model once, on numbers and on units at the same time."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from infcop.collapse.aten import (
    arguments_by_name,
    change_values,
    invoke,
    name_of,
    place_of,
    tensors_in,
    values_in,
    wide,
)
from infcop.collapse.call import Call, each
from infcop.collapse.exported import Trace
from infcop.collapse.facts import Facts, Layer
from infcop.collapse.folding import Fold
from infcop.collapse.positions import evened
from infcop.collapse.rules import SIZED, rule_for
from infcop.collapse.rules_pointwise import FRESH
from infcop.collapse.values import Value, plain
from infcop.core.mask import Masks
from infcop.errors import CollapseError

__all__ = ["Findings", "Sizes", "run"]


@dataclass(frozen=True, eq=False)
class Sizes:
    """A call for which the model may state sizes.

    Attributes:
        place: The module that makes it.
        values: The shapes that go in and come out, with their units.
    """

    place: str
    values: tuple[tuple[torch.Size, tuple[Layer, ...]], ...]


@dataclass(frozen=True, eq=False)
class Findings:
    """What a run has found out.

    Attributes:
        facts: Facts about units.
        folds: Layers whose bias can take over constants.
        units: The units along each dimension of each parameter and buffer that is used.
        sizes: Calls with sizes.
    """

    facts: Facts = field(default_factory=Facts)
    folds: list[Fold] = field(default_factory=list)
    units: dict[str, tuple[Layer, ...]] = field(default_factory=dict)
    sizes: list[Sizes] = field(default_factory=list)


def run(trace: Trace, masks: Masks, *, trains: bool = False) -> Findings:
    """Run a graph on its example inputs, in float64.

    Args:
        trace: The graph, with masked weights.
        masks: What survives, under the first name of each tensor.
        trains: Whether what depends on trainable parameters or on statistics counts as varying:
            then a constant is what no training changes.

    Raises:
        CollapseError: An operation fails.
    """
    runner = _Runner(trace, masks, Findings(), trains)
    with torch.no_grad():
        for value in values_in(runner.go(trace.graph, None)):
            for layer in value.layers:
                runner.facts.pin(layer.ids, "reaches the output of the model")
    return runner.findings


_IN_CONTEXT = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "tag_activation_checkpoint")
"""These run a part of the model once, without gradients or the like."""


class _Runner:
    def __init__(self, trace: Trace, masks: Masks, findings: Findings, trains: bool) -> None:
        self.trace = trace
        self.trains = trains
        self.masks = masks
        self.findings = findings
        self.facts = findings.facts
        self.values: dict[fx.Node, Any] = {}
        self.parameters: dict[str, Value] = {}

    def go(self, graph: fx.GraphModule, operands: Iterator[Any] | None) -> Any:
        """Run a graph, or one inside of it, and return what it gives."""
        nodes = list(graph.graph.nodes)
        last = {used: node for node in nodes for used in node.all_input_nodes}
        given = None
        for node in nodes:
            if node.op == "placeholder":
                self.values[node] = self._given(node) if operands is None else next(operands)
            elif node.op == "get_attr":
                found = operator.attrgetter(str(node.target))(graph)
                self.values[node] = each(found, lambda tensor: plain(wide(tensor), varies=False))
            elif node.op == "call_function":
                self.values[node] = self._called(node)
            else:
                given = self._filled(node.args[0])
            for used in node.all_input_nodes:
                if last[used] is node:
                    del self.values[used]
        return given

    def _filled(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, self.values.__getitem__)

    def _given(self, node: fx.Node) -> Any:
        given = self.trace.given[node.name]
        name = self.trace.names.get(node.name)
        if not isinstance(given, Tensor):
            return given
        if name is None:
            fed = node.name in self.trace.inputs
            return replace(plain(wide(given).clone(), varies=fed), fed=fed)
        if name not in self.parameters:
            self.parameters[name] = self._parameter(name, given)
        if node.users:
            self.findings.units[name] = self.parameters[name].layers
        return self.parameters[name]

    def _parameter(self, name: str, tensor: Tensor) -> Value:
        layers = [Layer((dim,), self.facts.fresh((n,))) for dim, n in enumerate(tensor.shape)]
        for layer in layers:
            self.facts.couple([layer])  # at least one is left
        # What forward passes write to are buffers.
        fixed = isinstance(tensor, nn.Parameter)
        own = tensor.detach() if fixed else tensor.clone()
        surviving = self.masks.get(name, torch.ones((), dtype=torch.bool).expand(tensor.shape))
        moves = tensor.requires_grad or (tensor.is_floating_point() and not fixed)
        varies = surviving & torch.tensor(self.trains and moves)
        return Value(own, varies, tuple(layers), name, surviving, learned=tensor.requires_grad)

    def _called(self, node: fx.Node) -> Any:
        args, kwargs = self._filled((node.args, node.kwargs))
        if node.target is operator.getitem:
            return args[0][args[1]]
        name = name_of(node.target)
        inner = next((one for one in args if isinstance(one, fx.GraphModule)), None)
        if inner is not None:
            if name not in _IN_CONTEXT:
                raise CollapseError(
                    "compact: expected operations that do the same for all inputs, but "
                    f"{_in_module(name, node)} runs a part of the model by choice or several "
                    "times, which a trace can't follow; write it with torch.where or as a loop of "
                    "Python, or collapse a part of the model without it"
                )
            return self.go(inner, iter(args[args.index(inner) + 1 :]))
        if getattr(node.target, "__module__", "") == "torch._functorch.predispatch":
            raise CollapseError(
                f"compact: expected operations on whole batches, but {_in_module(name, node)} is "
                "of torch.vmap or another function of torch.func, and what is inside it can't be "
                "followed; write it for a batch, or collapse a part of the model without it"
            )
        if name.startswith(("_assert", "sym_constrain")):
            return None
        named = arguments_by_name(node.target, args, kwargs)
        writes = bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))
        before = change_values(named, _copied) if writes else named
        try:
            result = wide(invoke(node.target, tensors_in(named)))
        except Exception as error:
            raise CollapseError(
                "compact: expected operations that can be computed in float64, but "
                f"{_in_module(name, node)} fails: {error}; collapse a part of the model without it"
            ) from error
        call = self._call(node, name.removesuffix("_") if writes else name, before, result)
        try:
            given = rule_for(call.operation, node.target)(call)
        except CollapseError:
            raise
        except Exception as error:
            raise CollapseError(
                "compact: expected operations whose units can be followed, but "
                f"{_in_module(name, node)} can't be: {error}; collapse a part of the model without "
                "it"
            ) from error
        fed = any(value.fed for value in call.values)
        learned = call.operation not in FRESH and any(value.learned for value in call.values)
        given = change_values(
            given,
            lambda value: evened(self.facts, replace(value, fed=fed, learned=learned)),
        )
        if writes:
            self._written(args[0], given)
        if call.operation in SIZED:
            self._sized(call, given)
        return given

    def _call(self, node: fx.Node, name: str, named: dict[str, Any], result: Any) -> Call:
        first = next((key for key, one in named.items() if values_in(one)), "")

        def again(tensor: Tensor, **changed: Any) -> Any:
            return invoke(node.target, {**tensors_in(named), first: tensor, **changed})

        return Call(
            operation=name,
            arguments=named,
            result=result,
            again=again,
            facts=self.facts,
            folds=self.findings.folds,
            trace=self.trace,
            place=place_of(node),
            random=torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()),
        )

    def _sized(self, call: Call, given: Any) -> None:
        values = [x for x in (*call.values, *values_in(given)) if x.layers]
        self.findings.sizes.append(Sizes(call.place, tuple((x.shape, x.layers) for x in values)))

    def _written(self, target: Value, given: Value) -> None:
        """Follow a value that was written to: all that shares its memory has changed too."""
        memory = target.tensor.untyped_storage().data_ptr()
        for node, held in list(self.values.items()):
            for value in values_in(held):
                if value.tensor.untyped_storage().data_ptr() != memory:
                    continue
                if held is value and _same_view(value.tensor, target.tensor):
                    self.values[node] = given
                else:
                    self._give_up(node, held)

    def _give_up(self, node: fx.Node, held: Any) -> None:
        """Keep all units of values that overlap with one that was written to."""
        for value in values_in(held):
            for layer in value.layers:
                self.facts.pin(layer.ids, "shares memory that is written to")
        self.values[node] = change_values(
            held, lambda value: replace(plain(value.tensor, varies=True), fed=True)
        )


def _in_module(name: str, node: fx.Node) -> str:
    place = place_of(node)
    return f"{name} of '{place}'" if place else f"{name} of the model"


def _copied(value: Value) -> Value:
    """Return a value as it is before it is written to."""
    return replace(value, tensor=value.tensor.clone())


def _same_view(one: Tensor, other: Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.storage_offset() == other.storage_offset()
    )
