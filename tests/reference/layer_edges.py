"""The definition of an edge, tried out: change one output and see whose input moves."""

from __future__ import annotations

from contextlib import ExitStack

import torch


def edges_by_intervention(model, inputs, layers):
    """Return all pairs (producer, consumer) in the order of ``layers``, in quadratic time."""
    found = {(one[0], other[0]) for one, other in channels_by_intervention(model, inputs, layers)}
    return tuple(
        (producer, consumer)
        for consumer in layers
        for producer in layers
        if (producer, consumer) in found
    )


def channels_by_intervention(model, inputs, layers):
    """Return, per pair of calls, which channels of the second one's input the first one moves.

    The outputs of all calls are held at their recorded values, so that nothing passes through
    a layer; then the output of one call alone gets noise, and every call whose input differs
    receives it directly. A call is a layer's name and the number of the call.
    """
    modules = {name: model.get_submodule(name) for name in layers}
    with torch.no_grad():
        _, outputs = _run(model, inputs, modules, {})
        held, _ = _run(model, inputs, modules, outputs)
        found = {}
        for producer in outputs:
            noise = torch.randn_like(outputs[producer])
            changed = {**outputs, producer: outputs[producer] + noise}
            moved, _ = _run(model, inputs, modules, changed)
            for consumer in outputs:
                pairs = list(zip(held[consumer], moved[consumer], strict=True))
                if not all(torch.equal(one, other) for one, other in pairs):
                    found[producer, consumer] = _channels(modules[consumer[0]], *pairs[0])
    return found


def _run(model, inputs, modules, replaced):
    seen, outputs = {}, {}
    with ExitStack() as stack:
        for name, module in modules.items():

            def before(_, args, kwargs, name=name):
                given = [*args, *kwargs.values()]
                number = sum(layer == name for layer, _ in seen)
                seen[name, number] = [item.clone() for item in given]

            def after(_, args, output, name=name):
                number = sum(layer == name for layer, _ in outputs)
                outputs[name, number] = output.clone()
                return replaced[name, number].clone() if replaced else None

            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        if isinstance(inputs, dict):
            model(**{name: _cloned(item) for name, item in inputs.items()})
        else:
            model(*(_cloned(item) for item in inputs))
    return seen, outputs


def _cloned(item):
    return item.clone() if isinstance(item, torch.Tensor) else item


def _channels(module, before, after):
    kernel = getattr(module, "kernel_size", None)
    axis = before.ndim - 1 if kernel is None else before.ndim - len(kernel) - 1
    differs = (before != after).movedim(axis, 0).flatten(1).any(dim=1)
    return set(differs.nonzero().flatten().tolist())
