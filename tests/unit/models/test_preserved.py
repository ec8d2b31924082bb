"""A look into a model leaves it as it was, whatever its forward pass does to itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from infcop.errors import ModelError
from infcop.models.preserved import preserved_model


class Ill(nn.Module):
    """A linear layer with buffers, whose forward pass first does something to itself."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 3)
        self.register_buffer("cache", torch.arange(3.0))
        self.register_buffer("gaps", torch.tensor([1.0, float("nan")]))
        self.change = change

    def forward(self, inputs):
        self.change(self)
        return self.fc(inputs)


def look(model, *, copy_parameters=False, fails=False):
    """Run the model inside the context, and end it in an exception where asked to."""

    def run():
        with preserved_model(model, copy_parameters=copy_parameters):
            model(torch.ones(2, 4))
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            run()
    else:
        run()


def state(model):
    """Names, identities, values and the memory of parameters: an optimiser holds on to it."""
    tensors = [
        (name, id(tensor), tensor.shape, tensor.nan_to_num(7.0).tolist())
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]
    return [*tensors, *(parameter.data_ptr() for parameter in model.parameters())]


def buffers(model):
    return [(name, id(b), b.nan_to_num(7.0).tolist()) for name, b in model.named_buffers()]


def rebind_data(model):
    model.fc.weight.data = torch.renorm(model.fc.weight.data, 2, 0, 0.1)


def rebind_data_to_another_shape(model):
    model.fc.bias.data = torch.zeros(1)


def rebind_parameter(model):
    model.fc.weight = nn.Parameter(model.fc.weight.detach() * 2)


def remove_parameter(model):
    model.fc.bias = None


def add_parameter(model):
    model.extra = nn.Parameter(torch.ones(2))


def resize_buffer(model):
    model.cache.resize_(8).fill_(-1)


def write_buffer_with_gaps(model):
    model.gaps.fill_(float("nan"))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("copy_parameters", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        rebind_data,
        rebind_data_to_another_shape,
        rebind_parameter,
        remove_parameter,
        add_parameter,
        resize_buffer,
        write_buffer_with_gaps,
    ],
)
def test_what_the_forward_pass_puts_elsewhere_comes_back(change, copy_parameters, fails):
    model = Ill(change)
    before = state(model)
    order = list(model.state_dict())
    look(model, copy_parameters=copy_parameters, fails=fails)
    assert state(model) == before
    assert list(model.state_dict()) == order


@pytest.mark.parametrize("fails", [False, True])
def test_gradients_still_reach_a_parameter_that_was_rebound(fails):
    model = Ill(rebind_parameter)
    weight = model.fc.weight
    look(model, fails=fails)
    model.change = lambda _model: None
    model(torch.ones(2, 4)).sum().backward()
    assert weight.grad is not None


def scale_data(model):
    model.fc.weight.data.mul_(1.1)


def scale_in_place(model):
    with torch.no_grad():
        model.fc.weight.mul_(1.1)


def move_one_entry(model):
    model.fc.weight.data[1, 2] += 1e-6


@pytest.mark.parametrize("change", [scale_data, scale_in_place, move_one_entry])
def test_a_parameter_written_to_is_named_once_the_rest_is_restored(change):
    def both(model):
        resize_buffer(model)
        change(model)

    model = Ill(both)
    before = buffers(model)
    with pytest.raises(ModelError, match=r"its parameters \['fc.weight'\] while it is evaluated"):
        look(model)
    assert buffers(model) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_parameter_of_any_type_written_to_is_named(dtype):
    model = Ill(scale_data).to(dtype)

    def run():
        with preserved_model(model, copy_parameters=False):
            model(torch.ones(2, 4, dtype=dtype))

    with pytest.raises(ModelError, match=r"\['fc.weight'\]"):
        run()


def test_the_models_own_exception_is_not_hidden_by_a_parameter_written_to():
    model = Ill(scale_data)
    before = buffers(model)
    look(model, fails=True)
    assert buffers(model) == before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("change", [scale_data, scale_in_place, move_one_entry])
def test_copied_parameters_are_written_back(change, fails):
    model = Ill(change)
    before = state(model)
    look(model, copy_parameters=True, fails=fails)
    assert state(model) == before


def test_an_expanded_buffer_that_is_not_finite_hides_no_error():
    """It can't be written to, and need not be: NaN is what was there before."""
    model = Ill(lambda _model: None)
    model.register_buffer("not_finite", torch.full((1,), float("nan")).expand(5))
    before = state(model)
    look(model, fails=True)
    look(model)
    assert state(model) == before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_part_is_given_back_too(fails):
    model = nn.Sequential(nn.Linear(4, 3), torch.jit.script(nn.BatchNorm1d(3)))
    before = model[1].running_mean.clone()
    look(model, fails=fails)
    assert torch.equal(model[1].running_mean, before)
    model(torch.ones(2, 4))
    assert not torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.data.copy_(w.data.roll(1, 0)),
        lambda w: w.data.copy_(w.data.roll(1, 1)),
        lambda w: w.data.neg_(),
        lambda w: w.copy_(w.roll(1, 0)),
    ],
)
def test_exchanged_entries_and_changed_signs_are_told(
    write: Callable[[nn.Parameter], None],
) -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1.0, 2.0], [-2.0, 3.0, -3.0]]))

    def look() -> None:
        with preserved_model(model, copy_parameters=False), torch.no_grad():
            write(model.weight)

    with pytest.raises(ModelError, match=r"\['weight'\] while it is evaluated"):
        look()
