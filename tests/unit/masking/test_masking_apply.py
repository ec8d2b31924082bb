from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.errors import PruningError
from infcop.masking import apply
from infcop.masking.apply import MaskEnforcer
from tests.reference import pruning

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
INF, NAN = float("inf"), float("nan")


def is_plus_zero(values: Tensor) -> bool:
    return bool((values == 0).all()) and not bool(values.signbit().any())


def parameter(values: Tensor) -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(values)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_pruned_entries_become_plus_zero_whatever_they_were(dtype: torch.dtype) -> None:
    values = torch.tensor([-1.0, 2.0, NAN, INF, -INF, -0.0, 0.5], dtype=dtype)
    for kept in (values.isfinite() & (values > 0), torch.zeros(7, dtype=torch.bool)):
        parameters = parameter(values.clone())
        enforcer = MaskEnforcer(parameters, Masks({"w": kept}))
        enforcer.apply()
        assert torch.equal(parameters["w"].detach(), pruning.masked(values, kept))
        assert is_plus_zero(parameters["w"].detach()[~kept])
        enforcer.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_entries_keep_every_bit(dtype: torch.dtype) -> None:
    values = torch.tensor([-0.0, NAN, -INF, 1.1, -1e-7], dtype=dtype)
    parameters = parameter(values.clone())
    MaskEnforcer(parameters, Masks.full({"w": (5,)})).apply()
    assert torch.equal(parameters["w"].detach().view(torch.int8), values.view(torch.int8))


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (4, 3, 2, 2)])
def test_any_shape_and_memory_layout(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.5
    layouts = [values.clone()]
    if len(shape) == 2:
        layouts.append(values.t().contiguous().t())
    if len(shape) == 4:
        layouts.append(values.contiguous(memory_format=torch.channels_last))
    for laid_out in layouts:
        parameters = parameter(laid_out.clone())
        MaskEnforcer(parameters, Masks({"w": mask})).apply()
        assert torch.equal(parameters["w"].detach(), pruning.masked(values, mask))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (7, 4), (3, 2, 3, 3)])
def test_large_weights_are_masked_in_pieces(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "_PIECE", 8)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.5
    for layout in (values, values.transpose(0, 1).contiguous().transpose(0, 1)):
        parameters = parameter(layout.clone())
        parameters["w"].grad = layout.clone().contiguous()
        enforcer = MaskEnforcer(parameters, Masks({"w": mask}))
        enforcer.apply()
        enforcer.mask_gradients()
        assert torch.equal(parameters["w"].detach(), pruning.masked(values, mask))
        assert torch.equal(parameters["w"].grad, pruning.masked(values, mask))


def test_gradients_are_masked_even_where_they_are_not_finite() -> None:
    parameters = parameter(torch.ones(4))
    parameters["w"].grad = torch.tensor([NAN, -2.0, INF, 3.0])
    mask = torch.tensor([False, False, False, True])
    MaskEnforcer(parameters, Masks({"w": mask})).mask_gradients()
    assert parameters["w"].grad.tolist() == [0.0, 0.0, 0.0, 3.0]
    assert is_plus_zero(parameters["w"].grad[:3])
    assert parameters["w"].detach().tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_missing_gradient_is_passed_over_and_a_sparse_one_refused() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    enforcer = MaskEnforcer(dict(embedding.named_parameters()), Masks.full({"weight": (4, 2)}))
    enforcer.mask_gradients()
    assert embedding.weight.grad is None
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(PruningError, match=r"dense gradient of 'weight'.*sparse=False"):
        enforcer.mask_gradients()


def test_a_gradient_of_another_layout_is_masked() -> None:
    parameters = parameter(torch.ones(2, 3))
    parameters["w"].grad = torch.ones(3, 2).t()
    mask = torch.tensor([[True, False, True], [False, False, True]])
    MaskEnforcer(parameters, Masks({"w": mask})).mask_gradients()
    assert torch.equal(parameters["w"].grad, mask.float())


def test_check_finds_revived_weights() -> None:
    parameters = parameter(torch.ones(3))
    enforcer = MaskEnforcer(parameters, Masks({"w": torch.tensor([True, False, False])}))
    with pytest.raises(PruningError, match=r"'w' to be zero, but 2 are not"):
        enforcer.check()
    enforcer.apply()
    enforcer.check()
    with torch.no_grad():
        parameters["w"][1] = NAN
    with pytest.raises(PruningError, match="1 are not"):
        enforcer.check()


def test_memory_given_to_a_parameter_later_is_masked_too() -> None:
    layer = nn.Linear(2, 1, bias=False)
    masks = Masks({"weight": torch.tensor([[True, False]])})
    enforcer = MaskEnforcer(dict(layer.named_parameters()), masks)
    layer.weight.data = torch.tensor([[5.0, 6.0]])
    enforcer.apply()
    assert layer.weight.tolist() == [[5.0, 0.0]]


def test_autograd_notices_that_weights_were_written() -> None:
    weight = nn.Parameter(torch.ones(2))
    loss = (weight**2).sum()
    MaskEnforcer({"w": weight}, Masks({"w": torch.tensor([True, False])})).apply()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nothing_is_left_on_the_model() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    weight = model[0].weight
    enforcer = MaskEnforcer(
        dict(model.named_parameters()), Masks({"0.weight": torch.zeros(2, 3, dtype=torch.bool)})
    )
    enforcer.apply()
    enforcer.mask_gradients()
    assert model[0].weight is weight
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in model.modules() for kind in hooks)
    assert not weight._backward_hooks
    assert not weight._post_accumulate_grad_hooks


def test_masks_must_fit_the_parameters() -> None:
    parameters = dict(nn.Linear(3, 2).named_parameters())
    with pytest.raises(PruningError, match=r"parameter 'wieght'.*did you mean 'weight'"):
        MaskEnforcer(parameters, Masks.full({"wieght": (2, 3)}))
    with pytest.raises(PruningError, match=r"mask of shape \(2, 3\) for 'weight', got \(3, 2\)"):
        MaskEnforcer(parameters, Masks.full({"weight": (3, 2)}))
