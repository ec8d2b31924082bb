from __future__ import annotations

import pytest
import torch

from infcop.scoring.magnitude import magnitude

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitude_is_the_absolute_value(dtype: torch.dtype) -> None:
    weight = torch.tensor([[-1.5, 0.0], [float("-inf"), 2.0]], dtype=dtype)
    score = magnitude(weight, None, torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(score, torch.tensor([[1.5, 0.0], [float("inf"), 2.0]], dtype=dtype))
    assert score.dtype == dtype
