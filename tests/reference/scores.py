"""Slow twins of the scores: loops over single weights, dense Hessians, closed forms."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.func import functional_call


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
