"""Slow twins of flow measurement: NumPy loops and whole-set backward passes."""

from __future__ import annotations

import copy

import numpy as np
import torch


def slow_pool(output, channel_axis):
    """Average ``[B, ...]`` over everything but examples and channels, one entry at a time."""
    values = np.moveaxis(np.asarray(output, dtype=np.float64), channel_axis, 1)
    return np.array([[channel.mean() for channel in example] for example in values])


def slow_correlation(producer, consumer):
    """Correlate all pairs of columns with ``numpy.corrcoef``; constant columns give 0."""
    rows = np.asarray(producer, dtype=np.float64)
    columns = np.asarray(consumer, dtype=np.float64)
    result = np.zeros((rows.shape[1], columns.shape[1]))
    for i in range(rows.shape[1]):
        for j in range(columns.shape[1]):
            x, y = rows[:, i], columns[:, j]
            if np.ptp(x) > 0 and np.ptp(y) > 0:
                result[i, j] = np.corrcoef(x, y)[0, 1]
    return result


def slow_signed_mean(producer, consumer):
    """Mean over examples of the products of mean standardised activations."""
    sums = []
    for values in (np.asarray(producer, np.float64), np.asarray(consumer, np.float64)):
        standardised = np.zeros_like(values)
        for i in range(values.shape[1]):
            if np.ptp(values[:, i]) > 0:
                centred = values[:, i] - values[:, i].mean()
                standardised[:, i] = centred / np.sqrt((centred**2).mean())
        sums.append(standardised.mean(axis=1))
    return float((sums[0] * sums[1]).mean())


def slow_gradients(model, task, batch, names):
    """Gradients of one batch by ``backward`` on a copy of the model, as NumPy float64."""
    model = copy.deepcopy(model).eval()
    model.zero_grad()
    task.training_step(model, batch).backward()
    parameters = dict(model.named_parameters())
    return [
        np.zeros(parameters[name].shape)
        if parameters[name].grad is None
        else parameters[name].grad.double().numpy()
        for name in names
    ]


def slow_gradient_flow(model, task, batches, names, masks=None):
    """Return, per statistic, ``full`` from the joined batch and ``per-batch`` by a loop."""
    joined = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    full = _statistics(slow_gradients(model, task, joined, names), names, masks)
    each = [
        _statistics(slow_gradients(model, task, batch, names), names, masks) for batch in batches
    ]
    per_batch = tuple(tuple(np.mean([one[i] for one in each], axis=0)) for i in range(2))
    return {"full": full, "per-batch": per_batch}


def _statistics(gradients, names, masks):
    if masks is not None:
        gradients = [g * masks[n].numpy() for g, n in zip(gradients, names, strict=True)]
    norms = tuple(float(np.sqrt((g**2).sum())) for g in gradients)
    return norms, tuple(float(np.abs(g).mean()) for g in gradients)


def slow_alignment(producer, consumer):
    """Linear CKA of standardised activations, from examples x examples matrices of products."""
    grams = []
    for values in (np.asarray(producer, np.float64), np.asarray(consumer, np.float64)):
        standardised = np.zeros_like(values)
        for i in range(values.shape[1]):
            if np.ptp(values[:, i]) > 0:
                centred = values[:, i] - values[:, i].mean()
                standardised[:, i] = centred / np.sqrt((centred**2).mean())
        grams.append(standardised @ standardised.T)
    first, second = grams
    size = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / size) if size > 0 else 0.0


def slow_effective_rank(matrix):
    """Exponential of the entropy of the singular values, by a loop over them."""
    values = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    entropy = 0.0
    for value in values / values.sum():
        if value > 0:
            entropy -= value * np.log(value)
    return float(np.exp(entropy))


def slow_layout(output, channel_axis, axis, fold, example_first):
    """Average ``[B, C]`` out of an output that holds ``fold`` entries of an example, by loops."""
    values = np.moveaxis(np.asarray(output, np.float64), (axis, channel_axis), (0, 1))
    examples = len(values) // fold
    result = np.zeros((examples, values.shape[1]))
    for entry, rows in enumerate(values):
        example = entry // fold if example_first else entry % examples
        result[example] += rows.reshape(len(rows), -1).mean(axis=1) / fold
    return result


def slow_information(outputs, pairs):
    """Signed and absolute mean of edges, from the pooled outputs of calls.

    Args:
        outputs: Per call ``(layer, number)`` an array ``[N, C]``.
        pairs: Per edge the pairs of calls that it is measured on, joined along the examples.
    """
    signed, absolute = [], []
    for (producer, consumer), calls in pairs.items():
        rows = np.concatenate([outputs[producer, one] for one, _ in calls])
        columns = np.concatenate([outputs[consumer, other] for _, other in calls])
        matrix = slow_correlation(rows, columns)
        signed.append(matrix.mean())
        absolute.append(np.abs(matrix).mean())
    return tuple(signed), tuple(absolute)
