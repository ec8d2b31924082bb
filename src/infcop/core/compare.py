"""The settings of a comparison: methods x seeds x settings, and nothing that differs unfairly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from infcop.core.config import (
    DataConfig,
    DenseConfig,
    Density,
    ExecutionConfig,
    FinalConfig,
    LevelsConfig,
    ModelConfig,
    Passes,
    RunConfig,
    TrainingConfig,
)
from infcop.core.method import MethodConfig
from infcop.core.names import did_you_mean
from infcop.core.values import Value

__all__ = ["CompareConfig", "LevelsChange", "StudyMethod", "StudySetting"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class StudySetting(Value):
    """A problem: data, a model, and the recipe that all methods share on it."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    dense: DenseConfig = DenseConfig()
    levels: LevelsConfig = LevelsConfig()
    final: FinalConfig = FinalConfig()
    probe_examples: Annotated[int, Field(ge=2)] | None = 2048
    execution: ExecutionConfig = ExecutionConfig(threads=1)
    """One thread by default: the runs themselves go side by side."""

    @field_validator("execution", mode="before")
    @classmethod
    def _one_thread(cls, value: Any) -> Any:
        return {"threads": 1, **value} if isinstance(value, Mapping) else value


class LevelsChange(Value):
    """How a method reads and stops, where that differs from its setting."""

    unit: Passes | None = None
    min_passes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_passes: Passes | None = None
    evaluate: Literal["readings", "ends"] | None = None


class StudyMethod(Value):
    """A method, and how its runs are laid out."""

    method: MethodConfig
    levels: LevelsChange = LevelsChange()
    equal_cost_to: str | None = None
    """Label of another method: train a fixed budget at every level, as large as makes the levels
    cost what that method's cost on average over the seeds; one run for each density."""
    per_density: bool = False
    """One run for each density, instead of one run that passes through all of them. Methods that
    prune at once, or in the course of one training, have it in any case."""

    @model_validator(mode="before")
    @classmethod
    def _one_recipe(cls, data: Any) -> Any:
        shared = set(RunConfig.model_fields) - set(cls.model_fields)
        own = sorted(shared & set(data)) if isinstance(data, Mapping) else []
        if own:
            raise ValueError(
                f"methods must share one recipe, but this one has its own {' and '.join(own)}. Put "
                "it under settings, or into seeds and densities, where it holds for all methods"
            )
        return data

    @model_validator(mode="after")
    def _equal_cost_decides(self) -> StudyMethod:
        if self.equal_cost_to is None:
            return self
        given = self.levels.model_dump(exclude_none=True, exclude={"evaluate"})
        if given:
            raise ValueError(
                f"levels.{next(iter(given))} has no effect with equal_cost_to, which decides how "
                "long a level trains; leave it out"
            )
        if self.method.schedule.kind == "sap":
            raise ValueError(
                "equal_cost_to needs a schedule whose number of levels is known beforehand, got "
                "'sap'; use 'fraction', 'cubic' or 'one-shot'"
            )
        return self

    @property
    def splits(self) -> bool:
        """Whether each density has a run of its own, because it must or was asked to."""
        no_way_through = (
            self.method.schedule.kind == "one-shot"
            or self.method.rate.kind == "one-run"
            or self.method.regrow is not None
        )
        return self.per_density or self.equal_cost_to is not None or no_way_through


class CompareConfig(Value):
    """Every method on every setting with every seed, down to the same densities."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = (0, 1, 2)
    baseline: str
    """Label of the method that the others are compared with."""
    densities: tuple[Density, ...]
    """In falling order."""
    settings: dict[str, StudySetting]
    methods: dict[str, StudyMethod]

    @field_validator("settings", "methods")
    @classmethod
    def _labels_name_folders(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("expected at least one, got none")
        for label in value:
            if not _LABEL.fullmatch(label):
                raise ValueError(
                    f"got the label {label!r}; expected letters, digits and . _ + -, beginning "
                    "with a letter or a digit: labels name folders"
                )
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("expected at least one seed, got none")
        if twice := sorted({seed for seed in value if value.count(seed) > 1}):
            raise ValueError(
                f"expected different seeds, got {_listed(twice)} more than once: a repeated run "
                "says nothing new"
            )
        return value

    @field_validator("densities")
    @classmethod
    def _densities_fall(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("expected at least one density, got none")
        if any(here <= after for here, after in pairwise((1.0, *value))):
            raise ValueError(
                f"expected densities that fall from below 1, got {_listed(value)}; sort them, "
                "the largest first"
            )
        return value

    @model_validator(mode="after")
    def _methods_are_known(self) -> CompareConfig:
        if self.baseline not in self.methods:
            raise ValueError(
                f"baseline: got '{self.baseline}'; {did_you_mean(self.baseline, self.methods)}"
            )
        for label, method in self.methods.items():
            if method.equal_cost_to is not None:
                self._check_target(f"methods.{label}.equal_cost_to", label, method.equal_cost_to)
        return self

    def _check_target(self, key: str, label: str, target: str) -> None:
        others = [name for name in self.methods if name != label]
        if target not in others:
            raise ValueError(
                f"{key}: got '{target}', expected another method; {did_you_mean(target, others)}"
            )
        if self.methods[target].equal_cost_to is not None:
            raise ValueError(
                f"{key}: got '{target}', which has equal_cost_to itself; name the method whose "
                f"cost both shall have: '{self.methods[target].equal_cost_to}'"
            )


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
