"""Memory of activations, timing in turns, batches of another size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from infcop.errors import ModelError
from infcop.models.activations import peak_activation_bytes
from infcop.models.batches import batch_of, resized
from infcop.models.latency import timed


class Steps(nn.Module):
    def __init__(self, run) -> None:
        super().__init__()
        self.run = run

    def forward(self, x):
        return self.run(x)


def both_alive(x):
    one = x + 1
    other = x + 2
    return one + other


def one_after_the_other(x):
    x = x + 1
    x = x * 2
    return x - 3


def in_place(x):
    return (x + 1).mul_(2).sub_(3)


def views_only(x):
    return x.view(-1)[1:].unsqueeze(0)


def small_then_large(x):
    return (x.sum() + 1).expand(5, 100).contiguous()


@pytest.mark.parametrize(
    ("run", "floats"),
    [
        (both_alive, 3 * 10),
        (one_after_the_other, 2 * 10),
        (in_place, 10),
        (views_only, 0),
        (small_then_large, 1 + 500),
        (lambda x: x, 0),
    ],
)
def test_bytes_alive_at_once(run, floats: int) -> None:
    for dtype, size in ((torch.float32, 4), (torch.float64, 8)):
        assert peak_activation_bytes(Steps(run), (torch.ones(10, dtype=dtype),)) == floats * size


def test_parameters_buffers_and_inputs_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(4, 100), nn.BatchNorm1d(100), nn.Linear(100, 1)).train()
    # The output of the first layer and of the normalisation.
    assert peak_activation_bytes(model, (torch.ones(3, 4),)) == 2 * 3 * 100 * 4
    assert model.training
    assert int(model[1].num_batches_tracked) == 0


def test_activations_grow_with_the_batch() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    sizes = [peak_activation_bytes(model, (torch.ones(n, 1, 4, 4),)) for n in (1, 2, 8)]
    assert sizes == [128, 256, 1024]


def test_a_model_that_fails_is_explained() -> None:
    with pytest.raises(ModelError, match="peak_activation_bytes: expected a model that runs"):
        peak_activation_bytes(nn.Linear(3, 2), (torch.ones(2, 4),))


class Clock:
    """Stands still but for the runs, of which each takes its own time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def run(self, name: str, *takes: float):
        left = list(takes)

        def once() -> None:
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return once

    def __call__(self) -> float:
        return self.now


def test_medians_and_quartiles_of_repeats() -> None:
    clock = Clock()
    # One call to warm up and one that finds out how many fill a repeat.
    slow = clock.run("slow", 9.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    found = timed({"slow": slow}, batch=4, threads=2, repeats=5, seconds=0.5, clock=clock)["slow"]
    assert (found.lower, found.median, found.upper) == (2.0, 3.0, 4.0)
    assert (found.batch, found.threads, found.repeats, found.calls) == (4, 2, 5, 1)
    assert found.throughput == pytest.approx(4 / 3)


def test_short_runs_are_repeated_until_they_fill_the_time() -> None:
    clock = Clock()
    found = timed(
        {"fast": clock.run("fast", 0.001), "slow": clock.run("slow", 0.1)},
        **{"batch": 1, "threads": 1, "seconds": 0.02, "clock": clock},
    )
    assert found["fast"].calls * 0.001 >= 0.02
    assert found["slow"].calls == 1
    assert found["fast"].median == pytest.approx(0.001)


def test_rounds_begin_with_another_network_each_time() -> None:
    clock = Clock()
    runs = {name: clock.run(name, 1.0) for name in "abc"}
    timed(runs, batch=1, threads=1, repeats=4, seconds=0.5, clock=clock)
    assert "".join(clock.order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"


def test_no_network_is_no_mistake() -> None:
    assert timed({}, batch=1, threads=1) == {}


def test_batches_of_another_size() -> None:
    inputs = {"x": torch.arange(3), "scale": torch.ones(2), "on": True}
    assert batch_of(inputs) == 3
    for wanted in (1, 3, 8):
        found = resized(inputs, 3, wanted)
        assert found["x"].tolist() == [place % 3 for place in range(wanted)]
        assert torch.equal(found["scale"], inputs["scale"])
        assert found["on"] is True
    assert resized(inputs, 5, 2) is None
    assert resized((torch.ones(()),), 1, 2) is None
    assert resized((torch.ones(0, 2),), 0, 2) is None
