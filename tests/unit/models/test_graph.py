from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from infcop.errors import ModelError
from infcop.models.graph import main_path, select_edges, trace_graph
from infcop.models.prunable import find_prunable
from infcop.models.zoo import ZOO
from tests.reference.layer_edges import edges_by_intervention


def trace(model, *inputs):
    return trace_graph(model, inputs, find_prunable(model))


def zoo(name, image_size, **options):
    torch.manual_seed(0)
    model = ZOO[name].factory(in_channels=1, image_size=image_size, num_classes=3, **options)
    return model, torch.randn(4, 1, image_size, image_size)


class Net(nn.Module):
    """Four linear layers a, b, c, d of width 4, wired by a function given to the constructor."""

    def __init__(self, wiring):
        super().__init__()
        torch.manual_seed(0)
        # Defined in another order than that of execution.
        self.d, self.c, self.b, self.a = (nn.Linear(4, 4) for _ in range(4))
        self.wiring = wiring

    def forward(self, *inputs):
        return self.wiring(self, *inputs)


# --- the zoo: golden edges, checked by hand


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("lenet-300-100", 8, ("fc1", "fc2", "fc3")),
        ("lenet-5", 16, ("conv1", "conv2", "fc1", "fc2", "fc3")),
    ],
)
def test_lenet_is_a_chain(name, size, layers):
    graph = trace(*zoo(name, size))
    assert graph.layers == layers
    assert graph.edges == tuple(pairwise(layers))
    assert graph.unused == graph.called_more_than_once == ()
    assert main_path(graph) == tuple((layer, 0) for layer in layers)


def test_vgg_16_is_a_chain_of_16():
    graph = trace(*zoo("vgg-16", 32, width=0.05))
    assert len(graph.layers) == 16
    assert graph.layers[:3] == ("features.0", "features.3", "features.7")
    assert graph.layers[-4:] == ("features.40", "fc1", "fc2", "fc3")
    assert graph.edges == tuple(pairwise(graph.layers))
    assert main_path(graph) == graph.calls


def test_resnet_20():
    graph = trace(*zoo("resnet-20", 8, width=0.25))
    first, second = "stages.0", "stages.1"
    assert graph.edges[:14] == (
        ("conv1", f"{first}.0.conv1"),
        (f"{first}.0.conv1", f"{first}.0.conv2"),
        # An identity shortcut leads past the block before.
        ("conv1", f"{first}.1.conv1"),
        (f"{first}.0.conv2", f"{first}.1.conv1"),
        (f"{first}.1.conv1", f"{first}.1.conv2"),
        ("conv1", f"{first}.2.conv1"),
        (f"{first}.0.conv2", f"{first}.2.conv1"),
        (f"{first}.1.conv2", f"{first}.2.conv1"),
        (f"{first}.2.conv1", f"{first}.2.conv2"),
        # The sum at the end of a stage reaches all of its writers.
        ("conv1", f"{second}.0.conv1"),
        (f"{first}.0.conv2", f"{second}.0.conv1"),
        (f"{first}.1.conv2", f"{second}.0.conv1"),
        (f"{first}.2.conv2", f"{second}.0.conv1"),
        (f"{second}.0.conv1", f"{second}.0.conv2"),
    )
    # A projection ends the way of what was written before it.
    producers = [one for one, other in graph.edges if other == f"{second}.1.conv1"]
    assert producers == [f"{second}.0.conv2", f"{second}.0.shortcut.0"]
    # 1+1+2+1+3+1 in the first stage, 4+1+4+2+1+3+1 in each of the others, 4 into the classifier.
    assert len(graph.edges) == 9 + 16 + 16 + 4
    assert len(main_path(graph)) == 20


def test_resnet_18():
    graph = trace(*zoo("resnet-18", 8, width=0.05))
    # 1+1+2+1 in the first stage, 3+1+3+2+1 in each of the others, 3 into the classifier.
    assert len(graph.edges) == 5 + 3 * 10 + 3
    chain = tuple(layer for layer, _ in main_path(graph))
    blocks = [f"stages.{s}.{b}.conv{c}" for s in range(4) for b in range(2) for c in (1, 2)]
    assert chain == ("conv1", *blocks, "fc")
    assert len(select_edges(graph, "main-path").edges) == 17


@pytest.mark.parametrize(("name", "size"), [("lenet-5", 16), ("resnet-20", 8), ("resnet-18", 8)])
def test_the_zoo_agrees_with_intervention(name, size):
    model, images = zoo(name, size, width=0.1)
    model, images = model.double(), images.double()
    graph = trace(model, images)
    assert graph.edges == edges_by_intervention(model.eval(), (images,), graph.layers)


# --- wirings


def residual(net, x):
    h = net.a(x)
    return net.c(h + net.b(h).relu())


def concatenation(net, x):
    joined = torch.cat([net.a(x), net.b(x)], dim=1)
    return net.c(joined[:, ::2])


def attention(net, x):
    q, k, v = net.a(x), net.b(x), net.c(x)
    return net.d(torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v)


def functional_calls(net, x):
    h = functional.layer_norm(net.a(x), (4,))
    return net.b(functional.linear(h, torch.ones(4, 4, dtype=h.dtype)))


def in_place(net, x):
    h = functional.relu_(net.a(x))
    h += 1
    return net.b(functional.dropout(h, training=net.training, inplace=True))


def in_place_on_a_view(net, x):
    h = net.a(x)
    h[..., 2:].relu_()
    h.view(-1)[:3].mul_(2)
    return net.b(h)


def written_into_a_buffer(net, x):
    out = torch.zeros_like(x)
    out[..., :2] = net.a(x)[..., :2]
    out[..., 2:] = net.b(x)[..., 2:]
    return net.c(out)


def in_place_on_the_input(net, x):
    x -= 1
    return net.b(net.a(x.relu_()))


def same_output_twice(net, x):
    h = net.a(x)
    return net.b(h) + net.c(h * h) + net.d(h)


WIRINGS = {
    residual: (("a", "b"), ("a", "c"), ("b", "c")),
    concatenation: (("a", "c"), ("b", "c")),
    attention: (("a", "d"), ("b", "d"), ("c", "d")),
    functional_calls: (("a", "b"),),
    in_place: (("a", "b"),),
    in_place_on_a_view: (("a", "b"),),
    written_into_a_buffer: (("a", "c"), ("b", "c")),
    in_place_on_the_input: (("a", "b"),),
    same_output_twice: (("a", "b"), ("a", "c"), ("a", "d")),
}


# A linear layer returns a view on three-dimensional input, and no view on two-dimensional.
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
@pytest.mark.parametrize("wiring", WIRINGS, ids=lambda wiring: wiring.__name__)
def test_wirings(wiring, shape):
    model, inputs = Net(wiring).double(), torch.randn(shape, dtype=torch.float64)
    graph = trace(model, inputs)
    assert graph.edges == WIRINGS[wiring]
    assert graph.edges == edges_by_intervention(model.eval(), (inputs,), graph.layers)


OPERATIONS = {
    "add": lambda one, other: one + other,
    "gate": lambda one, other: one * torch.cos(other),
    "join": lambda one, other: torch.cat([one, other], dim=-1).unflatten(-1, (2, 4)).mean(-2),
    "relu": lambda one, other: one.relu(),
    "shift in place": lambda one, other: one.add_(0.1),
    "attend": lambda one, other: torch.softmax(one @ other.mT, dim=-1) @ one,
}


class Program(nn.Module):
    """Values computed one after the other, by layers or by operations on earlier values."""

    def __init__(self, steps):
        super().__init__()
        torch.manual_seed(0)
        self.steps = steps
        self.linear = nn.ModuleList(nn.Linear(4, 4) for _ in steps).double()

    def forward(self, x):
        values = [x]
        for index, (operation, one, other) in enumerate(self.steps):
            first, second = values[one % len(values)], values[other % len(values)]
            if operation == "layer":
                values.append(self.linear[index](first))
            else:
                values.append(OPERATIONS[operation](first, second))
        return values[-1]


step = st.tuples(
    st.sampled_from(["layer", "layer", "layer", *OPERATIONS]),
    st.integers(0, 20),
    st.integers(0, 20),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(step, min_size=1, max_size=10))
def test_any_wiring_agrees_with_intervention(steps):
    model = Program(steps)
    inputs = torch.randn(6, 4, dtype=torch.float64)
    graph = trace(model, inputs)
    assert graph.edges == edges_by_intervention(model.eval(), (inputs,), graph.layers)
    assert graph.unused == tuple(
        f"linear.{index}" for index, (operation, _, _) in enumerate(steps) if operation != "layer"
    )


def test_layers_come_in_execution_order_and_unused_ones_apart():
    graph = trace(Net(lambda net, x: net.c(net.a(x))), torch.randn(2, 4))
    assert graph.calls == (("a", 0), ("c", 0))
    assert graph.edges == (("a", "c"),)
    assert graph.unused == ("d", "b")


def test_a_frozen_layer_is_passed_through():
    model = Net(lambda net, x: net.c(net.b(net.a(x))))
    model.b.requires_grad_(False)
    assert trace(model, torch.randn(2, 4)).edges == (("a", "c"),)


def test_a_frozen_front_end_with_integer_inputs():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[:2].requires_grad_(False)
    assert trace(model, torch.tensor([[1, 2]])).edges == (("2", "3"),)


def test_a_weight_used_without_calling_its_layer():
    model = Net(lambda net, x: net.c(functional.linear(net.a(x), net.b.weight).relu()))
    graph = trace(model, torch.randn(2, 4))
    assert graph.edges == (("a", "c"),)
    assert graph.unused == ("d", "b")


def test_a_function_of_the_users_own_is_passed_through():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    graph = trace(Net(lambda net, x: net.b(Double.apply(net.a(x)))), torch.randn(2, 4))
    assert graph.edges == (("a", "b"),)


def test_no_edge_across_comparisons():
    def wiring(net, x):
        chosen = net.a(x).argmax(dim=-1)
        mask = net.b(x) > 0
        return net.d(torch.where(mask, net.c(x), 0) * chosen.unsqueeze(-1))

    assert trace(Net(wiring), torch.randn(2, 4)).edges == (("c", "d"),)


def test_only_the_branch_that_is_taken():
    def wiring(net, x):
        h = net.a(x)
        return net.d(net.b(h) if x.sum() > 0 else net.c(h))

    model = Net(wiring)
    assert trace(model, torch.ones(1, 4)).edges == (("a", "b"), ("b", "d"))
    assert trace(model, -torch.ones(1, 4)).edges == (("a", "c"), ("c", "d"))


def test_evaluation_mode_decides_the_branch():
    model = Net(lambda net, x: net.b(net.a(x)) if net.training else net.c(net.a(x)))
    assert trace(model, torch.randn(2, 4)).edges == (("a", "c"),)
    assert model.training


def test_several_inputs_in_nested_containers():
    def wiring(net, first, rest):
        h = net.a(first) + net.b(rest["pair"][1])
        return net.c(h)

    model = Net(wiring)
    x = torch.randn(2, 4)
    assert trace(model, x, {"pair": (3, x)}).edges == (("a", "c"), ("b", "c"))


def test_layers_called_with_keywords():
    graph = trace(Net(lambda net, x: net.b(input=net.a(input=x))), torch.randn(2, 4))
    assert graph.edges == (("a", "b"),)


def test_a_layer_that_returns_a_tuple():
    class Tuple(nn.Linear):
        def forward(self, x):
            return super().forward(x), {"bias": self.bias}

    model = Net(lambda net, x: net.b(net.a(x)[0]))
    model.a = Tuple(4, 4)
    assert trace(model, torch.randn(2, 4)).edges == (("a", "b"),)


def test_no_edge_across_detach_and_no_grad():
    def wiring(net, x):
        with torch.no_grad():
            h = net.a(x)
        return net.c(net.b(h).detach())

    graph = trace(Net(wiring), torch.randn(2, 4))
    assert graph.layers == ("a", "b", "c")
    assert graph.edges == ()


def test_checkpoints_are_seen_through():
    def wiring(net, x):
        return net.c(checkpoint(lambda y: net.b(net.a(y)), x, use_reentrant=False))

    assert trace(Net(wiring), torch.randn(2, 4)).edges == (("a", "b"), ("b", "c"))


def test_a_layer_in_a_reentrant_checkpoint_is_no_producer():
    def wiring(net, x):
        return net.c(checkpoint(lambda y: net.b(y), net.a(x), use_reentrant=True))

    # Its output has no history there, so that of a is followed past it.
    assert trace(Net(wiring), torch.randn(2, 4)).edges == (("a", "b"), ("a", "c"))


def test_recurrent_layers_are_passed_through():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.lstm, self.out = nn.Linear(3, 4), nn.LSTM(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.lstm(self.inp(x))[0])

    assert trace(Recurrent(), torch.randn(5, 2, 3)).edges == (("inp", "out"),)


def test_transformer_encoder_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(4, 2))
    graph = trace(model, torch.randn(5, 2, 3))
    assert graph.edges == (
        ("0", "1.linear1"),
        ("1.linear1", "1.linear2"),
        ("0", "2"),
        ("1.linear2", "2"),
    )
    # The attention uses the weight of its output projection without calling the module.
    assert graph.unused == ("1.self_attn.out_proj",)


def test_tied_weights_are_two_layers_and_a_module_under_two_names_is_one():
    model = Net(lambda net, x: net.same(net.b(net.a(x))))
    model.b.weight = model.a.weight
    model.same = model.c
    graph = trace(model, torch.randn(2, 4))
    assert graph.edges == (("a", "b"), ("b", "c"))


def test_a_weight_tied_to_an_embedding():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.hidden = nn.Embedding(5, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(self.hidden(self.embedding(tokens)).relu())

    assert trace(Language(), torch.tensor([[1, 2]])).edges == (("hidden", "head"),)


def test_the_callers_no_grad_and_inference_mode_do_not_matter():
    model = Net(residual)
    with torch.no_grad():
        assert trace(model, torch.randn(2, 4)).edges == WIRINGS[residual]
    with torch.inference_mode():
        assert trace(model, torch.randn(2, 4)).edges == WIRINGS[residual]


def test_hooks_of_the_user_still_work():
    model = Net(lambda net, x: net.c(net.a(x)))
    seen = []
    model.a.register_forward_hook(lambda module, args, output: output.relu_())
    model.c.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert trace(model, torch.randn(2, 4)).edges == (("a", "c"),)
    assert seen
    assert all((given >= 0).all() for given in seen)


def test_one_layer_has_no_edge():
    graph = trace(nn.Linear(3, 2), torch.randn(1, 3))
    assert graph.calls == (("", 0),)
    assert graph.edges == ()


def test_a_model_that_rejects_its_inputs():
    with pytest.raises(
        ModelError, match=r"rejected the inputs \(float32 \[2, 7\], str\)"
    ) as caught:
        trace(Net(lambda net, x, y: net.a(x)), torch.randn(2, 7), "text")
    assert isinstance(caught.value.__cause__, RuntimeError)
