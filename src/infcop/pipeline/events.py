"""What the pipeline does around every optimiser step: masking, and what some methods add."""

from __future__ import annotations

from infcop.core.records import PhaseRecord
from infcop.core.regrow import Regrow
from infcop.core.rng import derive_seed
from infcop.masking.regrow import exchange, exchange_fraction
from infcop.pipeline.context import Run
from infcop.pipeline.shrunk import Shrunk
from infcop.training.phase import Phase, StepEvents

__all__ = ["final_step_events", "step_events"]


class _Masking:
    """Keeps pruned entries at zero."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def before_step(self, phase: Phase) -> bool:
        self._run.enforcer.mask_gradients()
        return True

    def after_step(self) -> None:
        self._run.enforcer.apply()


class _Moving(_Masking):
    """Also adds up where training moves the weights."""

    def before_step(self, phase: Phase) -> bool:
        super().before_step(phase)
        assert self._run.movement is not None
        self._run.movement.add()
        return True


class _Shrunk:
    """Does the same for a smaller network that is trained instead."""

    def __init__(self, shrunk: Shrunk, *, moving: bool) -> None:
        self._shrunk, self._moving = shrunk, moving

    def before_step(self, phase: Phase) -> bool:
        self._shrunk.before_step(moving=self._moving)
        return True

    def after_step(self) -> None:
        self._shrunk.enforcer.apply()


class _Regrowing(_Masking):
    """Exchanges entries in the course of a training; such a step changes no weight otherwise.

    As in RigL (arXiv 1911.11134, algorithm 1), an exchange takes the place of the optimiser's step,
    and looks at the gradient of this one batch.
    """

    def __init__(self, run: Run, regrow: Regrow, recovery: float) -> None:
        super().__init__(run)
        self._regrow, self._recovery = regrow, recovery

    def before_step(self, phase: Phase) -> bool:
        fraction = self._due(phase)
        if fraction == 0:
            return super().before_step(phase)
        self._exchange(phase, fraction)
        return False

    def _due(self, phase: Phase) -> float:
        """Return which part of the entries is exchanged now; 0 between the exchanges."""
        clock = phase.clock
        step = phase.step - clock.steps_at(self._recovery)
        if step <= 0 or step % max(clock.steps_at(self._regrow.every), 1):
            return 0.0
        whole = clock.steps_at(self._run.config.final_passes)
        return exchange_fraction(self._regrow, step / whole)

    def _exchange(self, phase: Phase, fraction: float) -> None:
        run = self._run
        weights = {name: parameter.detach() for name, parameter in run.parameters.items()}
        gradients = None
        if self._regrow.by == "gradient":
            gradients = {
                name: parameter.grad
                for name, parameter in run.parameters.items()
                if parameter.grad is not None
            }
        seed = derive_seed(run.config.seed, "regrow", phase.step)
        before, masks = run.masks, exchange(weights, gradients, run.masks, fraction, seed=seed)
        run.mask_with(masks)
        moved = 0
        for name, parameter in run.parameters.items():
            changed = before[name] ^ masks[name]
            moved += int(changed.count_nonzero()) // 2
            phase.forget(parameter, changed.to(parameter.device))
        done = run.record.final or PhaseRecord()
        run.update(final=done.model_copy(update={"exchanged": done.exchanged + moved}))


def step_events(run: Run) -> StepEvents:
    """Return what happens around the steps of the dense training and of levels."""
    if run.shrunk is not None:
        return _Shrunk(run.shrunk, moving=run.movement is not None)
    return _Masking(run) if run.movement is None else _Moving(run)


def final_step_events(run: Run, recovery: float) -> StepEvents:
    """Return what happens around the steps of the final training, where masks may move.

    So many passes of recovery come first, in which they don't. How the weights move then is not
    added up: nothing is pruned by it, and a search that only branches off goes on without it.
    """
    if run.shrunk is not None:
        return _Shrunk(run.shrunk, moving=False)
    regrow = run.config.method.regrow
    return _Masking(run) if regrow is None else _Regrowing(run, regrow, recovery)
