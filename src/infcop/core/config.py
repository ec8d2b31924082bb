"""Every setting of a search: frozen, validated on creation, each default stated once here."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from infcop.core.method import Cubic, FixedBudget, Linear, MethodConfig, judges_pruning
from infcop.core.pattern import NofM
from infcop.core.rate import LrSchedule
from infcop.core.start import EarlyBird
from infcop.core.values import Value

__all__ = [
    "DataConfig",
    "DenseConfig",
    "ExecutionConfig",
    "FinalConfig",
    "LevelsConfig",
    "ModelConfig",
    "RunConfig",
    "SearchConfig",
    "TrainingConfig",
]

Passes = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Density = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class TrainingConfig(Value):
    """The recipe that every phase of a run shares."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum; AdamW's first beta."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    schedule: LrSchedule = "constant"
    """Of the dense training; levels follow it from the place that the rewind restores."""
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    """Where ``step`` divides the learning rate, as fractions of the phase."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    lr_end_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    """What ``cosine`` and ``one-cycle`` end at, as a fraction of ``lr``."""
    lr_warmup_passes: Annotated[float, Field(ge=0)] = 0.0
    """Linear learning-rate warm-up at the start of a schedule."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient of all parameters together; none by default."""


class DenseConfig(Value):
    """Level 0: training the dense network."""

    passes: Annotated[int, Field(ge=1)] = 8
    warmup_passes: Annotated[int, Field(ge=1)] | None = None
    """Where ``warm-up`` lies; by default at the end of the dense training, as published."""

    @model_validator(mode="after")
    def _warmup_inside(self) -> DenseConfig:
        if self.warmup_passes is not None and self.warmup_passes > self.passes:
            raise ValueError(
                f"warmup_passes ({self.warmup_passes}) must not exceed passes ({self.passes})"
            )
        return self

    @property
    def warmup(self) -> int:
        """Passes after which the dense network counts as warmed up."""
        return self.passes if self.warmup_passes is None else self.warmup_passes


class LevelsConfig(Value):
    """How long a level may train and how often it is read."""

    max_passes: Passes = 8.0
    """The full budget of one level: what a rule that never stops would spend."""
    min_passes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Below this no rule may stop a level; 0 lets a level end without any training. By default 0
    for rules that judge what pruning did, else 1, or ``max_passes`` if that is less."""
    unit: Passes = 1.0
    """Passes between two readings; may be a fraction."""
    evaluate: Literal["readings", "ends"] = "readings"
    """Held-out metrics at every reading, or only at the end of a phase and where the stop rule
    compares them; they cost a forward pass over the held-out split each time."""
    max_levels: Annotated[int, Field(ge=1)] = 100
    """A guard for adaptive schedules that remove ever less."""
    collapse: bool = False
    """Train without the units that have become useless, in levels and in the final training."""

    @model_validator(mode="after")
    def _ordered(self) -> LevelsConfig:
        if self.min_passes is not None and self.min_passes > self.max_passes:
            raise ValueError(
                f"min_passes ({self.min_passes:g}) must not exceed max_passes ({self.max_passes:g})"
            )
        return self


class FinalConfig(Value):
    """Training of the sparse network after the last level."""

    passes: Annotated[int, Field(ge=0)] | None = None
    """By default as many as the dense training; 0 keeps the network as the last level left it."""
    schedule: LrSchedule = "cosine"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """By default that of the training recipe."""


class ExecutionConfig(Value):
    """Where and how exactly the computing is done."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; by default what PyTorch chooses. Bit-identical repeats need the same number."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0
    """Least time between two checkpoints inside a phase; the end of a phase is always saved."""


class SearchConfig(Value):
    """Everything that decides a search, but for the model and the data."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    density: Density = 0.05
    """Fraction to keep, in (0, 1]."""
    density_in: Literal["parameters", "flops", "latency"] = "parameters"
    """Of what ``density`` is a fraction: of the prunable entries, of the multiply-adds of a forward
    pass, or of its measured time. The last two are for channels that can be removed for good."""
    milestones: tuple[Density, ...] = ()
    """Larger densities, in falling order, at which a sparse network is trained to the end too: one
    search then gives several. Levels end exactly there."""
    method: MethodConfig
    training: TrainingConfig = TrainingConfig()
    dense: DenseConfig = DenseConfig()
    levels: LevelsConfig = LevelsConfig()
    final: FinalConfig = FinalConfig()
    probe_examples: Annotated[int, Field(ge=2)] | None = 2048
    """Flow is read on a fixed, seeded subset of this many training examples; none means all."""
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _rewind_inside_dense(self) -> SearchConfig:
        place = self.method.rewind.passes
        if self.method.rewind.to == "epoch" and place > self.dense.passes:
            raise ValueError(
                f"method.rewind.passes ({place:g}) must not exceed dense.passes "
                f"({self.dense.passes}): there is no such place in the dense training"
            )
        return self

    @model_validator(mode="after")
    def _milestones_fall(self) -> SearchConfig:
        steps = (1.0, *self.milestones, self.density)
        if self.milestones and any(here <= after for here, after in pairwise(steps)):
            raise ValueError(
                f"milestones must fall from below 1 to above density ({self.density:g}), got "
                f"{', '.join(f'{m:g}' for m in self.milestones)}"
            )
        return self

    @model_validator(mode="after")
    def _size_can_be_had(self) -> SearchConfig:
        if self.density_in == "parameters":
            return self
        what = f"density_in '{self.density_in}'"
        pattern = self.method.pattern.kind
        if pattern != "coupled-channels":
            raise ValueError(
                f"{what} needs method.pattern 'coupled-channels', got '{pattern}': a network does "
                "not compute less, or faster, for zeros that can't be removed"
            )
        if self.method.schedule.kind == "sap":
            raise ValueError(
                f"{what} needs a schedule that counts, but 'sap' removes what the weights "
                "tell it to; use 'fraction', 'cubic', 'linear', 'list' or 'one-shot'"
            )
        if self.milestones:
            raise ValueError(
                f"{what}: milestones are densities in parameters; leave them out and make one "
                "search for each density"
            )
        if self.density_in == "latency" and self.method.start.kind == "early-bird":
            raise ValueError(
                f"{what}: start 'early-bird' draws a mask after each pass, which would have to be "
                "timed every time; use another start, or density_in 'flops'"
            )
        return self

    @model_validator(mode="after")
    def _collapse_fits(self) -> SearchConfig:
        if self.levels.collapse and self.method.regrow is not None:
            raise ValueError(
                "levels.collapse removes units for good, but method.regrow may bring them back; "
                "leave one of them out"
            )
        if self.levels.collapse and self.method.flow.source == "training":
            raise ValueError(
                "levels.collapse needs method.flow.source 'probe', got 'training': flow is read of "
                "the whole network, but a smaller one is trained"
            )
        return self

    @model_validator(mode="after")
    def _schedule_can_end(self) -> SearchConfig:
        schedule, most = self.method.schedule, self.levels.max_levels
        if isinstance(schedule, Cubic | Linear) and schedule.levels > most:
            raise ValueError(
                f"method.schedule.levels ({schedule.levels}) must not exceed levels.max_levels "
                f"({most}): the search would end above its density"
            )
        pattern = self.method.pattern
        if isinstance(pattern, NofM):
            parts = [milestone * pattern.m for milestone in self.milestones]
            if any(abs(part - round(part)) > 1e-9 for part in parts):
                raise ValueError(
                    f"milestones: pattern {pattern.n}:{pattern.m} goes through multiples of "
                    f"1/{pattern.m}, got {', '.join(f'{m:g}' for m in self.milestones)}; choose "
                    "some of these, or none"
                )
        if schedule.kind == "one-shot" and self.milestones:
            raise ValueError(
                "schedule 'one-shot' goes to the density in one level: it can't end at milestones "
                "on the way; leave them out and make one search for each density"
            )
        if self.method.regrow is not None and self.milestones:
            raise ValueError(
                "method.regrow changes the mask in the final training: a milestone would leave "
                "another mask behind than the search goes on from; leave milestones out and make "
                "one search for each density"
            )
        regrow = self.method.regrow
        if regrow is not None and regrow.every >= regrow.until * self.final_passes:
            raise ValueError(
                f"method.regrow.every ({regrow.every:g}) must lie below method.regrow.until times "
                f"final.passes ({regrow.until * self.final_passes:g}): there would be no exchange "
                "in the final training"
            )
        start = self.method.start
        if isinstance(start, EarlyBird) and start.window > self.dense.passes:
            raise ValueError(
                f"method.start.window ({start.window}) must not exceed dense.passes "
                f"({self.dense.passes}): there is one mask for each pass"
            )
        if self.method.rate.kind == "one-run" and self.milestones:
            raise ValueError(
                "rate 'one-run' comes down at the end of the whole search: a milestone would be "
                "trained with a rate from the middle; leave milestones out and make one search for "
                "each density"
            )
        return self

    @property
    def level_passes(self) -> float:
        """Passes that a level trains with a fixed budget, and at most with another stop rule."""
        stop, levels = self.method.stop, self.levels
        fixed = stop.passes if isinstance(stop, FixedBudget) else None
        if fixed is None:
            return levels.max_passes
        return min(max(fixed, self.min_passes), levels.max_passes)

    @property
    def min_passes(self) -> float:
        """Passes below which no rule may stop a level."""
        given, at_once = self.levels.min_passes, judges_pruning(self.method.stop)
        return given if given is not None else min(0.0 if at_once else 1.0, self.levels.max_passes)

    @property
    def final_passes(self) -> int:
        """Passes of the final training."""
        return self.dense.passes if self.final.passes is None else self.final.passes


class DataConfig(Value):
    """Which data set, from where, and how it is split."""

    name: str = "digits"
    dir: str | None = None
    """Folder of the files; by default ``INFCOP_DATA``, then ``data``."""
    train_examples: Annotated[int, Field(ge=1)] | None = None
    """Use a seeded, class-balanced subset of this many training examples, the held-out part
    included; none means all."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction of the training examples kept for decisions and never trained on."""
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Splits do not change with the seed of the search, so that runs can be paired."""
    augment: bool | None = None
    """Random crop and flip; by default for 32x32 colour images only."""


class ModelConfig(Value):
    """A model of the zoo, or any importable factory."""

    name: str = "lenet-300-100"
    """A zoo name, ``timm:NAME``, or ``package.module:factory``."""
    options: dict[str, bool | int | float | str] = {}
    """Further keyword arguments for the factory."""

    @field_validator("name")
    @classmethod
    def _looks_like_a_name(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected a model name, got an empty string")
        return value


class RunConfig(SearchConfig):
    """A whole run as the command line knows it: a search, a model and data."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
