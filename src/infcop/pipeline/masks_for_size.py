"""Removing channels until a forward pass takes a part of what it took."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from infcop.collapse import compact
from infcop.core.mask import Masks
from infcop.core.records import Cost
from infcop.errors import PruningError
from infcop.models.batches import resized
from infcop.models.calling import call
from infcop.models.flops import multiply_adds
from infcop.models.latency import timed
from infcop.pipeline.context import Run
from infcop.pipeline.next_size import Tried, between, next_kept
from infcop.pipeline.pruning import masks_down_to

__all__ = ["BATCH", "masks_for_size"]

BATCH = 64
"""Examples of a forward pass that is timed."""

_TOLERANCE = 0.01
"""Of the dense network; of the part that is asked for, as long as sizes that are counted allow."""

_TRIES = 10
_SECONDS = 0.05
_FEW = 2
"""Examples that are enough to collapse a network."""


def masks_for_size(run: Run, planned: Masks) -> tuple[Masks, float, Cost] | None:
    """Select what survives so that a forward pass takes the asked for part of the dense one.

    Prices of entries say which level that is, unless what a level leaves is that small already.
    Networks of several sizes are really collapsed, and their multiply-adds counted, or they are
    timed in turns with the dense one, on the run's device, at :data:`BATCH` examples; the next size
    follows from the last ones. A time within a hundredth of the dense one is taken once more, and
    for longer: clocks tell no more. Multiply-adds are to be within a hundredth of what was asked
    for. Where no other size comes nearer, the search goes on with the nearest, and warns if that is
    more than a hundredth of the dense network away.

    Args:
        run: The run, before the level.
        planned: What the level would leave.

    Returns:
        The masks, the part of the dense network, and what scoring cost; None if what is planned
        is not the end.

    Raises:
        PruningError: No network is that small.
        CollapseError: The network can't be collapsed.
    """
    meter: _Meter = _Clock(run) if run.config.density_in == "latency" else _Counter(run)
    what, wanted = f"density_in '{run.config.density_in}'", run.config.density
    most, kept = run.groups.counted(run.masks), float(run.target_kept)
    if (counted := run.groups.counted(planned)) > run.target_kept:
        part = meter.part_of_dense(planned)
        if part > wanted + _TOLERANCE:
            return None
        kept = min(counted * wanted / part, most)
    tried: list[Tried] = []
    too_small: list[Tried] = []
    seen: dict[tuple[int, ...], float] = {}
    best: tuple[Masks, float] | None = None
    refused: PruningError | None = None
    cost = Cost()
    for _ in range(_TRIES):
        try:
            masks, spent = masks_down_to(run, max(round(kept), 1), 1)
        except PruningError as error:
            refused = error
            if not meter.exact:
                break
            too_small.append(Tried(kept, kept, 0.0))
        else:
            cost += spent
            sizes = tuple(masks.kept_per_layer.values())
            known = meter.exact and sizes in seen
            part = seen[sizes] if known else meter.part_of_dense(masks)
            if abs(part - wanted) <= _TOLERANCE and not meter.exact:
                part = meter.part_of_dense(masks, patience=3)
            seen[sizes] = part
            if best is None or abs(part - wanted) < abs(best[1] - wanted):
                best = masks, part
            if abs(part - wanted) <= _TOLERANCE * (wanted if meter.exact else 1):
                break
            tried.append(Tried(kept, run.groups.counted(masks), part))
        kept = min(next_kept(tried, wanted), most) if tried else most
        if meter.exact:
            inside = between([*tried, *too_small], wanted, kept)
            if inside is None:
                break
            kept = min(inside, most)
    above = all(part > wanted + _TOLERANCE for part in seen.values())
    if best is None or (refused is not None and above):
        found = f"; the nearest takes {best[1]:.3f}" if best is not None else ""
        raise PruningError(
            f"{what} found no network that takes {wanted:g} of the dense one{found}: {refused}"
        ) from refused
    masks, part = best
    if abs(part - wanted) > _TOLERANCE:
        run.warn(
            f"{what} found no network that takes {wanted:g} of the dense one, and goes on with one "
            f"that takes {part:.3f}: {meter.reason}"
        )
    return masks, part, cost


class _Meter(ABC):
    """Compares what masks leave with the dense network."""

    exact = True
    reason = "its channels are too wide to come nearer"

    def __init__(self, run: Run) -> None:
        self._run = run
        batch = run.engine.move(run.probe[0])
        self._given, self._examples = run.task.inputs(batch), run.task.batch_size(batch)
        self._few = resized(self._given, self._examples, _FEW) or self._given

    @abstractmethod
    def part_of_dense(self, masks: Masks, patience: int = 1) -> float:
        """Return what is left, in [0, 1]."""

    def _collapsed(self, masks: Masks) -> nn.Module:
        return compact(self._run.model, masks, self._few, fold=False).model.eval()


class _Counter(_Meter):
    """Counts multiply-adds."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._dense = self._counted(run.model)

    def part_of_dense(self, masks: Masks, patience: int = 1) -> float:
        return self._counted(self._collapsed(masks)) / self._dense

    def _counted(self, model: nn.Module) -> int:
        return multiply_adds(model, self._few).total


class _Clock(_Meter):
    """Times networks in turns with the dense one."""

    exact = False
    reason = "leave the machine to the search alone, or use density_in 'flops'"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._inputs = resized(self._given, self._examples, BATCH) or self._given
        self._dense = copy.deepcopy(run.model).eval()

    def part_of_dense(self, masks: Masks, patience: int = 1) -> float:
        small = self._collapsed(masks)
        runs: Mapping[str, Any] = {
            "dense": partial(self._pass, self._dense),
            "small": partial(self._pass, small),
        }
        with torch.inference_mode():
            found = timed(
                runs,
                batch=BATCH,
                threads=torch.get_num_threads(),
                repeats=15 * patience,
                seconds=_SECONDS,
            )
        return found["small"].median / found["dense"].median

    def _pass(self, model: nn.Module) -> None:
        call(model, self._inputs)
        device = self._run.engine.device
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
