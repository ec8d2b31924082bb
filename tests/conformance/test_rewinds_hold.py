"""What every rewind puts back, and what it leaves, in a search whose every step is watched."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader, TensorDataset

import infcop
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig, Rewind
from infcop.core.schedule import Fraction
from tests.reference.axis_networks import batches, convolutional, shapes_of
from tests.reference.axis_twins import scope_survivors

DENSE, WARMUP, FINAL = 3, 2, 2
STEPS = 3
"""Of a pass."""
LR, END = 0.1, 0.05

PLACES: dict[str, tuple[int | None, int]] = {
    "initialisation": (0, 0),
    "epoch": (1, 1),
    "warm-up": (WARMUP, WARMUP),
    "learning-rate": (None, 0),
    "none": (None, DENSE),
}
"""Passes of dense training whose values come back, if any, and whose learning rate does."""

NETWORK = shapes_of(convolutional())


def _words(name: str) -> tuple[str, ...]:
    return get_args(Rewind.model_fields[name].annotation)


def _rewinds() -> dict[str, Rewind]:
    """Return all rewinds that have a meaning."""
    found = {}
    for to, when, restores in product(*map(_words, ("to", "when", "restores"))):
        try:
            rewind = Rewind.model_validate({"to": to, "when": when, "restores": restores})
        except ValueError:
            continue
        found[f"{to}-{when}-{restores}"] = rewind
    return found


REWINDS = _rewinds()

every_rewind = pytest.mark.parametrize("rewind", REWINDS.values(), ids=REWINDS)


@dataclass
class Step:
    """What was seen of one optimiser step.

    Attributes:
        batch: What it was trained on.
        before: All parameters and buffers before it.
        buffers: The buffers after its forward pass.
        parameters: The parameters after it, before pruned ones are set to zero.
        lr: The learning rate.
        remembered: Tensors that the optimiser held before it.
    """

    batch: bytes
    before: dict[str, Tensor]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    lr: float = 0.0
    remembered: int = 0


class Watched(infcop.Classification):
    """Classification that writes down every training step."""

    def __init__(self, *loaders: Any) -> None:
        super().__init__(*loaders)
        self.phases: list[list[Step]] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        self._step: Step | None = None
        self._model: nn.Module | None = None

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return super().training_step(model, batch)
        self._model = model
        before = {**copied(model.named_parameters()), **copied(model.named_buffers())}
        self._step = Step(batch[0].numpy().tobytes(), before)
        loss = super().training_step(model, batch)
        self._step.buffers = copied(model.named_buffers())
        return loss

    def before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        assert self._step is not None
        if not self._optimizers or self._optimizers[-1] is not optimizer:
            self._optimizers.append(optimizer)
            self.phases.append([])
        self._step.lr = optimizer.param_groups[0]["lr"]
        self._step.remembered = sum(map(len, optimizer.state.values()))
        self.phases[-1].append(self._step)

    def after(self, *_: Any) -> None:
        assert self._step is not None
        assert self._model is not None
        self._step.parameters = copied(self._model.named_parameters())


def copied(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return copies of tensors, by the names that they have outside of the engine's wrapper."""
    return {n.removeprefix("_forward_module."): t.detach().clone() for n, t in tensors}


@cache
def watched(rewind: Rewind) -> tuple[list[list[Step]], infcop.Result]:
    """Return the steps of all phases of a short search, the dense training first."""
    inputs, labels = batches(1, 8, 8, sizes=[16 * STEPS])[0]
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=16, shuffle=True)
    task = Watched(loader, batches(1, 8, 8))
    hooks = [
        register_optimizer_step_pre_hook(task.before),
        register_optimizer_step_post_hook(task.after),
    ]
    try:
        with TemporaryDirectory() as folder:
            result = infcop.search(
                convolutional(),
                task,
                run_dir=folder,
                method=MethodConfig(
                    name="mine", schedule=Fraction(remove=0.3), keep_per_layer=1, rewind=rewind
                ),
                density=0.5,
                training={
                    "lr": LR,
                    "momentum": 0.9,
                    "schedule": "cosine",
                    "lr_end_fraction": END,
                },
                dense={"passes": DENSE, "warmup_passes": WARMUP},
                levels={"max_passes": 1},
                final={"passes": FINAL},
                execution={"device": "cpu", "threads": 1},
            )
    finally:
        for hook in hooks:
            hook.remove()
    return task.phases, result


def at_end(phase: list[Step]) -> dict[str, Tensor]:
    """Return what a phase has left behind."""
    return {**phase[-1].before, **phase[-1].parameters, **phase[-1].buffers}


def masked(values: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    return {n: v.masked_fill(~masks[n], 0) if n in masks else v for n, v in values.items()}


def masks_of(phases: list[list[Step]]) -> list[Masks]:
    """Return the masks that the levels must have, by sorting the trained weights."""
    masks, found = Masks.full(NETWORK), []
    for before, level in pairwise(phases[:-1]):
        trained = {name: at_end(before)[name].abs() for name in NETWORK}
        kept = sum(int((level[0].before[name] != 0).sum()) for name in NETWORK)
        masks = Masks(scope_survivors("global", trained, masks, kept, 1, 1))
        found.append(masks)
    return found


def restored(
    rewind: Rewind, dense: list[Step], trained: dict[str, Tensor], masks: Masks
) -> dict[str, Tensor]:
    """Return what going back must give."""
    place, _ = PLACES[rewind.to]
    assert place is not None
    earlier = dense[place * STEPS].before
    if rewind.restores == "prunable-weights":
        earlier = {n: earlier[n] if n in masks else value for n, value in trained.items()}
    return masked(earlier, masks)


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


# -- what there is ---------------------------------------------------------------------------------


def test_every_place_to_go_back_to_is_swept() -> None:
    lacking = set(_words("to")) - set(PLACES)
    assert not lacking, f"add {sorted(lacking)} to PLACES: which values and which rate come back?"
    assert {rewind.to for rewind in REWINDS.values()} == set(PLACES)
    for name in ("when", "restores"):
        assert {getattr(rewind, name) for rewind in REWINDS.values()} == set(_words(name))


def test_keeping_what_is_trained_goes_with_no_other_setting() -> None:
    keeping = [rewind for rewind in REWINDS.values() if PLACES[rewind.to][0] is None]
    assert {(r.when, r.restores) for r in keeping} == {("every-level", "everything")}
    assert len(REWINDS) == len(keeping) + 4 * (len(PLACES) - len(keeping))


@every_rewind
def test_the_search_has_its_phases(rewind: Rewind) -> None:
    phases, result = watched(rewind)
    levels = len(result.record.levels)
    assert [len(phase) for phase in phases] == [DENSE * STEPS, *[STEPS] * levels, FINAL * STEPS]
    assert levels == 2
    to = "none" if rewind.when == "end" else rewind.to
    assert {level.rewound_to for level in result.record.levels} == {to}


# -- values ----------------------------------------------------------------------------------------


@every_rewind
def test_masks_are_drawn_from_the_trained_weights(rewind: Rewind) -> None:
    phases, result = watched(rewind)
    masks = masks_of(phases)
    assert [mask.kept for mask in masks] == [level.kept for level in result.record.levels]
    for name, mask in result.masks.items():
        assert torch.equal(mask, masks[-1][name]), name
    for phase, own in zip(phases[1:], [*masks, masks[-1]], strict=True):
        for step in phase:
            assert not any(bool(step.before[name][~mask].any()) for name, mask in own.items())


@every_rewind
def test_levels_begin_with_what_comes_back_and_nothing_else(rewind: Rewind) -> None:
    phases, _ = watched(rewind)
    keeps = rewind.when == "end" or PLACES[rewind.to][0] is None
    for (before, level), masks in zip(pairwise(phases[:-1]), masks_of(phases), strict=True):
        trained = at_end(before)
        expected = masked(trained, masks)
        if not keeps:
            expected = restored(rewind, phases[0], trained, masks)
        check_same(level[0].before, expected)


@every_rewind
def test_the_final_training_goes_back_only_where_that_was_put_off(rewind: Rewind) -> None:
    phases, _ = watched(rewind)
    masks, trained = masks_of(phases)[-1], at_end(phases[-2])
    expected = masked(trained, masks)
    if rewind.when == "end":
        expected = restored(rewind, phases[0], trained, masks)
    check_same(phases[-1][0].before, expected)


# -- everything else -------------------------------------------------------------------------------


@every_rewind
def test_the_optimiser_is_fresh_in_every_phase(rewind: Rewind) -> None:
    for phase in watched(rewind)[0]:
        assert phase[0].remembered == 0
        assert all(step.remembered > 0 for step in phase[1:])


def cosine(place: float, horizon: float) -> float:
    part = min(place / horizon, 1.0)
    return LR * (END + (1 - END) * (1 + math.cos(math.pi * part)) / 2)


@every_rewind
def test_the_learning_rate_goes_on_from_its_place(rewind: Rewind) -> None:
    dense, *levels, final = watched(rewind)[0]
    start = 0 if rewind.when == "end" else PLACES[rewind.to][1]
    for level in levels:
        expected = [cosine(start + step / STEPS, DENSE) for step in range(len(level))]
        assert [step.lr for step in level] == pytest.approx(expected, rel=1e-12)
    for phase, passes in ((dense, DENSE), (final, FINAL)):
        expected = [cosine(step / STEPS, passes) for step in range(len(phase))]
        assert [step.lr for step in phase] == pytest.approx(expected, rel=1e-12)


@every_rewind
def test_the_order_of_the_data_depends_on_the_place_in_the_run_alone(rewind: Rewind) -> None:
    def orders(phases: list[list[Step]]) -> list[list[bytes]]:
        return [[step.batch for step in phase] for phase in phases]

    own, plain = (orders(watched(one)[0]) for one in (rewind, Rewind(to="none")))
    assert own == plain
    passes = [tuple(phase[i : i + STEPS]) for phase in own for i in range(0, len(phase), STEPS)]
    assert len(set(passes)) == len(passes) == DENSE + 2 + FINAL


@every_rewind
def test_the_dense_training_is_the_same_whatever_is_restored_later(rewind: Rewind) -> None:
    own, plain = watched(rewind)[0][0], watched(Rewind(to="none"))[0][0]
    check_same(at_end(own), at_end(plain))
