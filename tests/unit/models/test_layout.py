"""Where the examples are in each output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from infcop.core.edges import Layout
from infcop.errors import FlowError
from infcop.models.graph import select_edges, trace_graph
from infcop.models.layout import changed_inputs, count_examples, fingerprint
from infcop.models.prunable import find_prunable


class Net(nn.Module):
    """Two linear layers of width 4, with functions before, between and after them."""

    def __init__(self, before, between=lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.before, self.between = before, between

    def forward(self, *inputs):
        return self.b(self.between(self.a(self.before(*inputs))))


def layouts(model, *inputs, **options):
    graph = trace_graph(model, inputs, find_prunable(model), **options)
    assert list(graph.layouts) == [tap for tap in graph.calls if tap in graph.layouts]
    return {layer: layout for (layer, _), layout in graph.layouts.items()}


def patches(x):
    return x.flatten(0, 1)


def crops(x):
    return torch.cat([x, x.flip(-1), x * 2])


PLACES = {
    "first": (lambda x: x, (6, 4), Layout()),
    "tokens": (lambda x: x, (6, 5, 4), Layout()),
    "time first": (lambda x: x.transpose(0, 1), (6, 5, 4), Layout(axis=1)),
    "time first, as long": (lambda x: x.transpose(0, 1), (6, 6, 4), Layout(axis=1)),
    "a place of one's own": (lambda x: x * torch.eye(6).unsqueeze(-1), (6, 6, 4), Layout()),
    "patches": (patches, (6, 5, 4), Layout(fold=5)),
    "as many patches": (patches, (6, 6, 4), Layout(fold=6)),
    "crops": (crops, (6, 4), Layout(fold=3, example_first=False)),
    "time steps in the batch": (
        lambda x: x.transpose(0, 1).flatten(0, 1),
        (6, 5, 4),
        Layout(fold=5, example_first=False),
    ),
    "patches on the second axis": (
        lambda x: x.flatten(0, 1).view(1, -1, 4).expand(3, -1, -1),
        (6, 5, 4),
        Layout(axis=1, fold=5),
    ),
    "crops on the second axis": (
        lambda x: torch.stack([crops(x)] * 2),
        (6, 4),
        Layout(axis=1, fold=3, example_first=False),
    ),
    "two examples": (patches, (2, 3, 4), Layout(fold=3)),
    "two examples, crops": (crops, (2, 4), Layout(fold=3, example_first=False)),
}


@pytest.mark.parametrize("name", PLACES)
def test_places(name):
    before, shape, expected = PLACES[name]
    assert layouts(Net(before), torch.randn(shape)) == {"a": expected, "b": expected}


@pytest.mark.parametrize("name", PLACES)
def test_places_hold_in_the_output(name):
    """Averaged as the layout says, each example gives what it gives when the others change."""
    before, shape, _ = PLACES[name]
    model, inputs = Net(before), torch.randn(shape)
    layout = layouts(model, inputs)["b"]
    others = torch.randn(shape)
    others[2 % shape[0]] = inputs[2 % shape[0]]
    one, other = (examples_of(model(given), layout, shape[0]) for given in (inputs, others))
    same = (one - other).abs().flatten(1).amax(dim=1) < 1e-5
    assert same.nonzero().flatten().tolist() == [2 % shape[0]]


def examples_of(output, layout, examples):
    rows = output.movedim(layout.axis, 0)
    if layout.example_first:
        return rows.unflatten(0, (examples, layout.fold)).flatten(1)
    return rows.unflatten(0, (layout.fold, examples)).transpose(0, 1).flatten(1)


def test_a_layer_before_and_after_a_fold():
    model = Net(lambda x: x, lambda x: x.flatten(0, 1))
    assert layouts(model, torch.randn(3, 5, 4)) == {"a": Layout(), "b": Layout(fold=5)}


def test_tokens():
    model = Net(nn.Embedding(9, 4).requires_grad_(False), lambda x: x.transpose(0, 1))
    found = layouts(model, torch.randint(9, (5, 7)))
    assert found == {"a": Layout(), "b": Layout(axis=1)}


def test_padded_tokens_that_differ_in_one_place_only():
    tokens = torch.zeros(4, 4, dtype=torch.long)
    tokens[:, 1] = torch.arange(4)
    model = Net(nn.Embedding(9, 4).requires_grad_(False), lambda x: x.transpose(0, 1))
    assert layouts(model, tokens) == {"a": Layout(), "b": Layout(axis=1)}


def test_equal_examples_get_noise():
    model = Net(lambda x: x, lambda x: x.transpose(0, 1))
    assert layouts(model, torch.ones(3, 5, 4)) == {"a": Layout(), "b": Layout(axis=1)}


def test_equal_tokens_tell_nothing():
    model = Net(nn.Embedding(9, 4).requires_grad_(False), lambda x: x.transpose(0, 1))
    assert layouts(model, torch.ones(3, 5, dtype=torch.long)) == {"a": Layout(), "b": Layout()}


def test_one_example_tells_nothing():
    assert layouts(Net(patches), torch.randn(1, 5, 4)) == {"a": Layout(), "b": Layout()}


def test_a_batch_along_another_axis_of_the_inputs():
    model = Net(lambda x: x.tanh())
    assert layouts(model, torch.randn(5, 3, 4), examples=3) == {
        "a": Layout(axis=1),
        "b": Layout(axis=1),
    }


def test_all_arguments_of_an_example_are_changed_together():
    seen = []

    def before(x, rest):
        seen.append((x.detach().clone(), rest["mask"].clone(), rest["table"].clone()))
        return x * rest["mask"]

    x, mask, table = torch.randn(4, 4), torch.rand(4, 1), torch.randn(2, 4)
    layouts(Net(before), x, {"mask": mask, "table": table})
    first, *changed = seen
    assert torch.equal(first[0], x)
    assert len(changed) == 2
    for number, other in zip((1, 3), changed, strict=True):
        rows = [(one != two).any(dim=1) for one, two in zip(first[:2], other[:2], strict=True)]
        assert [row.nonzero().flatten().tolist() for row in rows] == [[number], [number]]
        assert torch.equal(other[2], table)


def test_another_axis_is_looked_at_only_if_no_first_one_is_as_long():
    x, table = torch.randn(3, 4), torch.randn(2, 3)
    for number, (one, other) in changed_inputs((x, table), 3):
        assert (one != x).any(dim=1).nonzero().tolist() == [[number]]
        assert torch.equal(other, table)
    for number, (one,) in changed_inputs((table,), 3):
        assert (one != table).any(dim=0).nonzero().tolist() == [[number]]


def test_a_sparse_input_is_left_as_it_is():
    model = Net(lambda x, adjacency: adjacency @ x)
    adjacency = torch.eye(5).to_sparse()
    assert layouts(model, torch.randn(5, 4), adjacency) == {"a": Layout(), "b": Layout()}


def test_inputs_stay_as_they_were():
    x = torch.randn(4, 4)
    kept = x.clone()
    for _, (changed,) in changed_inputs((x,), 4):
        assert not torch.equal(changed, x)
    assert torch.equal(x, kept)


def test_examples_that_are_mixed_are_taken_to_be_along_the_first_axis():
    model = Net(lambda x: x - x.mean(dim=0))
    assert layouts(model, torch.randn(4, 4)) == {"a": Layout(), "b": Layout()}


def test_rounding_elsewhere_is_no_change():
    model = Net(lambda x: x.transpose(0, 1) + 1e-5 * x.mean())
    assert layouts(model, torch.randn(4, 5, 4)) == {"a": Layout(axis=1), "b": Layout(axis=1)}


def test_values_that_are_not_finite_do_not_hide_the_examples():
    x = torch.randn(4, 5, 4)
    x[0, 0] = torch.inf
    x[2, 0] = torch.nan
    assert layouts(Net(lambda x: x.transpose(0, 1)), x)["a"] == Layout(axis=1)


def test_a_change_that_the_model_rejects_tells_nothing():
    class Strict(Net):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if self.calls > 1:
                raise ValueError("once only")
            return super().forward(x)

    assert layouts(Strict(patches), torch.randn(4, 3, 4)) == {"a": Layout(), "b": Layout()}
    assert Strict.calls == 3


def test_a_branch_that_only_the_changed_batch_takes():
    def between(x):
        return x.transpose(0, 1) if between.first else x

    between.first = True

    class Once(Net):
        def forward(self, x):
            result = super().forward(x)
            between.first = False
            return result

    # The second layer's outputs have other shapes then, and can't be compared.
    assert layouts(Once(lambda x: x, between), torch.randn(4, 3, 4)) == {
        "a": Layout(),
        "b": Layout(),
    }


class Queries(nn.Module):
    """A branch does not depend on the inputs: its output has no examples."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 4))
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        weights = self.b(self.a(self.queries))
        return self.d(self.c(x) @ weights.mT.softmax(0) @ weights)


def test_an_output_without_examples_can_not_be_measured():
    model = Queries()
    graph = trace_graph(model, (torch.randn(5, 4),), find_prunable(model))
    assert graph.edges == (("a", "b"), ("b", "d"), ("c", "d"))
    assert set(graph.layouts) == {("c", 0), ("d", 0)}
    assert select_edges(graph, "graph").edges == (("c", "d"),)
    # The longest chain is a, b, d, and none of it is left.
    with pytest.raises(FlowError, match="none of the 3 edges found is between outputs that have"):
        select_edges(graph, "main-path")
    with pytest.raises(FlowError, match="'b' has an output without a place for the examples"):
        select_edges(graph, ("b", "d"))


def test_an_output_that_is_no_tensor_can_not_be_measured():
    class Tuple(nn.Linear):
        def forward(self, x):
            return super().forward(x), None

    model = Net(lambda x: x, lambda pair: pair[0])
    model.a = Tuple(4, 4)
    assert layouts(model, torch.randn(3, 4)) == {"b": Layout()}


def test_a_dead_layer_keeps_its_layout_by_its_shape():
    model = Net(lambda x: x * 0)
    assert layouts(model, torch.randn(3, 4)) == {"a": Layout(), "b": Layout()}


def test_the_number_of_examples():
    assert count_examples(()) == count_examples(("text", torch.ones(()))) == 0
    assert count_examples({"x": torch.ones(3, 2), "y": torch.ones(5)}) == 3


def test_fingerprints_show_a_change_in_any_channel():
    layer, output = nn.Conv2d(1, 8, 1), torch.zeros(2, 8, 3, 3)
    first = fingerprint(layer, output)
    assert first.shape == (2, 1, 3, 3)
    for channel in range(8):
        changed = output.clone()
        changed[1, channel, 2, 0] = 1
        assert (fingerprint(layer, changed) != first).nonzero().tolist() == [[1, 0, 2, 0]]
    assert fingerprint(layer, (output,)) is None
    assert fingerprint(layer, output.int()) is None
