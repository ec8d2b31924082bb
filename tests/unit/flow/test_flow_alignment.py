"""The alignment of an edge's ends: linear CKA, against products of examples with examples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.core.edges import Edges
from infcop.flow import stream as stream_module
from infcop.flow.information import alignment
from infcop.flow.meter import FlowMeter
from infcop.flow.stream import InformationStream
from infcop.tasks.classification import Classification
from tests.reference.flow import slow_alignment
from tests.reference.networks import EDGES, WEIGHTS, network_of_everything

EDGE = ("a", "b")
PAIR = Edges((EDGE,))


def activations(examples=40, seed=0):
    """Two related layers of 4 and 6 units; one unit of the first never varies."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    b = (a @ torch.randn(4, 6, generator=generator, dtype=torch.float64)).relu()
    b = b + 0.3 * torch.randn(examples, 6, generator=generator, dtype=torch.float64)
    a[:, 2] = 0.7
    return a, b


def aligned(a, b, sizes=None):
    stream = InformationStream(PAIR, own=True)
    sizes = [len(a)] if sizes is None else sizes
    for left, right in zip(a.split(sizes), b.split(sizes), strict=True):
        stream.add([{("a", 0): left, ("b", 0): right}])
    return alignment(stream.flush(), stream.own)[0]


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    seed=st.integers(0, 1000),
    chunk=st.integers(1, 20),
)
def test_equals_the_slow_twin_however_batches_are_split(sizes, seed, chunk) -> None:
    a, b = activations(sum(sizes), seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "_CHUNK_EXAMPLES", chunk)
        found = aligned(a, b, sizes)
    assert found == pytest.approx(slow_alignment(a, b), abs=1e-10)
    assert 0 <= found <= 1 + 1e-9


def test_neither_places_nor_signs_nor_scales_of_units_matter() -> None:
    a, b = activations()
    expected = aligned(a, b)
    order = torch.tensor([3, 1, 0, 2])
    signs = torch.tensor([-1.0, 1.0, 50.0, -0.01]).double()
    assert aligned(a[:, order] * signs + 3, -b.flip(1)) == pytest.approx(expected, abs=1e-10)
    # Mixing units is more than that.
    assert abs(aligned(a, b.cumsum(1)) - expected) > 1e-3


def test_known_answers() -> None:
    signal = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double()
    other = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]).double()
    assert aligned(signal, -signal.expand(-1, 3)) == pytest.approx(1.0)
    assert aligned(signal, other) == 0.0
    # Of two independent units one is the signal: 1 / (1 * sqrt(2)).
    assert aligned(signal, torch.cat([signal, other], 1)) == pytest.approx(2**-0.5)
    assert aligned(signal, torch.zeros(4, 2).double()) == 0.0


def reading(alignment=True, kinds=("information",)):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(20, 1, 7, 7, generator=generator)
    batches = [(part, torch.zeros(len(part)).long()) for part in images.split([8, 11, 1])]
    meter = FlowMeter(
        network_of_everything(), edges=EDGES, parameters=WEIGHTS, kinds=kinds, alignment=alignment
    )
    return meter.read(Classification(batches, batches), batches)


def test_a_meter_measures_it_on_demand_beside_the_rest() -> None:
    plain, asked = reading(alignment=False), reading()
    assert set(plain.flows) == {"information.signed", "information.absolute"}
    assert asked.flows == {**plain.flows, "information.cka": asked.flows["information.cka"]}
    assert all(0 < value < 1 for value in asked.flows["information.cka"])
    assert len(asked.flows["information.cka"]) == len(EDGES)
    assert "information.cka" not in reading(kinds=("gradient",)).flows


def test_one_example_leaves_it_unknown() -> None:
    model = network_of_everything().eval()
    batch = torch.randn(1, 1, 7, 7), torch.zeros(1).long()
    meter = FlowMeter(model, edges=EDGES, parameters=WEIGHTS, kinds=["information"], alignment=True)
    flows = meter.read(Classification([batch], [batch]), [batch], strict=False).flows
    assert all(map(math.isnan, flows["information.cka"]))
