"""Collapse without folding: the smaller network trains as the masked one does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from infcop.collapse import Compact, compact
from infcop.errors import CollapseError
from tests.reference.collapse import Net, agrees, only, without
from tests.reference.collapse_graphs import mlp


def unfolded(model: nn.Module, masks: dict[str, Tensor], *shape: int) -> Compact:
    model = model.double().eval()
    inputs = torch.randn(shape, dtype=torch.float64)
    small = compact(model, masks, (inputs,), fold=False)
    assert agrees(model, masks, small, torch.randn(shape, dtype=torch.float64))
    assert not small.folded
    assert not small.new_biases
    return small


def test_a_constant_stays_and_what_nothing_reads_goes() -> None:
    masks = {"0.weight": without((4, 2), 0, 1), "2.weight": without((1, 4), 1, 3)}
    small = unfolded(mlp([2, 4, 1], nn.Sigmoid), masks, 6, 2)
    assert small.kept["0.weight"][0].tolist() == [0, 1, 2]
    assert small.report.verified[-1].endswith(
        "random inputs of the same kind in float64, in training mode"
    )


def test_a_unit_that_is_zero_goes_if_no_training_changes_that() -> None:
    masks = {"0.weight": without((4, 2), 0, 1)}
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Tanh(), nn.Linear(4, 1))
    assert unfolded(model, masks, 6, 2).model[0].out_features == 3
    model = mlp([2, 4, 1], nn.Tanh)
    nn.init.zeros_(model[0].bias)
    assert unfolded(model, masks, 6, 2).model[0].out_features == 4, "its bias may grow"
    model[0].bias.requires_grad_(False)
    assert unfolded(model, masks, 6, 2).model[0].out_features == 3
    model[0].bias.requires_grad_(True)
    masks["0.bias"] = torch.tensor([True, False, True, True])
    assert unfolded(model, masks, 6, 2).model[0].out_features == 3


@pytest.mark.parametrize("affine", [True, False])
def test_a_normalised_channel_stays(affine: bool) -> None:
    """What is zero in evaluation mode may have a statistic or a bias that moves."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, affine=affine), nn.ReLU()),
        nn.Conv2d(4, 2, 1),
    )
    masks = {"0.weight": only((4, 1, 3, 3), (0, 0, 1, 1), (2, 0, 0, 0))}
    assert unfolded(model, masks, 4, 1, 6, 6).model[3].in_channels == 4
    masks["3.weight"] = without((2, 4, 1, 1), 1, 1)
    small = unfolded(model, masks, 4, 1, 6, 6)
    assert small.kept["1.running_mean"][0].tolist() == [0, 2, 3]


def test_zeros_by_chance_may_grow() -> None:
    """A gate that starts from zero, a row of a table, a slope."""
    for forward in (
        lambda n, x: n.b(n.a(x) * n.each),
        lambda n, x: n.b(n.a(x) + n.each),
        lambda n, x: n.b(functional.prelu(n.a(x) - 9, n.each)),
        lambda n, x: n.b(n.a(x).matmul(torch.diag(n.each)).tanh()),
    ):
        net = Net(forward, a=nn.Linear(2, 4), b=nn.Linear(4, 1))
        net.each = nn.Parameter(torch.zeros(4))
        masks = {"a.weight": without((4, 2), 0, 1)}
        assert unfolded(net, masks, 6, 2).model.a.out_features == 4


class Dropping(nn.Module):
    """Dropout, and a branch that is there in training alone."""

    def __init__(self, dropout: nn.Module, functional_too: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(4, 1), nn.Linear(4, 1)
        self.dropout, self.functional_too = dropout, functional_too

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.dropout(self.a(x).sigmoid())
        if self.functional_too:
            x = functional.dropout(x, 0.5, self.training)
        return (self.b(x), self.c(x)) if self.training else (self.b(x),)


INPUTS = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_layers_of_dropout_are_turned_off_to_compare() -> None:
    dropout = nn.Dropout(0.3)
    model = nn.Sequential(nn.Linear(2, 4), dropout, nn.Linear(4, 1))
    small = unfolded(model, {"2.weight": without((1, 4), 1, 1)}, 6, 2)
    assert small.model[0].out_features == 3
    assert small.report.verified[-1].endswith(
        "random inputs of the same kind in float64, without dropout, in training mode"
    )
    assert small.model[1].p == dropout.p == 0.3


@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_what_differs_in_training_is_found_beside_dropout(kind: type[nn.Module]) -> None:
    """In training mode it divides by how many units there are."""
    net = Net(
        lambda n, x: n.b(n.dropout(n.a(x))) / (n.b.in_features if n.training else 1),
        **{"a": nn.Linear(2, 4), "dropout": kind(0.5), "b": nn.Linear(4, 1)},
    )
    small = unfolded(net, {"b.weight": without((1, 4), 1, 1)}, 6, 2)
    assert small.model.a.out_features == 4


def test_dropout_within_attention_and_recurrent_layers_is_turned_off() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(4, 1)).double()
    masks = {"0.linear2.weight": without((4, 8), 1, 3, 5)}
    inputs = torch.randn(2, 3, 4, dtype=torch.float64)
    small = compact(model, masks, (inputs,), fold=False)
    assert small.model[0].linear1.out_features == 6
    assert small.report.verified[-1].endswith("without dropout, in training mode")
    assert small.model[0].self_attn.dropout == 0.2
    net = Net(lambda n, x: n.b(n.lstm(x)[0]), lstm=nn.LSTM(4, 3, 2, dropout=0.2), b=nn.Linear(3, 1))
    recurrent = compact(net.double(), {}, (inputs,), fold=False)
    assert recurrent.report.verified[-1].endswith("without dropout, in training mode")


@pytest.mark.parametrize("dropout", [nn.Identity(), nn.Dropout()])
@pytest.mark.parametrize("functional_too", [False, True])
def test_what_only_training_reads_stays(dropout: nn.Module, functional_too: bool) -> None:
    """Also where random numbers stand in the way of a comparison: it would not run."""
    model = Dropping(dropout, functional_too).double()
    small = compact(model, {"b.weight": without((1, 4), 1, 1)}, (INPUTS,), fold=False)
    assert small.model.a.out_features == 4
    first, second = small.model.train()(INPUTS)
    assert first.shape == second.shape == (6, 1)
    assert small.report.verified[-1].endswith("in training mode") is not functional_too


def test_random_numbers_that_can_not_be_turned_off_are_not_compared() -> None:
    net = Net(
        lambda n, x: n.b(functional.dropout(n.a(x), 0.5, n.training)),
        **{"a": nn.Linear(2, 4), "b": nn.Linear(4, 1)},
    )
    small = unfolded(net, {"b.weight": without((1, 4), 1, 1)}, 6, 2)
    assert small.model.a.out_features == 3
    said = (
        "not in training mode, where the network draws random numbers; the smaller network runs "
        "there"
    )
    assert small.report.verified[-1] == said
    assert str(small.report).splitlines()[-1] == said


def test_outputs_that_are_not_finite_in_training_are_not_compared() -> None:
    net = Net(
        lambda n, x: n.b(n.a(x)) / (0 if n.training else 1),
        **{"a": nn.Linear(2, 4), "b": nn.Linear(4, 1)},
    )
    small = unfolded(net, {"b.weight": without((1, 4), 1, 1)}, 6, 2)
    assert small.report.verified[-1] == (
        "not in training mode, where the outputs are not finite; the smaller network runs there"
    )


@pytest.mark.parametrize("dropout", [nn.Identity(), nn.Dropout()])
def test_what_was_folded_says_that_it_does_not_train(dropout: nn.Module) -> None:
    model = Dropping(dropout).double()
    before = torch.get_rng_state()
    small = compact(model, {"b.weight": without((1, 4), 1, 1)}, (INPUTS,))
    assert torch.equal(torch.get_rng_state(), before)
    assert small.model.a.out_features == 3
    assert small.report.verified[-1] == (
        "not in training mode, where the smaller network fails and the masked one runs: mat1 and "
        "mat2 shapes cannot be multiplied (6x3 and 4x1); use it in evaluation mode, or pass "
        "fold=False"
    )
    assert small.report.verified[-1] in str(small.report).splitlines()


def test_what_does_not_train_before_is_not_blamed_for_it() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    small = compact(model, {"2.weight": without((1, 4), 1, 1)}, (torch.randn(1, 2),))
    assert small.model[0].out_features == 3
    assert not any("training" in one for one in small.report.verified)


def test_statistics_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    for fold in (True, False):
        small = compact(model, {"2.weight": without((1, 4), 1, 1)}, (INPUTS,), fold=fold)
        assert int(small.model[1].num_batches_tracked) == int(model[1].num_batches_tracked) == 0
        assert small.model[1].running_mean.tolist() == [0, 0, 0]


@pytest.mark.parametrize("when", ["always", "in training", "in evaluation"])
def test_calls_that_are_counted_are_no_difference(when: str) -> None:
    """Both networks start to count from the same number."""

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 1)
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).relu()
            if when == "always" or (when == "in training") is self.training:
                self.calls += 1
                self.mean.mul_(0.9).add_(x.detach().mean(0))
            return self.b(x)

    small = compact(Counted(), {"b.weight": without((1, 4), 1, 1)}, (INPUTS.float(),), fold=False)
    assert small.report.verified[-1].endswith("in training mode")
    assert int(small.model.calls) == 0
    assert not small.model.mean.any()
    small.model(INPUTS.float())


def test_what_does_not_run_in_training_is_not_compared() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    small = unfolded(model, {"2.weight": without((1, 4), 1, 1)}, 1, 2)
    assert small.report.verified[-1].startswith(
        "not in training mode, where the network fails: Expected more than 1 value per channel"
    )


def test_what_differs_in_training_is_not_returned() -> None:
    """In training mode it divides by how many units there are."""

    class Divided(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / (self.in_features if self.training else 1)

    model = nn.Sequential(nn.Linear(2, 4), Divided(4, 1))
    masks = {"1.weight": without((1, 4), 1, 1)}
    assert unfolded(model, masks, 6, 2).model[0].out_features == 4
    folded = compact(model, masks, (torch.randn(6, 2, dtype=torch.float64),))
    assert folded.model[0].out_features == 3, "evaluation mode was asked for"


def test_the_masked_network_itself_has_to_run() -> None:
    with pytest.raises(CollapseError, match="runs forwards and backwards on example_inputs"):
        compact(mlp([2, 3, 1]), {}, (torch.zeros(2, 5),), fold=False)


def test_masks_are_cut_like_the_parameters() -> None:
    masks = {"0.weight": only((4, 2), (0, 0), (2, 1)), "2.weight": without((1, 4), 1, 2)}
    small = compact(mlp([2, 4, 1], nn.Sigmoid), masks, (torch.randn(6, 2),), fold=False)
    assert small.kept["0.weight"][0].tolist() == [0, 1, 3]
    assert small.masks["0.weight"].tolist() == [[True, False], [False, False], [False, False]]
    assert small.masks["2.weight"].tolist() == [[True, True, True]]
    assert list(small.masks) == ["0.weight", "2.weight"]
