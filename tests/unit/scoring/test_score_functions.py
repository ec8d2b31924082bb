from __future__ import annotations

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from infcop.core.score import Score
from infcop.errors import PruningError
from infcop.scoring import SCORES, EvidenceKind, needs_data


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def settings_of(kind):
    return TypeAdapter(Score).validate_python(kind)


@pytest.mark.parametrize("kind", SCORES)
def test_scores_say_what_they_need(kind):
    named = SCORES[kind]
    assert named.evidence in get_args(EvidenceKind)
    assert named.summary
    assert "\n" not in named.summary
    without = ("magnitude", "random", "synflow", "movement")
    assert needs_data(settings_of(kind)) == (kind not in without)


@pytest.mark.parametrize("evidence_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SCORES)
def test_scores_are_pure(kind, evidence_dtype):
    weight = torch.nn.Parameter(normal(3, 4, 2))
    evidence = normal(3, 4, 2, seed=1, dtype=evidence_dtype).requires_grad_()
    mask = normal(3, 4, 2, seed=2) < 0
    before = weight.detach().clone(), evidence.detach().clone(), mask.clone()
    score = SCORES[kind].fn(weight, evidence, mask)
    assert (score.shape, score.requires_grad) == (weight.shape, False)
    assert score.is_floating_point()
    score.fill_(7.0)
    for after, kept in zip((weight, evidence, mask), before, strict=True):
        assert torch.equal(after, kept)


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("shape", [(0,), (1,), (2, 3)])
def test_scores_take_any_shape_and_evidence_that_lies_otherwise(kind, shape):
    axes = tuple(reversed(range(len(shape))))
    weight, evidence = (normal(*shape, seed=seed).permute(axes) for seed in (0, 1))
    mask = torch.ones(shape, dtype=torch.bool).permute(axes)
    score = SCORES[kind].fn(weight, evidence, mask)
    again = SCORES[kind].fn(weight.contiguous(), evidence.contiguous(), mask.contiguous())
    assert score.shape == weight.shape
    assert torch.equal(score, again)


@pytest.mark.parametrize("kind", ["snip", "taylor", "grasp", "synflow", "fisher"])
def test_pruned_weights_score_nothing(kind):
    score = SCORES[kind].fn(torch.zeros(3), torch.tensor([1.0, -2.0, 3.0]), torch.zeros(3) > 0)
    assert score.abs().tolist() == [0.0, 0.0, 0.0]


def test_formulas():
    weight, evidence = torch.tensor([2.0, -3.0]), torch.tensor([-0.5, 0.25])
    mask = torch.ones(2, dtype=torch.bool)
    expected = {
        "magnitude": [2.0, 3.0],
        "random": [-0.5, 0.25],
        "snip": [1.0, 0.75],
        "taylor": [1.0, 0.75],
        "grasp": [-1.0, -0.75],
        "synflow": [1.0, 0.75],
        "fisher": [-1.0, 1.125],
        "wanda": [-1.0, 0.75],
        "correlation": [-1.0, 0.75],
        "movement": [-0.5, 0.25],
    }
    found = {kind: named.fn(weight, evidence, mask).tolist() for kind, named in SCORES.items()}
    assert found == expected


def test_the_square_of_a_small_weight_does_not_vanish():
    weight = torch.tensor([1e-25])
    score = SCORES["fisher"].fn(weight, torch.ones(1, dtype=torch.float64), weight > 0)
    assert score.item() == pytest.approx(5e-51)


@pytest.mark.parametrize("kind", [kind for kind in SCORES if kind != "magnitude"])
def test_evidence_has_to_be_there(kind):
    with pytest.raises(PruningError, match=f"score '{kind}': expected evidence.*got none; gather"):
        SCORES[kind].fn(torch.ones(2), None, torch.ones(2) > 0)
