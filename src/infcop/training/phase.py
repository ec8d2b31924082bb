"""One stretch of training with a fresh optimiser: the only training loop there is.

at a new pass      set the order of the data
for each batch     learning rate of this place
loss, backward
after_backward     (flow listens here, if it is read from training)
before_step        (the pipeline masks gradients here)
clip, optimiser step
after_step         (and weights here)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, cast

from torch import Tensor, nn

from infcop.core.config import TrainingConfig
from infcop.core.rng import derive_seed, seed_all
from infcop.errors import DataError, RunFolderError, TrainingError
from infcop.tasks.base import Task
from infcop.training.clock import Clock
from infcop.training.engine import Engine
from infcop.training.order import ordered
from infcop.training.recipe import build_optimizer

__all__ = ["Phase", "StepEvents", "StepWatch"]


class StepEvents(Protocol):
    """What the pipeline adds to a training step."""

    def before_step(self, phase: Phase) -> bool:
        """Run between ``backward`` and the optimiser's step.

        Returns:
            Whether the optimiser shall make its step.
        """
        ...

    def after_step(self) -> None:
        """Run after the optimiser's step."""


class StepWatch(Protocol):
    """What listens to training steps."""

    def after_backward(self, examples: int) -> None:
        """Run right after ``backward`` on a batch of so many examples."""
        ...


class Phase:
    """Training that advances from place to place, the same whether or not it was interrupted.

    All randomness is set anew from ``(seed, label, place)`` whenever ``advance`` is called, and the
    order of the data whenever a pass begins, so no generator state has to be saved. Two phases
    advanced to the same places see the same numbers.

    Args:
        engine: Device and precision.
        model: The engine's wrapper of the model.
        task: The workload.
        recipe: Optimiser and batch-wise settings.
        rate: Learning rate at a number of passes since the phase began.
        seed: The seed of the run.
        label: The phase's place in the run, for instance ``("level", 3)``.
        events: What happens around each optimiser step.
        on_step: Called with the step's number after each step, for progress.
    """

    def __init__(
        self,
        engine: Engine,
        model: nn.Module,
        task: Task,
        recipe: TrainingConfig,
        *,
        rate: Callable[[float], float],
        seed: int,
        label: tuple[str | int, ...],
        events: StepEvents | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self._engine, self._model, self._task, self._recipe = engine, model, task, recipe
        self._rate, self._seed, self._label = rate, seed, label
        self._events, self._on_step = events, on_step
        self._optimizer = engine.optimizer(build_optimizer(model.parameters(), recipe))
        self._trainable = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._batches: Iterator[Any] | None = None
        self.clock = Clock(len(task.train_loader))
        self.step = 0
        self.examples = 0
        """Training examples since the phase began."""

    @property
    def steps_per_pass(self) -> int:
        """Steps of a pass."""
        return self.clock.steps_per_pass

    @property
    def passes(self) -> float:
        """Training passes since the phase began."""
        return self.step / self.steps_per_pass

    def advance(
        self,
        to_step: int,
        *,
        watch: AbstractContextManager[StepWatch] | None = None,
        watched: int = 0,
    ) -> float:
        """Train up to a step and return the mean loss on the way.

        Args:
            to_step: The step, counted since the phase began.
            watch: Entered for the last steps on the way; training is the same without it.
            watched: How many of these there are.

        Raises:
            TrainingError: The loss is not finite.
        """
        if self._batches is None:
            self._start_pass()
        seed_all(derive_seed(self._seed, *self._label, "step", self.step))
        self._model.train()
        begun = self.step
        # Kept on the device: reading it at every step would make an accelerator wait.
        total: Tensor | float = 0.0
        listener: StepWatch | None = None
        with ExitStack() as stack:
            while self.step < to_step:
                if self.step % self.steps_per_pass == 0 and self.step > begun:
                    self._start_pass()
                    seed_all(derive_seed(self._seed, *self._label, "step", self.step))
                if watch is not None and listener is None and self.step >= to_step - watched:
                    listener = stack.enter_context(watch)
                total = total + self._one_step(self._next_batch(), listener)
        if self.step % self.steps_per_pass == 0:
            self._batches = None
        # What is measured next needs the memory more than these gradients do.
        self._optimizer.zero_grad(set_to_none=True)
        return self._checked(float(total) / (to_step - begun), begun)

    def _one_step(self, batch: Any, listener: StepWatch | None) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.passes)
        batch = self._engine.move(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._task.training_step(self._model, batch)
        self._engine.backward(loss, self._model)
        examples = self._task.batch_size(batch)
        if listener is not None:
            listener.after_backward(examples)
        if self._events is None or self._events.before_step(self):
            if self._recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self._trainable, self._recipe.clip_norm)
            self._optimizer.step()
        if self._events is not None:
            self._events.after_step()
        self.step += 1
        self.examples += examples
        if self._on_step is not None:
            self._on_step(self.step)
        return loss.detach()

    def _next_batch(self) -> Any:
        batch = next(cast("Iterator[Any]", self._batches), None)
        if batch is None:
            raise DataError(
                f"the training loader ended after {self.step % self.steps_per_pass} batches of a "
                f"pass; expected {self.steps_per_pass}, its length. A loader must give as many "
                "batches as it says, each time it is iterated over"
            )
        return batch

    def _start_pass(self) -> None:
        done, skipped = divmod(self.step, self.steps_per_pass)
        order = derive_seed(self._seed, *self._label, "pass", done)
        self._batches = ordered(self._task.train_loader, order, skipped)

    def _checked(self, loss: float, begun: int) -> float:
        if math.isfinite(loss):
            return loss
        where = " ".join(str(part) for part in self._label)
        raise TrainingError(
            f"the training loss became {loss} in {where}, between pass "
            f"{begun / self.steps_per_pass:.2f} and {self.passes:.2f}; expected a finite loss. "
            f"Lower training.lr (now {self._recipe.lr:g}), set training.clip_norm, or look for "
            "non-finite inputs. Everything up to the last checkpoint is saved"
        )

    def forget(self, parameter: nn.Parameter, where: Tensor) -> None:
        """Set what the optimiser remembers of these entries of a parameter to zero."""
        for value in self._optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.masked_fill_(where, 0)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the optimiser's tensors and the rest of the state, which JSON can hold."""
        tensors: dict[str, Tensor] = {}
        scalars: dict[str, Any] = {}
        for index, entries in self._optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{index}.{key}"] = value
                else:
                    scalars[f"{index}.{key}"] = value
        place = {"label": list(self._label), "step": self.step, "examples": self.examples}
        return tensors, {**place, "optimizer": scalars}

    def load_state(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned.

        Raises:
            RunFolderError: The state is that of another phase.
        """
        if rest["label"] != list(self._label):
            raise RunFolderError(
                f"the checkpoint stands in {rest['label']}, but {list(self._label)} is to be "
                "continued; the run folder is damaged. Start anew in another one"
            )
        self.step, self.examples = rest["step"], rest["examples"]
        self._batches = None
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**tensors, **rest["optimizer"]}.items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        self._optimizer.load_state_dict(
            {"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]}
        )
