from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from infcop.core.config import (
    DenseConfig,
    LevelsConfig,
    RunConfig,
    SearchConfig,
    TrainingConfig,
)
from infcop.core.method import (
    Adaptive,
    AnyOf,
    AtLeast,
    FixedBudget,
    Fraction,
    InformationFlow,
    MatrixFlow,
    MethodConfig,
    OneShot,
    Plateau,
    Rewind,
    ShockBudget,
)

METHOD = MethodConfig(
    name="mine",
    schedule=Adaptive(p=1, q=2),
    rewind=Rewind(to="epoch", passes=2),
    stop=AnyOf(rules=(InformationFlow(epsilon=0.1), AtLeast(passes=2, of=Plateau()))),
)


def test_settings_survive_json() -> None:
    config = RunConfig(method=METHOD, training=TrainingConfig(milestones=(0.2, 0.4)))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_settings_are_frozen() -> None:
    config = SearchConfig(method=METHOD)
    with pytest.raises(ValidationError, match="frozen"):
        config.density = 0.5
    with pytest.raises(ValidationError, match="frozen"):
        config.training.lr = 0.5


def test_two_configs_share_no_mutable_default() -> None:
    first, second = (RunConfig(method=METHOD) for _ in range(2))
    first.model.options["width"] = 2
    assert second.model.options == {}
    assert RunConfig(method=METHOD).model.options == {}


@pytest.mark.parametrize(("passes", "given", "warmup"), [(8, None, 8), (8, 3, 3), (8, 8, 8)])
def test_the_warmup_ends_with_the_dense_training_unless_told(passes, given, warmup) -> None:
    assert DenseConfig(passes=passes, warmup_passes=given).warmup == warmup


@pytest.mark.parametrize(("final", "passes"), [({}, 6), ({"passes": 0}, 0), ({"passes": 9}, 9)])
def test_the_final_training_is_as_long_as_the_dense_one_unless_told(final, passes) -> None:
    config = SearchConfig(method=METHOD, dense=DenseConfig(passes=6), final=final)
    assert config.final_passes == passes


def test_boundaries_belong_to_the_range() -> None:
    LevelsConfig(min_passes=8, max_passes=8)
    DenseConfig(passes=1, warmup_passes=1)
    SearchConfig(method=METHOD, dense=DenseConfig(passes=2), density=1)
    SearchConfig(method=METHOD, probe_examples=2, seed=2**63 - 1)


@pytest.mark.parametrize(
    ("stop", "levels", "least"),
    [
        (FixedBudget(), {}, 1.0),
        (Plateau(), {"max_passes": 0.5}, 0.5),
        (ShockBudget(), {}, 0.0),
        (AnyOf(rules=(Plateau(), AtLeast(passes=1, of=MatrixFlow(kappa=1)))), {}, 0.0),
        (ShockBudget(), {"min_passes": 2}, 2.0),
        (FixedBudget(), {"min_passes": 0}, 0.0),
    ],
)
def test_a_level_may_end_untrained_if_its_rule_judges_pruning(stop, levels, least) -> None:
    config = SearchConfig(method=MethodConfig(name="mine", stop=stop), levels=levels)
    assert config.min_passes == least


def test_rewinding_past_the_dense_training_is_refused_for_an_epoch_only() -> None:
    short = DenseConfig(passes=1)
    with pytest.raises(ValidationError, match="no such place"):
        SearchConfig(method=METHOD, dense=short)
    other = METHOD.model_copy(update={"rewind": Rewind(to="warm-up", passes=5)})
    assert SearchConfig(method=other, dense=short).method.rewind.passes == 5


def test_one_level_ends_at_no_milestone() -> None:
    straight = MethodConfig(name="mine", schedule=OneShot())
    with pytest.raises(ValidationError, match=r"'one-shot' .* can't end at milestones"):
        SearchConfig(method=straight, milestones=(0.5,))
    assert SearchConfig(method=straight).milestones == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize("field", ["max_passes", "unit"])
def test_passes_are_positive_and_finite(field, value) -> None:
    with pytest.raises(ValidationError):
        LevelsConfig(**{field: value, "min_passes": 0})


def test_axes_default_to_what_the_class_says() -> None:
    method = MethodConfig(name="plain")
    assert method.schedule == Fraction(remove=0.2)
    assert method.stop == FixedBudget(passes=None)
    assert method.rewind.to == "initialisation"
    assert (method.scope, method.score.kind, method.reference) == ("global", "magnitude", "warm-up")


def test_nested_rules_find_their_class_by_name() -> None:
    text = METHOD.model_dump_json()
    again = MethodConfig.model_validate_json(text)
    assert isinstance(again.stop, AnyOf)
    assert [type(rule) for rule in again.stop.rules] == [InformationFlow, AtLeast]
    assert isinstance(again.stop.rules[1].of, Plateau)


@pytest.mark.parametrize("to", ["none", "learning-rate"])
def test_a_part_comes_back_only_where_something_does(to) -> None:
    with pytest.raises(ValidationError, match=f"needs a place to go back to, got to '{to}'"):
        Rewind(to=to, restores="prunable-weights")
    assert Rewind(to=to).restores == "everything"
    assert Rewind(to="warm-up", restores="prunable-weights").to == "warm-up"
