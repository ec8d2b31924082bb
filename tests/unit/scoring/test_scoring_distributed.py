"""Evidence that several processes gather together, with gloo.

The functions in the first part run in the processes, which load this file by its path; the tests
in the second part start them and look at what each process gave.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infcop import scoring
from infcop.core.score import Correlation, Grasp, Score
from infcop.scoring.evidence.pairs import PairMoments
from infcop.scoring.gather import gather
from infcop.tasks.classification import Classification
from tests.reference import axes
from tests.reference.networks import WEIGHTS, network_of_everything
from tests.reference.processes import Processes, all_alike, outcome
from tests.reference.states import state_of

EVERY = axes.settings(Score)
SCORES = {name.removesuffix("-eval"): s for name, s in EVERY.items() if not name.endswith("-train")}
SCORES["grasp, undivided"] = Grasp(temperature=1)
EVIDENCE = {name: scoring.SCORES[score.kind].evidence for name, score in SCORES.items()}

DATA = [name for name, score in SCORES.items() if scoring.needs_data(score)]
NOTHING = [name for name, kind in EVIDENCE.items() if kind in ("none", "noise", "movement")]
RUNNING = [name for name in SCORES if name not in NOTHING]
TWICE = [
    name for name, kind in EVIDENCE.items() if kind in ("hessian-gradient", "input-correlation")
]
"""Those that go through the batches a second time."""
TRAINING = {name.removesuffix("-train"): s for name, s in EVERY.items() if name.endswith("-train")}

# Per process the sizes of its batches.
EVEN = [[6, 6], [6, 6]]
UNEVEN = [[10, 7], [7]]
ONE_EMPTY = [[], [11, 13]]
ONE_SINGLE = [[1], [20, 3]]
THREE_UNEVEN = [[3, 4], [5], [11, 1]]
MIDDLE_EMPTY = [[9], [], [8, 7]]
ALL_SINGLE = [[1], [1], [1]]
SPLITS = [EVEN, UNEVEN, ONE_EMPTY, ONE_SINGLE, THREE_UNEVEN, MIDDLE_EMPTY, ALL_SINGLE]


# What runs in the processes.


def network():
    return network_of_everything().double().train()


def shards(split, shape=(1, 7, 7)):
    """Return per process its batches, from the first example on."""
    generator = torch.Generator().manual_seed(7)
    everyone = []
    for sizes in split:
        everyone.append([])
        for size in sizes:
            # Far from zero, where sums of squares alone would lose digits.
            inputs = torch.randn(size, *shape, generator=generator, dtype=torch.float64) + 3
            labels = torch.randint(0, 3, (size,), generator=generator)
            everyone[-1].append((inputs, labels))
    return everyone


def joined(split, **options):
    """Return the batches of all processes, in the order of the ranks."""
    return [batch for shard in shards(split, **options) for batch in shard]


def mine(split, **options):
    return shards(split, **options)[distributed.get_rank()]


def evidence(score, model, batches, group=None, names=WEIGHTS, seed=0):
    movement = {name: model.get_parameter(name).detach() + 1 for name in WEIGHTS if name in names}
    options = {"movement": movement} if score.kind == "movement" else {}
    found = gather(
        score,
        model,
        names,
        Classification([0], [0]),
        batches if callable(batches) else lambda: batches,
        seed=seed,
        group=group,
        **options,
    )
    values = {name: value.tolist() for name, value in found.values.items()}
    return {"values": values, "cost": found.cost.model_dump()}


def together(kinds, split, table="SCORES"):
    scores = globals()[table]
    world = distributed.group.WORLD
    return {kind: evidence(scores[kind], network(), mine(split), world) for kind in kinds}


def twice_the_same(kind):
    world = distributed.group.WORLD
    return evidence(TRAINING[kind], network(), joined([[7]]), world)


def with_a_loader_that_fails(kinds, culprit, time):
    """Gather with a loader that raises at its so manieth time, then again with a sound one."""
    answers = {}
    for kind in kinds:
        times = 0

        def batches():
            nonlocal times
            times += 1
            if times == time and distributed.get_rank() == culprit:
                raise OSError("the disk has gone")
            yield mine(THREE_UNEVEN)[0]

        model = network()
        before = state_of(model)
        world = distributed.group.WORLD
        failed = outcome(evidence, SCORES[kind], model, batches, world)
        answers[kind] = {**failed, "untouched": state_of(model) == before}
    return [answers, together(["snip"], [*UNEVEN, []])]


def or_error(split, kinds):
    return {kind: outcome(together, [kind], split) for kind in kinds}


def unlike(what):
    """Gather something else in the last process than in the others."""
    kinds, seed, names, others = {
        "score": (["snip", "snip", "wanda"], 0, WEIGHTS, WEIGHTS),
        "setting": (["grasp", "grasp", "grasp, undivided"], 0, WEIGHTS, WEIGHTS),
        "no data": (["magnitude", "magnitude", "correlation"], 0, WEIGHTS, WEIGHTS),
        "seed": (["random"] * 3, 1, WEIGHTS, WEIGHTS),
        "names": (["wanda"] * 3, 0, WEIGHTS[:2], WEIGHTS),
        "unknown": (["correlation"] * 3, 0, ["0.weigth"], WEIGHTS),
    }[what]
    last = distributed.get_rank() == 2
    score = SCORES[kinds[distributed.get_rank()]]
    names, seed = (names, seed) if last else (others, 0)
    world = distributed.group.WORLD
    return outcome(evidence, score, network(), mine(THREE_UNEVEN), world, names, seed)


def not_finite(kinds):
    batches = mine(UNEVEN)
    if distributed.get_rank() == 1:
        batches[0][0][0] = torch.nan
    world = distributed.group.WORLD
    return {kind: outcome(evidence, SCORES[kind], network(), batches, world) for kind in kinds}


def in_part_of_the_world(kinds, split):
    """Processes 1 and 2 gather, process 0 does not."""
    group = distributed.new_group([1, 2])
    if distributed.get_rank() == 0:
        return None
    return {kind: evidence(SCORES[kind], network(), mine(split), group) for kind in kinds}


def wrapped(kinds, split):
    model, world = DistributedDataParallel(network()), distributed.group.WORLD
    found = {}
    for kind in kinds:
        value = gather(
            SCORES[kind],
            model,
            WEIGHTS,
            Classification([0], [0]),
            lambda: mine(split),
            seed=0,
            group=world,
        )
        found[kind] = {name: tensor.tolist() for name, tensor in value.values.items()}
    return found


def with_threads(kinds, threads):
    """Layers so wide that what is computed with them is split among the threads."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 300)).double()
    names, world = ["0.weight", "2.weight"], distributed.group.WORLD
    batches = mine([[8], [5]], shape=(4,))
    torch.set_num_threads(threads[distributed.get_rank()])
    try:
        found = {kind: evidence(SCORES[kind], model, batches, world, names) for kind in kinds}
    finally:
        torch.set_num_threads(1)
    return hashlib.sha256(repr(found).encode()).hexdigest()


class Forked(nn.Module):
    """Which of two layers runs depends on the batch, and one runs twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Conv1d(4, 4, 1, groups=2)
        self.left, self.right = nn.Conv1d(4, 6, 3, groups=2), nn.Conv1d(4, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        branch = self.left if x.mean() > 3 else self.right
        return self.head(branch(self.stem(self.stem(x).relu())).relu().mean(dim=2))


FORKED = ["stem.weight", "left.weight", "right.weight", "head.weight"]


def forked_batches(sides):
    shifted = []
    for own, shard in zip(
        sides, shards([[5] * len(own) for own in sides], shape=(4, 6)), strict=True
    ):
        shifted.append([(x + side, y) for side, (x, y) in zip(own, shard, strict=True)])
    return shifted


def forked(kinds, group, batches):
    model = Forked().double()
    return {kind: evidence(SCORES[kind], model, batches, group, FORKED) for kind in kinds}


def forked_together(kinds, sides):
    batches = forked_batches(sides)[distributed.get_rank()]
    return outcome(forked, kinds, distributed.group.WORLD, batches)


class Sequences(nn.Module):
    """Has the examples along the second axis of its layers' outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.first(x.transpose(0, 1)).tanh()).mean(dim=0)


def sequences(group, batches):
    names = ["first.weight", "second.weight"]
    return evidence(Correlation(), Sequences().double(), batches, group, names)


def sequences_together(split):
    return sequences(distributed.group.WORLD, mine(split, shape=(6, 4)))


# The tests.


@pytest.fixture(scope="module")
def processes():
    started = Processes(most=3)
    yield started
    started.close()


def assert_close(got, expected):
    """Compare values, relative to the largest of each weight; 0 must be 0."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        one, other = np.asarray(got[name]), np.asarray(value)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-12 * np.abs(other).max()


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_equals_the_evidence_of_one_process_with_all_batches(processes, split):
    got = all_alike(processes.run(len(split), together, list(SCORES), split))
    for kind in SCORES:
        alone = evidence(SCORES[kind], network(), joined(split))
        assert got[kind]["cost"] == alone["cost"]
        assert_close(got[kind]["values"], alone["values"])
        assert list(got[kind]["values"]) == list(alone["values"])


def test_what_needs_no_data_is_the_same_as_alone(processes):
    kinds = [name for name in SCORES if name not in DATA]
    got = all_alike(processes.run(3, together, kinds, MIDDLE_EMPTY))
    assert got == {k: evidence(SCORES[k], network(), joined(MIDDLE_EMPTY)) for k in kinds}


@pytest.mark.parametrize("kind", NOTHING)
def test_without_data_no_process_needs_examples(processes, kind):
    got = all_alike(processes.run(2, together, [kind], [[], []]))
    assert got[kind] == evidence(SCORES[kind], network(), [])


def test_all_have_the_same_bits_in_training_mode(processes):
    # Every process drops other units, and normalises its own batches.
    got = all_alike(processes.run(2, together, list(TRAINING), UNEVEN, "TRAINING"))
    assert got["snip"]["cost"]["measuring_gradient"] == 24


def test_other_units_are_dropped_in_every_process(processes):
    # With the same units the mean of two copies would be that of one.
    answers = processes.run(2, twice_the_same, "snip")
    alone = evidence(TRAINING["snip"], network(), joined([[7]]))
    got = all_alike(answers)["values"]
    assert (
        np.abs(np.asarray(got["8.weight"]) - np.asarray(alone["values"]["8.weight"])).max() > 1e-3
    )


@pytest.mark.parametrize(("culprit", "time"), [(0, 1), (1, 1), (2, 2)])
def test_a_loader_that_raises_in_one_process_ends_all(processes, culprit, time):
    kinds = [kind for kind in DATA if time == 1 or kind in TWICE]
    answers = processes.run(3, with_a_loader_that_fails, kinds, culprit, time)
    for rank, (failed, _) in enumerate(answers):
        for kind in kinds:
            assert failed[kind]["untouched"]
            error, message = failed[kind]["error"], failed[kind]["message"]
            if rank == culprit:
                assert (error, message) == ("OSError", "the disk has gone")
            else:
                assert error == "PruningError"
                assert "expected all 3 processes to measure their share, but 1 failed" in message
    again = all_alike([again for _, again in answers])
    assert_close(
        again["snip"]["values"], evidence(SCORES["snip"], network(), joined(UNEVEN))["values"]
    )


def test_no_example_anywhere_is_an_error_everywhere(processes):
    for answer in all_alike(processes.run(3, or_error, [[], [], []], RUNNING)).values():
        assert answer["error"] == "PruningError"
        assert "expected at least one batch with an example, got none" in answer["message"]


def test_one_example_in_all_has_no_correlations(processes):
    answers = all_alike(processes.run(3, or_error, [[], [1], []], DATA))
    assert "expected at least two examples at layer '0', got 1" in answers["correlation"]["message"]
    for kind in set(DATA) - {"correlation"}:
        alone = evidence(SCORES[kind], network(), joined([[1]]))
        assert_close(answers[kind]["value"][kind]["values"], alone["values"])


@pytest.mark.parametrize("what", ["score", "setting", "no data", "seed", "names"])
def test_another_thing_in_another_process_is_an_error_everywhere(processes, what):
    for answer in processes.run(3, unlike, what):
        assert answer["error"] == "PruningError"
        assert "expected all processes to measure the same in the same way" in answer["message"]


def test_a_mistake_in_one_process_ends_all(processes):
    *others, culprit = processes.run(3, unlike, "unknown")
    assert culprit["error"] == "ModelError"
    assert "no parameter '0.weigth'; did you mean '0.weight'" in culprit["message"]
    for answer in others:
        assert answer["error"] == "PruningError"
        assert "but 1 failed; look for the error of the others" in answer["message"]


def test_nan_in_one_process_is_an_error_everywhere(processes):
    for answer in all_alike(processes.run(2, not_finite, DATA)).values():
        assert answer["error"] == "PruningError"
        assert "expected finite evidence, got NaN or infinity" in answer["message"]


def test_a_part_of_the_world_gathers_on_its_own(processes):
    split = [[4], [9, 2], [9]]
    outside, *inside = processes.run(3, in_part_of_the_world, RUNNING, split)
    assert outside is None
    for kind, got in all_alike(inside).items():
        alone = evidence(SCORES[kind], network(), joined(split)[1:])
        assert_close(got["values"], alone["values"])


def test_a_wrapped_model_is_measured_without_its_wrapper(processes):
    # Through the wrapper, processes would wait for those that have fewer batches.
    for kind, got in all_alike(processes.run(2, wrapped, RUNNING, ONE_EMPTY)).items():
        assert_close(got, evidence(SCORES[kind], network(), joined(ONE_EMPTY))["values"])


def test_processes_with_unlike_threads_have_the_same_bits(processes):
    all_alike(processes.run(2, with_threads, RUNNING, [1, 2]))


@pytest.mark.parametrize("sides", [[[1, 1], [-1]], [[1], [], [-1, 1]], [[-1], [1], []]], ids=str)
def test_calls_that_only_some_processes_see_are_joined(processes, sides):
    got = all_alike(processes.run(len(sides), forked_together, DATA, sides))["value"]
    flat = [batch for own in forked_batches(sides) for batch in own]
    for kind, alone in forked(DATA, None, flat).items():
        assert got[kind]["cost"] == alone["cost"]
        assert_close(got[kind]["values"], alone["values"])


def test_a_layer_that_no_process_calls_is_an_error_everywhere(processes):
    answer = all_alike(processes.run(2, forked_together, ["wanda"], [[1], [1]]))
    assert answer["error"] == "PruningError"
    assert "expected the layer of 'right.weight' to be called" in answer["message"]


@pytest.mark.parametrize("split", [[[1], [6, 1]], [[], [1], [5]]], ids=str)
def test_where_the_examples_are_is_known_to_processes_that_cannot_see_it(processes, split):
    got = all_alike(processes.run(len(split), sequences_together, split))
    alone = sequences(None, joined(split, shape=(6, 4)))
    assert got["cost"] == alone["cost"]
    assert_close(got["values"], alone["values"])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sizes", [[1, 1], [3, 1, 5], [4]])
def test_moments_in_parts_are_those_of_all(groups, sizes):
    generator = torch.Generator().manual_seed(1)
    count = sum(sizes)
    x = torch.randn(count, 4, generator=generator, dtype=torch.float64) + 1e4
    y = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    y[:, 1] = 0.3
    whole = PairMoments(groups)
    whole.add(x, y, eps=1e-16)
    merged = PairMoments(groups)
    for one, other in zip(x.split(sizes), y.split(sizes), strict=True):
        part = PairMoments(groups)
        part.add(one, other, eps=1e-16)
        before = part.packed().clone()
        merged.absorb(PairMoments.unpacked(part.packed()))
        assert torch.equal(part.packed(), before)
    assert merged.examples == count
    found = merged.correlations()
    torch.testing.assert_close(found, whole.correlations(), rtol=0, atol=1e-11)
    assert bool((found.transpose(0, 1).reshape(4 // groups, -1)[:, 1] == 0).all())
    again = PairMoments.unpacked(merged.packed())
    assert torch.equal(again.correlations(), found)
