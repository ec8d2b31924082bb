"""The definition of an edge, tried out: change one layer's output and see whose input moves."""

from __future__ import annotations

from contextlib import ExitStack

import torch


def edges_by_intervention(model, inputs, layers):
    """Return all pairs (producer, consumer) in the order of ``layers``, in quadratic time.

    The outputs of all layers are held at their recorded values, so that nothing passes through
    a layer; then the producer's output alone gets noise, and every layer whose input differs
    receives it directly.
    """
    modules = {name: model.get_submodule(name) for name in layers}
    with torch.no_grad():
        _, outputs = _run(model, inputs, modules, {})
        held, _ = _run(model, inputs, modules, outputs)
        reached = {}
        for producer in layers:
            noise = torch.randn_like(outputs[producer])
            changed = {**outputs, producer: outputs[producer] + noise}
            moved, _ = _run(model, inputs, modules, changed)
            reached[producer] = {name for name in layers if not _equal(held[name], moved[name])}
    return tuple(
        (producer, consumer)
        for consumer in layers
        for producer in layers
        if consumer in reached[producer]
    )


def _run(model, inputs, modules, replaced):
    seen, outputs = {}, {}
    with ExitStack() as stack:
        for name, module in modules.items():

            def before(_, args, name=name):
                seen[name] = [item.clone() for item in args]

            def after(_, args, output, name=name):
                outputs[name] = output.clone()
                return replaced[name].clone() if name in replaced else None

            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        model(*(item.clone() for item in inputs))
    return seen, outputs


def _equal(before, after):
    return all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
