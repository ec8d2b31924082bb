from __future__ import annotations

import pytest
import torch

from infcop.core.mask import Masks
from infcop.core.score import Magnitude, Movement, RandomScore, Snip, Taylor, Wanda
from infcop.errors import PruningError
from infcop.scoring.gather import score_all

FULL = Masks.full({"a": (2, 2), "b": (3,)})


def weights():
    return {"a": torch.tensor([[1.0, -2.0], [3.0, 0.0]]), "b": torch.tensor([-1.0, 2.0, 4.0])}


def ones():
    return {"a": torch.ones(2, 2), "b": torch.ones(3)}


def test_every_layer_is_scored_by_itself():
    scores = score_all(Taylor(), weights(), ones(), FULL)
    assert list(scores) == ["a", "b"]
    assert scores["a"].tolist() == [[1, 2], [3, 0]]
    assert score_all(Magnitude(), weights(), {}, FULL)["b"].tolist() == [1, 2, 4]


def test_snip_is_normalised_over_all_layers():
    scores = score_all(Snip(), weights(), ones(), FULL)
    assert scores["a"].tolist() == [
        [pytest.approx(n / 13) for n in row] for row in ([1, 2], [3, 0])
    ]
    assert scores["b"].tolist() == [pytest.approx(n / 13) for n in (1, 2, 4)]


def test_pruned_entries_have_no_part_in_the_sum():
    masks = Masks({"a": torch.ones(2, 2) > 0, "b": torch.tensor([True, False, False])})
    scores = score_all(Snip(), weights(), ones(), masks)
    assert scores["b"][0].item() == pytest.approx(1 / 7)


def test_scores_keep_no_hold_of_weights_or_evidence():
    given, evidence = weights(), ones()
    for score in (Magnitude(), RandomScore(), Snip(), Wanda(), Movement()):
        for values in score_all(score, given, evidence, FULL).values():
            values.fill_(7.0)
    assert torch.equal(given["b"], weights()["b"])
    assert torch.equal(evidence["a"], torch.ones(2, 2))


def test_evidence_is_broadcast():
    scores = score_all(
        Wanda(), weights(), {"a": torch.tensor([[2.0, 3.0]]), "b": torch.ones(1)}, FULL
    )
    assert scores["a"].tolist() == [[2, 6], [6, 0]]


def test_layers_without_entries_take_part():
    masks = Masks.full({"a": (0,), "b": (3,)})
    given = {"a": torch.zeros(0), "b": weights()["b"]}
    scores = score_all(Snip(), given, {"a": torch.zeros(0), "b": torch.ones(3)}, masks)
    assert scores["a"].shape == (0,)
    assert float(scores["b"].sum()) == pytest.approx(1)


@pytest.mark.parametrize("score", [Magnitude(), Snip()])
def test_of_no_layers_there_are_no_scores(score):
    assert score_all(score, {}, {}, Masks({})) == {}


@pytest.mark.parametrize("score", [Snip(), Taylor(), Wanda(), Movement()])
def test_what_was_pruned_is_no_reason_to_choose(score):
    masks = Masks({"a": torch.zeros(2, 2) > 0, "b": torch.tensor([True, False, False])})
    evidence = {"a": torch.ones(2, 2), "b": torch.tensor([0.0, 1.0, 1.0])}
    with pytest.raises(PruningError, match="every surviving weight scores 0"):
        score_all(score, weights(), evidence, masks)


@pytest.mark.parametrize("score", [Snip(), Taylor(), Wanda(), Movement()])
def test_nothing_but_zeros_is_an_error(score):
    zeros = {name: torch.zeros_like(value) for name, value in ones().items()}
    with pytest.raises(
        PruningError, match=f"score '{score.kind}': every surviving weight scores 0"
    ):
        score_all(score, weights(), zeros, FULL)


def test_zeros_of_magnitude_and_noise_are_as_good_as_other_numbers():
    zeros = {name: torch.zeros_like(value) for name, value in ones().items()}
    for score in (Magnitude(), RandomScore()):
        assert score_all(score, zeros, zeros, FULL)["b"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_told_by_snip(value):
    given = weights()
    given["b"][1] = value
    with pytest.raises(PruningError, match="expected finite scores, got NaN or infinity in 'b'"):
        score_all(Snip(), given, ones(), FULL)


@pytest.mark.parametrize(
    ("evidence", "got"),
    [
        ({"a": torch.ones(2, 2)}, "evidence for 'b'.*got none"),
        (
            {"a": torch.ones(2, 2), "b": torch.ones(2)},
            r"evidence for 'b'.*to \(3,\), got shape \(2",
        ),
        ({"a": torch.ones(1, 2, 2), "b": torch.ones(3)}, r"evidence for 'a'.*\(1, 2, 2\)"),
    ],
)
def test_evidence_has_to_fit(evidence, got):
    with pytest.raises(PruningError, match=got):
        score_all(Taylor(), weights(), evidence, FULL)


def test_masks_have_to_fit():
    for shapes, got in (
        ({"a": (2, 2)}, "got none"),
        ({"a": (2, 2), "b": (4,)}, r"got shape \(4,\)"),
    ):
        with pytest.raises(PruningError, match=rf"mask of shape \(3,\) for 'b', {got}"):
            score_all(Magnitude(), weights(), {}, Masks.full(shapes))
