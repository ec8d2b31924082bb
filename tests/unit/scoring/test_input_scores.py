from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from infcop.core.mask import Masks
from infcop.core.score import Correlation, Wanda
from infcop.errors import PruningError
from infcop.models.prunable import find_prunable
from infcop.scoring.evidence.pairs import PairMoments
from infcop.scoring.gather import gather, score_all
from infcop.tasks.classification import Classification
from tests.reference.scores import slow_pair_correlation, slow_wanda

SLOW = {"wanda": slow_wanda, "correlation": slow_pair_correlation}
SCORES = [Wanda(), Correlation()]

LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear over tokens": (lambda: nn.Linear(4, 3, bias=False), (5, 4)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 2, groups=2), (4, 3, 3)),
    "depthwise": (lambda: nn.Conv1d(3, 6, 3, groups=3), (3, 6)),
    "three dimensions": (lambda: nn.Conv3d(2, 2, 2, dilation=2), (2, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 2, 2, stride=2), (3, 3, 3)),
    "grouped, transposed": (lambda: nn.ConvTranspose1d(4, 6, 2, groups=2), (4, 5)),
}


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def batches_of(inputs, sizes):
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in inputs.split(sizes)]


def gathered(score, model, batches, names=None):
    names = names or find_prunable(model).names
    task = Classification([0], [0])
    return gather(score, model, names, task, lambda: batches, seed=0)


def scored(score, model, batches):
    evidence = gathered(score, model, batches)
    weights = {name: model.get_parameter(name) for name in evidence.values}
    masks = Masks({name: weight != 0 for name, weight in weights.items()})
    return score_all(score, weights, evidence.values, masks)


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_those_of_a_loop_over_single_weights(score, name, dtype):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().to(dtype)
    inputs = normal(7, *shape, dtype=dtype)
    with torch.no_grad():
        layer.weight.view(-1)[::3] = 0
    found = scored(score, nn.Sequential(layer), batches_of(inputs, [4, 2, 1]))["0.weight"]
    expected = SLOW[score.kind](layer, inputs)
    assert not np.isnan(expected).any()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
@settings(deadline=None, max_examples=10)
@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_the_split_into_batches_does_not_matter(score, sizes, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()
    inputs = normal(sum(sizes), 2, 3, 3, seed=seed, dtype=torch.float64) + 1e4
    whole = gathered(score, model, batches_of(inputs, [sum(sizes)]))
    parts = gathered(score, model, batches_of(inputs, sizes))
    for name, values in whole.values.items():
        np.testing.assert_allclose(parts.values[name], values, rtol=1e-7, atol=1e-7)


def test_conv1d_of_transformers_has_its_weight_the_other_way_round():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D(3, 4)
    plain = nn.Linear(4, 3)
    with torch.no_grad():
        plain.weight.copy_(conv1d.weight.T)
        plain.bias.copy_(conv1d.bias)
    batches = batches_of(normal(6, 5, 4), [6])
    for score in SCORES:
        found = scored(score, nn.Sequential(conv1d), batches)["0.weight"]
        expected = scored(score, nn.Sequential(plain), batches)["0.weight"]
        torch.testing.assert_close(found, expected.T, rtol=1e-6, atol=1e-6)


def test_more_of_the_same_data_changes_no_score():
    model, inputs = nn.Sequential(nn.Linear(4, 3)), normal(6, 4)
    for score in SCORES:
        once = scored(score, model, batches_of(inputs, [6]))["0.weight"]
        thrice = scored(score, model, batches_of(inputs.repeat(3, 1), [6, 6, 6]))["0.weight"]
        torch.testing.assert_close(once, thrice)


def test_wanda_scales_with_its_input_and_correlation_does_not():
    model, inputs = nn.Sequential(nn.Linear(4, 3, bias=False)).double(), normal(9, 4).double()
    larger = inputs * torch.tensor([1.0, 5.0, 1.0, 1.0])
    with torch.no_grad():
        model[0].weight[:, 1] = 0.3
    norms = [
        gathered(Wanda(), model, batches_of(x, [9])).values["0.weight"] for x in (inputs, larger)
    ]
    torch.testing.assert_close(norms[1], norms[0] * torch.tensor([[1.0, 5.0, 1.0, 1.0]]))
    tripled, plain = (
        gathered(Correlation(), model, batches_of(x, [9])).values["0.weight"]
        for x in (inputs * -3, inputs)
    )
    torch.testing.assert_close(tripled, plain)


def test_units_that_do_not_vary_have_no_correlation():
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[1] = 0
    inputs = normal(8, 3)
    inputs[:, 2] = 1 / 3
    found = gathered(Correlation(), model, batches_of(inputs, [5, 3])).values["0.weight"]
    assert found[1].tolist() == [0, 0, 0]
    assert found[0, 2] == 0
    assert (found[0, :2] > 0).all()
    assert (found <= 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_that_only_rounding_moves_have_no_correlation(dtype):
    model = nn.Sequential(nn.Linear(3, 2)).to(dtype)
    inputs = normal(8, 3, dtype=dtype)
    # As large as rounding can make it, and not moved alike with anything.
    inputs[:, 1] = 3 * (1 + torch.finfo(dtype).eps * normal(8, seed=1, dtype=dtype).sign())
    assert inputs[:, 1].unique().numel() > 1
    found = gathered(Correlation(), model, batches_of(inputs, [5, 3])).values["0.weight"]
    assert found[:, 1].tolist() == [0, 0]
    assert (found[:, [0, 2]] > 0).all()
    # What moves more than that counts, however little it is.
    inputs[:, 1] += 1e3 * torch.finfo(dtype).eps * normal(8, seed=2, dtype=dtype)
    found = gathered(Correlation(), model, batches_of(inputs, [5, 3])).values["0.weight"]
    assert (found > 0).all()


def test_correlations_survive_means_far_from_zero():
    x = normal(50, 1, dtype=torch.float64)
    y = x + normal(50, 1, seed=1, dtype=torch.float64)
    expected = np.corrcoef(x.T.numpy(), y.T.numpy())[0, 1]
    moments = PairMoments(groups=1)
    for part_x, part_y in zip((x + 1e7).split(7), (y - 1e7).split(7), strict=True):
        moments.add(part_x, part_y, eps=2.2e-16)
    assert moments.correlations().item() == pytest.approx(expected, rel=1e-6)


class Twice(nn.Module):
    """Calls one layer twice, and a second one with the same weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

    def forward(self, inputs):
        return self.b(self.a(self.a(inputs)).relu())


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_a_shared_weight_gets_the_sum_of_its_uses(score):
    torch.manual_seed(0)
    model, inputs = Twice().double(), normal(6, 3, dtype=torch.float64)
    with torch.no_grad():
        first = model.a(inputs)
        uses = [inputs, first, model.a(first).relu()]
    alone = [
        gathered(score, nn.Sequential(model.a), batches_of(use, [6])).values["0.weight"]
        for use in uses
    ]
    power = 2 if score.kind == "wanda" else 1
    expected = sum(one**power for one in alone) ** (1 / power)
    evidence = gathered(score, model, batches_of(inputs, [4, 2]))
    assert list(evidence.values) == ["a.weight"]
    torch.testing.assert_close(evidence.values["a.weight"], expected)


class Moving(nn.Module):
    """Puts the tokens first, as some attention does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, inputs):
        return self.inner(inputs.transpose(0, 1)).transpose(0, 1)


class Folding(Moving):
    """Makes every token an example of its own."""

    def forward(self, inputs):
        return self.inner(inputs.flatten(0, 1)).reshape(inputs.shape)


@pytest.mark.parametrize("kind", [Moving, Folding])
@pytest.mark.parametrize("tokens", [3, 6])
def test_examples_are_found_wherever_the_model_puts_them(kind, tokens):
    torch.manual_seed(0)
    model, inputs = kind(), normal(8, tokens, 4)
    plain = nn.Sequential(model.inner)
    for score in SCORES:
        found = gathered(score, model, batches_of(inputs, [6, 2])).values["inner.weight"]
        expected = gathered(score, plain, batches_of(inputs, [6, 2])).values["0.weight"]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_costs_count_forward_passes():
    model, batches = nn.Sequential(nn.Linear(4, 3)), batches_of(normal(10, 4), [6, 4])
    assert gathered(Wanda(), model, batches).cost.measuring == 10
    # Three passes of the first batch tell where the examples are.
    assert gathered(Correlation(), model, batches).cost.measuring == 10 + 3 * 6


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_keyword_inputs_and_compiled_parts_are_seen(score):
    class Keyword(Classification):
        def inputs(self, batch):
            return {"input": batch[0]}

    layer = nn.Linear(4, 3)
    batches = batches_of(normal(6, 4), [6])
    found = gather(score, layer, ["weight"], Keyword([0], [0]), lambda: batches, seed=0)
    plain = gathered(score, nn.Sequential(layer), batches)
    assert torch.equal(found.values["weight"], plain.values["0.weight"])
    # Compiled before anybody listens: code that was made without hooks may pass them over.
    model = nn.Sequential(torch.compile(nn.Sequential(layer), backend="aot_eager"))
    model(batches[0][0])
    name = "0._orig_mod.0.weight"
    seen = gathered(score, model, batches, [name])
    assert torch.equal(seen.values[name], plain.values["0.weight"])


# What can't be done.


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_no_data_is_an_error(score):
    with pytest.raises(PruningError, match="at least one batch with an example, got none"):
        gathered(score, nn.Sequential(nn.Linear(4, 3)), [])


def test_one_example_has_no_correlation():
    with pytest.raises(PruningError, match="at least two examples at layer '0', got 1"):
        gathered(Correlation(), nn.Sequential(nn.Linear(4, 3)), batches_of(normal(1, 4), [1]))


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_examples_one_by_one_are_as_good_as_together(score):
    model, inputs = nn.Sequential(nn.Linear(4, 3)).double(), normal(5, 4, dtype=torch.float64)
    one, all_ = (gathered(score, model, batches_of(inputs, size)) for size in ([1] * 5, [5]))
    torch.testing.assert_close(one.values["0.weight"], all_.values["0.weight"])


class Around(nn.Module):
    """Uses a weight without calling its layer."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        return nn.functional.linear(self.used(inputs), self.unused.weight)


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_a_weight_whose_layer_is_not_called_is_named(score):
    model, batches = Around(), batches_of(normal(6, 4), [6])
    with pytest.raises(PruningError, match=r"layer of 'unused.weight' to be called.*exclude"):
        gathered(score, model, batches)
    assert list(gathered(score, model, batches, ["used.weight"]).values) == ["used.weight"]
    assert not model.used._forward_hooks


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, inputs):
        return self.attention(inputs, inputs, inputs, need_weights=False)[0]


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_the_attention_of_pytorch_is_told_why(score):
    name = "attention.out_proj.weight"
    with pytest.raises(PruningError, match=rf"layer of '{name}' .*nn.MultiheadAttention does"):
        gathered(score, Attending(), batches_of(normal(6, 5, 4), [6]), [name])


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_non_finite_activations_name_the_layer_that_gets_them(score):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    inputs = normal(6, 4)
    inputs[5, 2] = float("inf")
    with pytest.raises(PruningError, match=r"NaN or infinity for '0.weight'"):
        gathered(score, model, batches_of(inputs, [3, 3]))


def test_examples_without_a_place_are_an_error():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, inputs):
            return inputs + self.fc(inputs.mean(dim=0, keepdim=True)).sum()

    with pytest.raises(PruningError, match=r"examples to have a place of their own.*layer 'fc'"):
        gathered(Correlation(), Mixing(), batches_of(normal(6, 4), [6]))


def test_a_layer_with_other_channels_than_it_says_is_refused():
    class Wide(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs[..., :4])

    for score in SCORES:
        with pytest.raises(PruningError, match=r"'0' to take and return.*take 4 channels, got "):
            gathered(score, nn.Sequential(Wide(4, 3)), batches_of(normal(6, 5), [6]))


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.kind)
def test_inputs_that_are_all_zero_leave_nothing_to_choose_by(score):
    with pytest.raises(PruningError, match=r"every surviving weight scores 0.*no weight that"):
        scored(score, nn.Sequential(nn.Linear(4, 3)), batches_of(torch.zeros(6, 4), [6]))
