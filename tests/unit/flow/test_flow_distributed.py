"""Readings that several processes take together, with gloo.

The functions in the first part run in the processes, which load this file by its path; the tests
in the second part start them and look at what each process gave.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infcop.core.edges import Edges
from infcop.core.mask import Masks
from infcop.core.method import (
    GradientFlow,
    InformationFlow,
    RelativeGradientFlow,
    RelativeInformationFlow,
)
from infcop.core.records import Reading
from infcop.flow import reduce
from infcop.flow.information import correlation, effective_rank
from infcop.flow.meter import FlowMeter
from infcop.flow.moments import CoMoments
from infcop.flow.sampling import Precision
from infcop.stopping.build import build_rule
from infcop.stopping.flow import flow_distance, relative_flow_distance
from infcop.stopping.rule import StopContext, replay
from infcop.tasks.classification import Classification
from tests.reference.flow import slow_correlation, slow_pool, slow_signed_mean
from tests.reference.networks import BOTH, EDGES, WEIGHTS, network_of_everything
from tests.reference.processes import Processes, all_alike, outcome
from tests.reference.states import state_of

EXAMPLES = 24

# Per process the sizes of its batches; together all the examples.
EVEN = [[6, 6], [6, 6]]
UNEVEN = [[10, 7], [7]]
ONE_EMPTY = [[], [11, 13]]
LAST_EMPTY = [[20, 4], []]
ONE_SINGLE = [[1], [20, 3]]
THREE_EVEN = [[8], [8], [8]]
THREE_UNEVEN = [[3, 4], [5], [11, 1]]
MIDDLE_EMPTY = [[9], [], [8, 7]]
TWO_EMPTY = [[], [], [8, 16]]
TWO_SINGLE = [[1], [22], [1]]
SPLITS = [
    EVEN,
    UNEVEN,
    ONE_EMPTY,
    LAST_EMPTY,
    ONE_SINGLE,
    THREE_EVEN,
    THREE_UNEVEN,
    MIDDLE_EMPTY,
    TWO_EMPTY,
    TWO_SINGLE,
]


# What runs in the processes.


def network(seed=0, dtype=torch.float64):
    """Batch norm, dropout, in-place activations, and a channel that is dead."""
    model = network_of_everything(seed)
    nn.init.zeros_(model[0].weight[1])
    return model.to(dtype)


def examples(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(EXAMPLES, 1, 7, 7, generator=generator, dtype=torch.float64)
    return inputs.to(dtype), torch.randint(0, 3, (EXAMPLES,), generator=generator)


def shards(split, data=None):
    """Return per process its batches, from the first example on."""
    inputs, labels = data or examples()
    start, everyone = 0, []
    for sizes in split:
        everyone.append([])
        for size in sizes:
            everyone[-1].append((inputs[start : start + size], labels[start : start + size]))
            start += size
    return everyone


def joined(split, data=None):
    """Return the batches of all processes, in the order of the ranks."""
    return [batch for shard in shards(split, data) for batch in shard]


def mine(split, data=None):
    return shards(split, data)[distributed.get_rank()]


def task():
    batch = examples()
    return Classification([batch], [batch])


def half_masks(model):
    generator = torch.Generator().manual_seed(3)
    parameters = dict(model.named_parameters())
    return Masks(
        {name: torch.rand(parameters[name].shape, generator=generator) < 0.5 for name in WEIGHTS}
    )


def meter(model, group=None, **changes):
    settings = {"edges": EDGES, "parameters": WEIGHTS, "kinds": BOTH, **changes}
    return FlowMeter(model, group=group, **settings)


def world():
    return distributed.group.WORLD


def told(reading):
    """Return all of a reading as values that JSON can hold, exactly."""
    facts = {
        "flows": {name: list(vector) for name, vector in reading.flows.items()},
        "dead": reading.dead_units,
        "errors": {name: list(vector) for name, vector in reading.standard_errors.items()},
        "counts": [reading.examples, reading.forward_examples, reading.gradient_examples],
        "source": reading.source,
    }
    if reading.moments is not None:
        facts["matrices"] = [correlation(reading.moments, e).tolist() for e in EDGES]
        facts["ranks"] = list(effective_rank(reading.moments))
        facts["samples"] = [reading.moments.parts[edge].n for edge in EDGES]
    return facts


def probe(
    group,
    batches,
    gradient="full",
    dtype="float64",
    seed=0,
    kinds=BOTH,
    masked=False,
    alignment=False,
):
    """Measure one model, in one process or in a group."""
    model = network(seed, getattr(torch, dtype))
    masks = half_masks(model) if masked else None
    settings = {"gradient": gradient, "kinds": kinds, "alignment": alignment}
    measure = meter(model, group, keep_moments=True, **settings)
    return told(measure.read(task(), batches, masks))


def probe_together(split, dtype="float64", options=({},)):
    batches = mine(split, examples(getattr(torch, dtype)))
    return [probe(world(), batches, dtype=dtype, **option) for option in options]


def probe_alone(split, dtype="float64", options=({},)):
    batches = joined(split, examples(getattr(torch, dtype)))
    return [probe(None, batches, dtype=dtype, **option) for option in options]


def with_errors(group, batches):
    measure = meter(network(), group, kinds=["information"], standard_errors=True)
    return told(measure.read(task(), batches))


def errors_together(split):
    return with_errors(world(), mine(split))


def in_part_of_the_world(split):
    """Processes 1 and 2 measure, process 0 does not."""
    group = distributed.new_group([1, 2])
    if distributed.get_rank() == 0:
        return None
    return probe(group, mine(split))


def wide(threads):
    """A layer so wide that sums over its correlations are split among the threads."""
    generator = torch.Generator().manual_seed(distributed.get_rank())
    batch = torch.randn(16, 4, generator=generator, dtype=torch.float64), torch.zeros(16).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 300), nn.Tanh(), nn.Linear(300, 300)).double()
    measure = meter(model, world(), edges=[("0", "2")], parameters=["0.weight", "2.weight"])
    torch.set_num_threads(threads[distributed.get_rank()])
    try:
        reading = measure.read(task(), [batch])
    finally:
        torch.set_num_threads(1)
    return told(reading)


class Watched:
    """What a plain loop sees of its own training: nothing of infcop's takes part."""

    def __init__(self, model):
        self.model, self.outputs, self.gradients, self.sizes = model, {}, [], []
        for name in ("0", "4", "8"):
            model.get_submodule(name).register_forward_hook(functools.partial(self._keep, name))

    def _keep(self, name, _module, _inputs, output):
        self.outputs.setdefault(name, []).extend(slow_pool(output.detach().numpy(), 1).tolist())

    def after_backward(self, size):
        self.sizes.append(size)
        parameters = dict(self.model.named_parameters())
        self.gradients.append({name: parameters[name].grad.tolist() for name in WEIGHTS})


def train(split, wrapped, gradient):
    """Train on one's own share, wrapped by DistributedDataParallel or each for itself."""
    inner = network()
    seen = Watched(inner)
    model = DistributedDataParallel(inner) if wrapped else inner
    torch.manual_seed(distributed.get_rank())  # Dropout differs, as it does in practice.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with meter(model, world(), gradient=gradient).watch() as watch:
        for inputs, labels in mine(split):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            seen.after_backward(len(labels))
            watch.after_backward(len(labels))
            optimizer.step()
    return {
        "reading": told(watch.reading()),
        "outputs": seen.outputs,
        "gradients": seen.gradients,
        "sizes": seen.sizes,
    }


def with_a_loader_that_fails(culprit, after):
    """Read with a loader that raises in one process, then again with a sound one."""

    def batches():
        for number, batch in enumerate(joined(THREE_EVEN)):
            if number == after and distributed.get_rank() == culprit:
                raise OSError("the disk has gone")
            yield batch

    model = network()
    nn.functional.cross_entropy(model(examples()[0]), examples()[1]).backward()
    before = state_of(model)
    failed = outcome(lambda: told(meter(model, world()).read(task(), batches())))
    return {
        "outcome": failed,
        "untouched": state_of(model) == before,
        "again": told(meter(network(), world()).read(task(), mine(THREE_EVEN))),
    }


def read_or_error(split, kinds):
    return outcome(lambda: told(meter(network(), world(), kinds=kinds).read(task(), mine(split))))


def with_nan(split, kinds, place, strict):
    """Measure with one input that is not a number, in one batch of one process."""
    rank, number = place
    batches = mine(split)
    if distributed.get_rank() == rank:
        batches[number][0][0, 0, 0, 0] = math.nan
    measure = meter(network(), world(), kinds=kinds)

    def read():
        reading = measure.read(task(), batches, strict=strict)
        return {**told(reading), "non_finite": reading.non_finite}

    return outcome(read)


class Forked(nn.Module):
    """Which of two layers runs depends on the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Linear(3, 4)
        self.left, self.right = nn.Linear(4, 5), nn.Linear(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        branch = self.left if x.sum() > 0 else self.right
        return self.head(branch(self.stem(x).relu()).relu())


FORKED_EDGES = [("stem", "left"), ("stem", "right"), ("left", "head"), ("right", "head")]


def forked_batches(sides):
    """A batch for the left or the right branch, by +1 and -1."""
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(6, 3, generator=generator, dtype=torch.float64) + 2.0 * side,
            torch.zeros(6, dtype=torch.int64),
        )
        for side in sides
    ]


def forked(group, batches):
    measure = FlowMeter(
        Forked().double(),
        edges=Edges.of(FORKED_EDGES),
        parameters=["left.weight", "right.weight"],
        kinds=BOTH,
        group=group,
    )
    return told(measure.read(task(), batches))


def forked_together(sides):
    """Each process has the batches of its own sides."""
    flat = forked_batches([side for own in sides for side in own])
    start = sum(map(len, sides[: distributed.get_rank()]))
    batches = flat[start : start + len(sides[distributed.get_rank()])]
    return outcome(lambda: forked(world(), batches))


def wrapped_model(split):
    """A probe of a wrapped model, and a training step after it."""
    inner = network()
    model = DistributedDataParallel(inner)
    measure = meter(model, world())
    probed = told(measure.read(task(), mine(split)))
    precision = Precision(reference=(0.0, 0.0), statistic="information.signed", within=0.1)
    informed = meter(model, world(), kinds=["information"])
    refused = outcome(lambda: told(informed.read(task(), mine(split), precision=precision)))
    model.eval()
    inputs, labels = shards(EVEN)[distributed.get_rank()][0]
    nn.functional.cross_entropy(model(inputs), labels).backward()
    return {
        "inner": measure.model is inner,
        "probed": probed,
        "refused": refused,
        "gradient": inner[8].weight.grad.tolist(),
    }


def far_from_zero(kind):
    """Join moments of channels that are hard: far from zero, or constant in each process."""
    moments = CoMoments([("a", "b")])
    for batch in hard_batches(kind)[distributed.get_rank()]:
        moments.update(batch)
    return moments_told(reduce.reduce_moments(moments, world(), torch.device("cpu")))


def hard_batches(kind):
    """Return per process its batches of activations."""
    generator = torch.Generator().manual_seed(9)
    everyone = []
    for rank in range(3):
        a = torch.randn(4 + rank, 3, generator=generator, dtype=torch.float64)
        b = a.flip(1) + torch.randn(4 + rank, 3, generator=generator, dtype=torch.float64)
        if kind == "far from zero":
            a, b = a + 1e7, b - 1e7
        if kind == "constant in each process":
            a[:, 0] = rank
        if kind == "constant":
            a[:, 0] = 3.7
        everyone.append([{"a": a, "b": b}])
    return everyone


def moments_told(moments):
    matrix = correlation(moments, ("a", "b"))
    return {"n": moments.parts["a", "b"].n, "matrix": matrix.tolist()}


def of_other_widths():
    """Every process has a layer of its own width: an error everywhere, after which all go on."""
    moments = CoMoments([("a", "b")])
    width = 2 + distributed.get_rank()
    moments.update({"a": torch.randn(4, width), "b": torch.randn(4, 3)})
    device = torch.device("cpu")
    joining = outcome(lambda: moments_told(reduce.reduce_moments(moments, world(), device)))
    return [joining, reduce.reduced_counts((1, width), world(), device)]


# The tests.


@pytest.fixture(scope="module")
def processes():
    started = Processes(most=3)
    yield started
    started.close()


def assert_close(got, expected, tolerance=1e-10):
    """Compare readings: numbers with a tolerance, counts exactly."""
    assert got["flows"].keys() == expected["flows"].keys()
    for name, vector in expected["flows"].items():
        assert got["flows"][name] == pytest.approx(vector, abs=tolerance, rel=0)
    for name in ("dead", "counts", "source"):
        assert got[name] == expected[name]
    assert got["errors"].keys() == expected["errors"].keys()
    for name, vector in expected["errors"].items():
        assert got["errors"][name] == pytest.approx(vector, abs=tolerance, rel=0)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_equals_the_reading_of_one_process(processes, split):
    options = [
        {"gradient": "full"},
        {"gradient": "per-batch"},
        {"gradient": "full", "masked": True},
        {"kinds": ["information"]},
    ]
    together = processes.run(len(split), probe_together, split, "float64", options)
    alone = probe_alone(split, "float64", options)
    for got, expected in zip(all_alike(together), alone, strict=True):
        assert_close(got, expected)
        assert got["samples"] == [EXAMPLES, EXAMPLES]
        assert got["ranks"] == pytest.approx(expected["ranks"], abs=1e-8)
        for matrix, other in zip(got["matrices"], expected["matrices"], strict=True):
            assert np.asarray(matrix) == pytest.approx(np.asarray(other), abs=1e-10)
    assert alone[0]["dead"] == {"0": 1, "4": 0, "8": 0}
    assert together[0][0]["counts"] == [EXAMPLES, 0, EXAMPLES]
    assert together[0][3]["counts"] == [EXAMPLES, EXAMPLES, 0]


@pytest.mark.parametrize("split", [UNEVEN, MIDDLE_EMPTY], ids=str)
def test_alignment_equals_that_of_one_process(processes, split):
    options = [{"kinds": ["information"], "alignment": True}]
    together = processes.run(len(split), probe_together, split, "float64", options)
    (got,) = all_alike(together)
    assert_close(got, probe_alone(split, "float64", options)[0])
    assert all(0 < value < 1 for value in got["flows"]["information.cka"])


@pytest.mark.parametrize("split", [UNEVEN, MIDDLE_EMPTY], ids=str)
def test_equals_the_reading_of_one_process_in_float32(processes, split):
    # The sums are float64 whatever the model is. What is left is how the model itself rounds,
    # which may depend on the threads of a process.
    options = [{"gradient": "full"}, {"gradient": "per-batch"}]
    together = processes.run(len(split), probe_together, split, "float32", options)
    alone = probe_alone(split, "float32", options)
    for got, expected in zip(all_alike(together), alone, strict=True):
        assert_close(got, expected, tolerance=1e-6)


@pytest.mark.parametrize("split", [UNEVEN, ONE_EMPTY, MIDDLE_EMPTY, TWO_SINGLE], ids=str)
def test_standard_errors_equal_those_of_one_process(processes, split):
    got = all_alike(processes.run(len(split), errors_together, split))
    assert_close(got, with_errors(None, joined(split)))
    assert all(error > 0 for vector in got["errors"].values() for error in vector)


def test_a_part_of_the_world_measures_on_its_own(processes):
    split = [[4], [9, 2], [9]]
    outside, *inside = processes.run(3, in_part_of_the_world, split)
    assert outside is None
    assert_close(all_alike(inside), probe(None, joined(split)[1:]))


RULES = [
    (InformationFlow, "information.signed", flow_distance),
    (InformationFlow, "information.absolute", flow_distance),
    (RelativeInformationFlow, "information.signed", relative_flow_distance),
    (RelativeInformationFlow, "information.absolute", relative_flow_distance),
    (GradientFlow, "gradient.norm", flow_distance),
    (GradientFlow, "gradient.mean", flow_distance),
    (RelativeGradientFlow, "gradient.norm", relative_flow_distance),
    (RelativeGradientFlow, "gradient.mean", relative_flow_distance),
]


@pytest.mark.parametrize("split", [UNEVEN, ONE_EMPTY, MIDDLE_EMPTY], ids=str)
def test_all_processes_decide_alike_right_at_the_threshold(processes, split):
    options = [{"seed": 1}, {"seed": 0}]
    readings = [
        [Reading(phase="level", level=1, passes=1, flows=one["flows"]) for one in answer]
        for answer in processes.run(len(split), probe_together, split, "float64", options)
    ]
    reference, present = readings[0]
    for config, flow, distance in RULES:
        statistic = flow.partition(".")[2]
        epsilon = distance(present.flows[flow], reference.flows[flow])
        # Strictly: at the distance itself a rule goes on, and stops at the next larger number.
        for threshold, stop in [(epsilon, False), (math.nextafter(epsilon, math.inf), True)]:
            rule = build_rule(config(epsilon=threshold, statistic=statistic), max_passes=8)
            decisions = [
                replay(rule, StopContext(reference=theirs, max_passes=8), [now])[0]
                for theirs, now in readings
            ]
            assert all_alike(decisions).stop == stop


def test_processes_with_unlike_threads_give_the_same_numbers(processes):
    # Sums over wide layers are split among the threads, which changes their last bits; a rule that
    # is right at its threshold would then stop in one process and go on in the other.
    all_alike(processes.run(2, wide, [1, 2]))


def merged_by_hand(answers):
    """Return the flows of what all processes saw, from their own records."""
    outputs = {
        name: [row for answer in answers for row in answer["outputs"].get(name, [])]
        for name in ("0", "4", "8")
    }
    steps = [
        (size, gradient)
        for answer in answers
        for size, gradient in zip(answer["sizes"], answer["gradients"], strict=True)
    ]
    total = sum(size for size, _ in steps)
    full, norms, means = [], [], []
    for name in WEIGHTS:
        each = [np.asarray(gradient[name]) for _, gradient in steps]
        full.append(sum(s * g for (s, _), g in zip(steps, each, strict=True)) / total)
        norms.append(np.mean([np.linalg.norm(gradient) for gradient in each]))
        means.append(np.mean([np.abs(gradient).mean() for gradient in each]))
    pairs = [(outputs[producer], outputs[consumer]) for producer, consumer in EDGES]
    information = {
        "information.signed": [slow_signed_mean(*pair) for pair in pairs],
        "information.absolute": [np.abs(slow_correlation(*pair)).mean() for pair in pairs],
    }
    return {
        "full": {
            **information,
            "gradient.norm": [np.linalg.norm(gradient) for gradient in full],
            "gradient.mean": [np.abs(gradient).mean() for gradient in full],
        },
        "per-batch": {**information, "gradient.norm": norms, "gradient.mean": means},
    }


@pytest.mark.parametrize("gradient", ["full", "per-batch"])
@pytest.mark.parametrize(
    ("split", "wrapped"),
    [([[6, 5], [4, 9]], True), ([[6, 5], [4, 9]], False), ([[12], [], [5, 7]], False)],
    ids=str,
)
def test_watched_training_equals_what_all_saw(processes, split, wrapped, gradient):
    # After a backward pass through DistributedDataParallel every process has the same ``.grad``:
    # the plain mean over the processes of the gradients of their own batches' mean losses, however
    # many examples each batch had. So gradient flow from training is that of this averaged
    # gradient, which the optimiser uses too, and adding up over the processes changes nothing but
    # the weights of the steps. The activations are each process's own, and are merged.
    answers = processes.run(len(split), train, split, wrapped, gradient)
    got = all_alike([answer["reading"] for answer in answers])
    expected = merged_by_hand(answers)[gradient]
    assert got["flows"].keys() == expected.keys()
    for name, vector in expected.items():
        assert got["flows"][name] == pytest.approx(vector, abs=1e-10)
    assert got["source"] == "training"
    assert got["counts"] == [sum(map(sum, split)), 0, 0]
    assert answers[0]["outputs"] != answers[1]["outputs"]
    assert (answers[0]["gradients"] == answers[1]["gradients"]) == wrapped


@pytest.mark.parametrize(("culprit", "after"), [(0, 0), (1, 2), (2, 1)])
def test_a_loader_that_raises_in_one_process_ends_all(processes, culprit, after):
    answers = processes.run(3, with_a_loader_that_fails, culprit, after)
    assert [answer["untouched"] for answer in answers] == [True] * 3
    for rank, answer in enumerate(answers):
        error, message = answer["outcome"]["error"], answer["outcome"]["message"]
        if rank == culprit:
            assert (error, message) == ("OSError", "the disk has gone")
        else:
            assert error == "FlowError"
            assert "expected all 3 processes to measure their share, but 1 failed" in message
    again = all_alike([answer["again"] for answer in answers])
    assert_close(again, probe_alone(THREE_EVEN)[0])


NOTHING = [[], [], []]
ONE_EXAMPLE = [[], [1], []]


@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH], ids=str)
def test_no_example_anywhere_is_an_error_everywhere(processes, kinds):
    answer = all_alike(processes.run(3, read_or_error, NOTHING, kinds))
    assert answer["error"] == "FlowError"
    assert "expected at least one batch with an example, got none" in answer["message"]


def test_one_example_in_all_is_enough_for_the_gradient_alone(processes):
    answer = all_alike(processes.run(3, read_or_error, ONE_EXAMPLE, BOTH))
    assert answer["error"] == "FlowError"
    assert "expected at least two examples of 0 -> 4, got 1" in answer["message"]
    got = all_alike(processes.run(3, read_or_error, ONE_EXAMPLE, ["gradient"]))["value"]
    assert got["counts"] == [1, 0, 1]
    batches = [tuple(part[:1] for part in examples())]
    assert_close(got, told(meter(network(), kinds=["gradient"]).read(task(), batches)))


@pytest.mark.parametrize("kinds", [["information"], ["gradient"], BOTH], ids=str)
def test_nan_in_one_process_is_an_error_everywhere(processes, kinds):
    answers = processes.run(3, with_nan, THREE_UNEVEN, kinds, [2, 1], True)
    assert [answer["error"] for answer in answers] == ["FlowError"] * 3
    messages = [answer["message"] for answer in answers]
    assert all("expected finite activations and gradients" in message for message in messages)
    assert "from batch 1 on" in messages[2]
    assert not any("from batch" in message for message in messages[:2])
    if kinds == ["information"]:
        assert all("in another process" in message for message in messages[:2])


@pytest.mark.parametrize("place", [[0, 0], [1, 0]], ids=str)
def test_nan_in_one_process_gives_the_same_reading_everywhere(processes, place):
    answers = processes.run(2, with_nan, [[6, 6], [5]], BOTH, place, False)
    readings = [answer["value"] for answer in answers]
    places = [reading.pop("non_finite") for reading in readings]
    got = all_alike(readings)
    assert all(math.isnan(value) for value in got["flows"]["information.signed"])
    assert all(math.isnan(value) for value in got["flows"]["gradient.norm"])
    culprit = place[0]
    assert places[culprit] == dict.fromkeys(["0", "4", "8", *WEIGHTS], 0)
    assert places[1 - culprit] == dict.fromkeys(WEIGHTS)


@pytest.mark.parametrize("sides", [[[1, 1], [-1]], [[1], [], [-1, 1]], [[-1], [1], []]], ids=str)
def test_edges_that_only_some_processes_see_are_merged(processes, sides):
    got = all_alike(processes.run(len(sides), forked_together, sides))["value"]
    flat = [side for own in sides for side in own]
    assert_close(got, forked(None, forked_batches(flat)))
    assert all(value != 0 for value in got["flows"]["information.signed"])
    assert got["counts"][0] == 6 * len(flat)


def test_an_edge_that_no_process_sees_is_an_error_everywhere(processes):
    answer = all_alike(processes.run(2, forked_together, [[1], [1]]))
    assert answer["error"] == "FlowError"
    assert "expected at least two examples of stem -> right, got 0" in answer["message"]


@pytest.mark.parametrize("split", [EVEN, UNEVEN, LAST_EMPTY], ids=str)
def test_a_wrapped_model_is_measured_without_its_wrapper(processes, split):
    # A probe through the wrapper would wait for processes that have fewer batches.
    answers = processes.run(2, wrapped_model, split)
    assert all(answer["inner"] for answer in answers)
    assert_close(answers[0]["probed"], probe_alone(split)[0] | {"errors": {}})
    refused = all_alike(answers)["refused"]
    assert refused["error"] == "FlowError"
    assert "expected one process and kinds=['information'] with a precision" in refused["message"]
    gradients = []
    for shard in shards(EVEN):
        model = network().eval()
        inputs, labels = shard[0]
        nn.functional.cross_entropy(model(inputs), labels).backward()
        gradients.append(model[8].weight.grad.numpy())
    mean = (gradients[0] + gradients[1]) / 2
    assert np.asarray(answers[0]["gradient"]) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("kind", ["far from zero", "constant in each process", "constant"])
def test_hard_channels_are_merged_right(processes, kind):
    got = all_alike(processes.run(3, far_from_zero, kind))
    rows = [batch for own in hard_batches(kind) for batch in own]
    everything = [torch.cat([batch[name] for batch in rows]).numpy() for name in ("a", "b")]
    # Channels around 1e7 are known to about 1e-9 of their deviation, however they are added up.
    tolerance = 1e-8 if kind == "far from zero" else 1e-10
    assert np.asarray(got["matrix"]) == pytest.approx(slow_correlation(*everything), abs=tolerance)
    assert got["n"] == sum(len(batch["a"]) for batch in rows)
    assert (np.abs(np.asarray(got["matrix"])[0]).max() == 0) == (kind == "constant")


def test_layers_of_unlike_width_are_an_error_everywhere(processes):
    joining, counts = all_alike(processes.run(3, of_other_widths))
    assert joining["error"] == "FlowError"
    assert "of layer 'a' as before" in joining["message"]
    assert counts == [3, 9]
