"""What the stages of one run share, and how a run is saved and continued."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from infcop.core.config import SearchConfig
from infcop.core.edges import Edges
from infcop.core.mask import Masks
from infcop.core.records import LevelRecord, Milestone, PhaseRecord, Reading, RunRecord
from infcop.errors import InfcopWarning, RunFolderError
from infcop.masking.apply import MaskEnforcer
from infcop.masking.groups import Groups
from infcop.models.prunable import Prunable, get_parameters
from infcop.pipeline.progress import Progress
from infcop.pipeline.shared_dense import SharedDense
from infcop.pipeline.shrunk import Shrunk
from infcop.pipeline.states import States
from infcop.pipeline.store import RunStore, parse_record
from infcop.rewinding.snapshot import Snapshot
from infcop.scoring.movement import MovementSum
from infcop.tasks.base import Task
from infcop.training.engine import Engine
from infcop.training.phase import Phase

__all__ = ["Run", "add_reading", "reached"]


class Run:
    """One search under way.

    Everything that resuming needs is in ``record``, ``masks``, ``rule_state``, the model and the
    present phase; ``save`` writes them together as one file, ``restore`` brings them back.
    """

    def __init__(
        self,
        *,
        config: SearchConfig,
        engine: Engine,
        model: nn.Module,
        task: Task,
        probe: list[Any],
        prunable: Prunable,
        edges: Edges,
        groups: Groups,
        movement: MovementSum | None,
        record: RunRecord,
        store: RunStore,
        progress: Progress,
    ) -> None:
        self.config, self.engine, self.task, self.probe = config, engine, task, probe
        self.model = model
        self.wrapped = engine.wrap(model)
        self.edges = edges
        self.window = 0
        """Training steps before a reading that flow is read from, with that source."""
        self.states = States((), ())
        self.shared_dense: SharedDense | None = None
        self.shrunk: Shrunk | None = None
        """The smaller network that is being trained, if it is not the working model itself."""
        self.collapsed: tuple[Masks | None, Shrunk | None] = (None, None)
        """The masks that the network was last collapsed under, and what came of it."""
        self.prunable, self.record, self.store, self.progress = prunable, record, store, progress
        self.masks = Masks.full(prunable.shapes)
        self.enforcer = MaskEnforcer(self.parameters, self.masks)
        self.groups = groups
        self.movement = movement
        """Where training has moved the weights, for a score that asks for it."""
        self.history: list[Masks] = []
        """The masks that would have been drawn after the last passes of the dense training, while
        it goes on; after it, the one that the first level draws, if that is known."""
        self.rule_state: Any = None
        self._phase_state: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._saved_at = time.monotonic()
        self._clock = time.monotonic()

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The prunable parameters of the working model."""
        return get_parameters(self.model, self.prunable.names)

    @property
    def trained(self) -> nn.Module:
        """What is trained at present, as the engine has wrapped it."""
        return self.wrapped if self.shrunk is None else self.shrunk.trained

    @property
    def trained_parameters(self) -> int | None:
        """Parameters of the smaller network that is being trained, if there is one."""
        return None if self.shrunk is None else self.shrunk.size

    @property
    def target_kept(self) -> int:
        """Entries that the last level keeps, or what counts as so many."""
        return max(round(self.config.density * self.masks.total), 1)

    @property
    def at_target(self) -> bool:
        """Whether nothing has to be removed any more."""
        if self.config.density_in != "parameters":
            return bool(self.record.levels) and self.record.levels[-1].size is not None
        return self.groups.counted(self.masks) <= self.target_kept

    @property
    def next_stop_kept(self) -> int:
        """Entries that the next level must not go below: the next milestone, or the target."""
        ahead = [kept for kept in self.milestones_kept if kept < self.masks.kept]
        return max(ahead, default=self.target_kept)

    @property
    def milestones_kept(self) -> tuple[int, ...]:
        """Entries kept at every milestone of the settings."""
        return tuple(max(round(m * self.masks.total), 1) for m in self.config.milestones)

    def mask_with(self, masks: Masks) -> None:
        """Adopt masks and set the entries that they prune to zero."""
        self.masks = masks
        self.enforcer = MaskEnforcer(self.parameters, masks)
        self.enforcer.apply()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        return seconds

    def charge(self, seconds: float) -> None:
        """Count time that was spent elsewhere as this run's."""
        self._clock -= seconds

    # -- the record ----------------------------------------------------------------------------

    def update(self, **fields: Any) -> None:
        """Replace fields of the record."""
        self.record = self.record.model_copy(update=fields)

    def update_level(self, **fields: Any) -> LevelRecord:
        """Replace fields of the present level's record and return it."""
        level = self.record.levels[-1].model_copy(update=fields)
        self.update(levels=(*self.record.levels[:-1], level))
        return level

    def update_milestone(self, **fields: Any) -> Milestone:
        """Replace fields of the present milestone and return it."""
        milestone = self.record.milestones[-1].model_copy(update=fields)
        self.update(milestones=(*self.record.milestones[:-1], milestone))
        return milestone

    def warn(self, message: str, category: type[InfcopWarning] = InfcopWarning) -> None:
        """Warn now, and keep the warning in the record."""
        if message not in self.record.warnings:
            self.update(warnings=(*self.record.warnings, message))
        warnings.warn(message, category, stacklevel=2)

    # -- saving and continuing ------------------------------------------------------------------

    def save(self, phase: Phase | None = None) -> None:
        """Write where the run stands: the end of a stage, or a place in a phase."""
        tensors = {f"model.{name}": t for name, t in Snapshot.take(self.model, copy=False).items()}
        tensors |= {f"mask.{name}": mask for name, mask in self.masks.items()}
        states, places = self.states.state()
        tensors |= {f"state.{name}": tensor for name, tensor in states.items()}
        for place, masks in enumerate(self.history):
            tensors |= {f"history.{place}.{name}": mask for name, mask in masks.items()}
        if self.movement is not None:
            tensors |= {f"movement.{name}": t for name, t in self.movement.values().items()}
        meta: dict[str, Any] = {
            "record": self.record.model_dump(mode="json"),
            "rule_state": self.rule_state,
            "states": places,
            "history": len(self.history),
        }
        if phase is not None:
            optimizer, meta["phase"] = phase.state()
            tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.items()}
        self.store.write_tensors(self.store.latest, tensors, meta)
        self.store.write_record(self.record)
        self._saved_at = time.monotonic()

    def save_if_due(self, phase: Phase) -> None:
        """Save inside a phase, but not more often than asked for."""
        if time.monotonic() - self._saved_at >= self.config.execution.checkpoint_seconds:
            self.save(phase)

    def restore(self) -> bool:
        """Go to where the folder's run stands; return whether there is one."""
        if not self.store.latest.exists():
            return False
        tensors, meta = self.store.read_tensors(self.store.latest)
        record = parse_record(meta["record"], self.store.latest)
        self._check_same_model(record)
        Snapshot(_under("model.", tensors)).restore(self.model)
        self.mask_with(Masks(_under("mask.", tensors)))
        # Versions, hardware and the place of the data are those of the present process.
        self.record = record.model_copy(
            update={"versions": self.record.versions, "hardware": self.record.hardware}
        )
        self.rule_state = meta["rule_state"]
        self.states.load(_under("state.", tensors), meta.get("states", {}))
        self.history = [
            Masks(_under(f"history.{place}.", tensors)) for place in range(meta.get("history", 0))
        ]
        if self.movement is not None:
            self.movement.load(_under("movement.", tensors))
        if "phase" in meta:
            self._phase_state = (_under("optimizer.", tensors), meta["phase"])
        self._clock = time.monotonic()
        return True

    def resume_phase(self, phase: Phase) -> Phase:
        """Continue a phase from the checkpoint if the run was interrupted inside it."""
        if self._phase_state is not None:
            phase.load_state(*self._phase_state)
            self._phase_state = None
        return phase

    def _check_same_model(self, record: RunRecord) -> None:
        here, there = self.record, record
        if here.model.prunable != there.model.prunable:
            raise RunFolderError(
                f"run folder '{self.store.root}' holds a run of another model "
                f"({there.model.name}, {len(there.model.prunable)} prunable tensors; now "
                f"{here.model.name}, {len(here.model.prunable)}). Give the same model to continue "
                "it, or choose another folder"
            )
        if here.data != there.data:
            raise RunFolderError(
                f"run folder '{self.store.root}' holds a run on other data ({there.data.name}: "
                f"{there.data.train} training, {there.data.held_out} held-out examples; now "
                f"{here.data.name}: {here.data.train}, {here.data.held_out}). Give the same data "
                "to continue it, or choose another folder"
            )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def reached(phase: PhaseRecord | None, passes: float) -> bool:
    """Whether a phase has been read at its end."""
    return bool(phase and phase.readings and phase.readings[-1].passes >= passes - 1e-9)


def add_reading(
    phase: PhaseRecord, reading: Reading, seconds: float, trained_parameters: int | None = None
) -> PhaseRecord:
    """Return a phase with one more reading, its cost and its time, and what was trained."""
    return phase.model_copy(
        update={
            "trained_parameters": trained_parameters,
            "readings": (*phase.readings, reading),
            "cost": phase.cost + reading.cost,
            "seconds": phase.seconds + seconds,
        }
    )
