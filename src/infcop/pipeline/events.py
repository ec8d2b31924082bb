"""What the pipeline does around every optimiser step: masking, and what some methods add."""

from __future__ import annotations

from infcop.core.records import PhaseRecord
from infcop.core.regrow import Regrow
from infcop.core.rng import derive_seed
from infcop.masking.regrow import exchange, exchange_fraction
from infcop.pipeline.context import Run
from infcop.training.phase import Phase

__all__ = ["Regrowing", "step_events"]


class _Masking:
    """Keeps pruned entries at zero."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def before_step(self, step: int) -> bool:
        self._run.enforcer.mask_gradients()
        return True

    def after_step(self) -> None:
        self._run.enforcer.apply()


class _Moving(_Masking):
    """Also adds up where training moves the weights."""

    def before_step(self, step: int) -> bool:
        super().before_step(step)
        assert self._run.movement is not None
        self._run.movement.add()
        return True


class Regrowing(_Masking):
    """Exchanges entries in the course of a training; such a step changes no weight otherwise.

    As in RigL (arXiv 1911.11134, algorithm 1), an exchange takes the place of the optimiser's step,
    and looks at the gradient of this one batch.
    """

    def __init__(self, run: Run, regrow: Regrow) -> None:
        super().__init__(run)
        self._regrow = regrow
        self.phase: Phase | None = None

    def before_step(self, step: int) -> bool:
        """Mask the gradients, or exchange entries instead of a step."""
        fraction = self._due(step)
        if fraction == 0:
            return super().before_step(step)
        self._exchange(step, fraction)
        return False

    def _due(self, step: int) -> float:
        """Return which part of the entries is exchanged now; 0 between the exchanges."""
        assert self.phase is not None
        clock = self.phase.clock
        every = max(clock.steps_at(self._regrow.every), 1)
        if step == 0 or step % every:
            return 0.0
        whole = clock.steps_at(self._run.config.final_passes)
        return exchange_fraction(self._regrow, step / whole)

    def _exchange(self, step: int, fraction: float) -> None:
        run, phase = self._run, self.phase
        assert phase is not None
        weights = {name: parameter.detach() for name, parameter in run.parameters.items()}
        gradients = None
        if self._regrow.by == "gradient":
            gradients = {
                name: parameter.grad
                for name, parameter in run.parameters.items()
                if parameter.grad is not None
            }
        seed = derive_seed(run.config.seed, "regrow", step)
        before, masks = run.masks, exchange(weights, gradients, run.masks, fraction, seed=seed)
        run.mask_with(masks)
        moved = 0
        for name, parameter in run.parameters.items():
            changed = before[name] ^ masks[name]
            moved += int(changed.count_nonzero()) // 2
            phase.forget(parameter, changed.to(parameter.device))
        done = run.record.final or PhaseRecord()
        run.update(final=done.model_copy(update={"exchanged": done.exchanged + moved}))


def step_events(run: Run) -> _Masking:
    """Return what happens around the steps of the dense training and of levels."""
    return _Masking(run) if run.movement is None else _Moving(run)
