"""Slow twins of the scores: loops over single weights, dense Hessians, closed forms.

``SCORE_TWINS`` has one for every score of the settings, of the whole of a small network.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.func import functional_call

from infcop.core.rng import derive_seed
from infcop.models.prunable import find_prunable


def _channels(layer):
    return -1 if isinstance(layer, torch.nn.Linear) else 1


def connections(layer, example):
    """Yield of every weight its index, and which input channel it takes to which output channel.

    Found by trying: with all other weights at zero, which output moves when which input does.
    """
    layer = copy.deepcopy(layer).double()
    axis = _channels(layer)
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias.zero_()
        for index in np.ndindex(*layer.weight.shape):
            layer.weight.zero_()
            layer.weight[index] = 1.0
            for channel in range(example.shape[axis]):
                inputs = torch.zeros(example.shape, dtype=torch.float64)
                inputs.select(axis, channel).fill_(1.0)
                moved = layer(inputs).movedim(axis, 0).flatten(1).abs().sum(dim=1).nonzero()
                if len(moved):
                    yield index, channel, int(moved[0])


def slow_wanda(layer, inputs):
    """Size of every weight times the root mean square of its input channel, one by one."""
    axis = _channels(layer)
    scores = np.full(tuple(layer.weight.shape), np.nan)
    for index, channel, _ in connections(layer, inputs[:1]):
        values = inputs.select(axis, channel).double().numpy().ravel()
        scores[index] = abs(layer.weight[index].item()) * np.sqrt((values**2).mean())
    return scores


def slow_pair_correlation(layer, inputs):
    """Size of every weight times the correlation of its two units, by ``numpy.corrcoef``."""
    axis = _channels(layer)
    with torch.no_grad():
        outputs = layer(inputs)
    scores = np.full(tuple(layer.weight.shape), np.nan)
    for index, channel, out in connections(layer, inputs[:1]):
        x, y = (
            values.select(axis, number).double().reshape(len(inputs), -1).mean(dim=1).numpy()
            for values, number in ((inputs, channel), (outputs, out))
        )
        varies = np.ptp(x) > 0 and np.ptp(y) > 0
        size = abs(layer.weight[index].item())
        scores[index] = size * abs(np.corrcoef(x, y)[0, 1]) if varies else 0.0
    return scores


def mean_loss(model, task, batches, temperature=1.0):
    """Return a function of parameters: the mean loss of all examples together, in float64."""
    model = copy.deepcopy(model).double()
    batch = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    batch = tuple(part.double() if part.is_floating_point() else part for part in batch)

    def loss(parameters):
        def called(*inputs):
            return functional_call(model, parameters, inputs) / temperature

        return task.training_step(called, batch)

    return loss


def slow_gradient(model, task, batches, name):
    """Central differences of the mean loss by every entry of a parameter."""
    loss = mean_loss(model, task, batches)
    parameters = {n: p.detach().double() for n, p in model.named_parameters()}
    found = np.zeros(tuple(parameters[name].shape))
    for index in np.ndindex(*found.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = parameters[name].clone()
            moved[index] += step
            ends.append(float(loss({**parameters, name: moved})))
        found[index] = (ends[0] - ends[1]) / 2e-5
    return found


def slow_hessian_gradient(model, task, batches, names, temperature):
    """The dense Hessian of the mean loss times its gradient, over the weights that are not zero."""
    loss = mean_loss(model, task, batches, temperature)
    parameters = {n: p.detach().double() for n, p in model.named_parameters()}
    sizes = [parameters[name].numel() for name in names]

    def of_vector(vector):
        parts = vector.split(sizes)
        moved = {n: p.reshape(parameters[n].shape) for n, p in zip(names, parts, strict=True)}
        return loss({**parameters, **moved})

    vector = torch.cat([parameters[name].flatten() for name in names])
    hessian = torch.autograd.functional.hessian(of_vector, vector)
    gradient = torch.autograd.functional.jacobian(of_vector, vector)
    gradient = torch.where(vector == 0, 0.0, gradient)
    products = (hessian @ gradient).split(sizes)
    return {n: p.reshape(parameters[n].shape) for n, p in zip(names, products, strict=True)}


def slow_synflow(weights):
    """Scores of a bias-free multilayer perceptron, ``left[i] |W[i, j]| right[j]``, and the flow."""
    sizes = [np.abs(np.asarray(weight, dtype=np.float64)) for weight in weights]
    rights = [np.ones(sizes[0].shape[1])]
    for size in sizes:
        rights.append(size @ rights[-1])
    left = np.ones(sizes[-1].shape[0])
    scores = []
    for size, right in zip(reversed(sizes), reversed(rights[:-1]), strict=True):
        scores.append(left[:, None] * size * right[None, :])
        left = size.T @ left
    return scores[::-1], float(rights[-1].sum())


# Of every score, for a chain of linear layers without biases and rectifiers between them.


def _weights(model):
    return {n: model.get_parameter(n).detach().double().numpy() for n in find_prunable(model).names}


def _sensitivities(model, task, batches):
    """Weight times gradient of the mean loss, by central differences."""
    return {n: w * slow_gradient(model, task, batches, n) for n, w in _weights(model).items()}


def _magnitude(score, model, task, batches, seed):
    return {
        name: np.array([abs(float(w)) for w in weight.ravel()]).reshape(weight.shape)
        for name, weight in _weights(model).items()
    }


def _random(score, model, task, batches, seed):
    """What a generator of the layer's own gives, which knows the seed and the name alone."""
    drawn = {}
    for name, weight in _weights(model).items():
        generator = torch.Generator().manual_seed(derive_seed(seed, "scoring", "noise", name))
        drawn[name] = torch.randn(weight.shape, generator=generator, dtype=torch.float64).numpy()
    return drawn


def _snip(score, model, task, batches, seed):
    sizes = _taylor(score, model, task, batches, seed)
    whole = sum(float(one) for size in sizes.values() for one in size.ravel())
    return {name: size / whole for name, size in sizes.items()}


def _taylor(score, model, task, batches, seed):
    return {name: np.abs(found) for name, found in _sensitivities(model, task, batches).items()}


def _grasp(score, model, task, batches, seed):
    weights = _weights(model)
    products = slow_hessian_gradient(model, task, batches, list(weights), score.temperature)
    return {name: weight * products[name].numpy() for name, weight in weights.items()}


def _synflow(score, model, task, batches, seed):
    weights = _weights(model)
    return dict(zip(weights, slow_synflow(weights.values())[0], strict=True))


def _fisher(score, model, task, batches, seed):
    """Half the mean of the squares of weight times gradient, over single examples."""
    ones = [
        (inputs[number : number + 1], labels[number : number + 1])
        for inputs, labels in batches
        for number in range(len(inputs))
    ]
    each = [_sensitivities(model, task, [one]) for one in ones]
    return {name: sum(one[name] ** 2 for one in each) / len(each) / 2 for name in each[0]}


def _by_layer(twin):
    """Score layer by layer, each with the inputs that the layers before it give."""

    def of_model(score, model, task, batches, seed):
        values, found = torch.cat([inputs for inputs, _ in batches]), {}
        with torch.no_grad():
            for place, layer in enumerate(model):
                if isinstance(layer, torch.nn.Linear):
                    found[f"{place}.weight"] = twin(layer, values)
                values = layer(values)
        return found

    return of_model


def _movement(score, model, task, batches, seed):
    """Against the gradients of steps on each batch, where no step moves anything."""
    steps = [_sensitivities(model, task, [batch]) for batch in batches]
    return {name: -sum(step[name] for step in steps) for name in steps[0]}


SCORE_TWINS = {
    "magnitude": _magnitude,
    "random": _random,
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "taylor": _taylor,
    "fisher": _fisher,
    "wanda": _by_layer(slow_wanda),
    "correlation": _by_layer(slow_pair_correlation),
    "movement": _movement,
}
"""By the kind of a score what it says of a model and batches; of surviving and pruned weights."""
