from __future__ import annotations

from typing import get_args

import pytest
import torch

from infcop.core.method import MethodConfig
from infcop.scoring import SCORES
from infcop.scoring.magnitude import magnitude

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitude_is_the_absolute_value(dtype: torch.dtype) -> None:
    weight = torch.tensor([[-1.5, 0.0], [float("-inf"), 2.0]], dtype=dtype)
    score = magnitude(weight, None, torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(score, torch.tensor([[1.5, 0.0], [float("inf"), 2.0]], dtype=dtype))
    assert score.dtype == dtype


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_pure(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4, 2, generator=generator))
    grad = torch.randn(3, 4, 2, generator=generator)
    mask = torch.rand(3, 4, 2, generator=generator) < 0.5
    before = weight.detach().clone(), grad.clone(), mask.clone()
    score = SCORES[name](weight, grad, mask)
    assert (score.shape, score.dtype, score.requires_grad) == (weight.shape, weight.dtype, False)
    score.fill_(7.0)
    assert torch.equal(weight, before[0])
    assert torch.equal(grad, before[1])
    assert torch.equal(mask, before[2])


def test_every_score_a_method_may_name_is_registered() -> None:
    assert set(get_args(MethodConfig.model_fields["score"].annotation)) == set(SCORES)
