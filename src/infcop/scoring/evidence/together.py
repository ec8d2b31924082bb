"""Several processes that gather one piece of evidence, each from examples of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infcop.core.edges import Tap
from infcop.core.float64 import to_float64
from infcop.core.processes import agree, facts_of_all, parts_of_all
from infcop.errors import PruningError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Together", "no_example"]


class Together:
    """The processes that gather together, as one of them sees them; or this one alone.

    What they tell each other is float64 and is merged in the order of the ranks, entry by entry,
    so all get the same bits: sums over entries, which threads may split differently, are made
    before it is told. No process waits for one that has failed:

    - all that may fail in one process alone is inside of :meth:`ending_alike`, and outside of
      :meth:`joining`;
    - all that they tell each other is inside of :meth:`joining`.

    Args:
        group: The processes; None for this one alone, which then has nobody to tell anything.
        settings: What is gathered, in words; another thing in another process is an error.
        device: Where the model is.

    Example:
        >>> alone = Together()
        >>> with alone.ending_alike(), alone.joining():
        ...     alone.total(3), alone.summed(torch.tensor([2.0], dtype=torch.float64))
        (3, tensor([2.], dtype=torch.float64))
    """

    def __init__(
        self,
        group: ProcessGroup | None = None,
        settings: str = "",
        device: torch.device | None = None,
    ) -> None:
        self.group, self._settings = group, settings
        self._device = torch.device("cpu") if device is None else device
        self._home = to_float64(torch.empty(0, device=self._device)).device
        # Whether nothing is left to agree on: all are failing, or all do the same.
        self._known = False

    @property
    def rank(self) -> int:
        """Which of the processes this one is, from 0."""
        return 0 if self.group is None else self.group.rank()

    @contextmanager
    def ending_alike(self) -> Iterator[None]:
        """Raise in all processes what is raised inside in any of them.

        Raises:
            PruningError: Another process has failed, or gathers something else.
        """
        try:
            yield
        except Exception as error:
            self._agree(error)
            raise
        self._agree(None)

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Wait until all processes have come here; inside, they do the same with the same numbers.

        So what is raised inside is raised in all of them.

        Raises:
            PruningError: Another process has failed, or gathers something else.
        """
        self._agree(None)
        # Not in a try: it stays known after an exception.
        self._known = True
        yield
        self._known = False

    def everyones(self, count: int) -> list[int]:
        """Return a count of every process."""
        if self.group is None:
            return [count]
        return [int(c) for c in facts_of_all(torch.tensor(count), self.group, self._device)]

    def total(self, examples: int) -> int:
        """Return the examples of all processes.

        Raises:
            PruningError: There is none.
        """
        total = sum(self.everyones(examples))
        if total == 0:
            raise no_example()
        return total

    def parts(self, mine: Tensor | None) -> Iterator[Tensor]:
        """Return the vectors of all processes that have one, in float64; do not change them."""
        part = torch.empty(0, dtype=torch.float64, device=self._home)
        if mine is not None:
            part = to_float64(mine.detach()).to(self._home)
        return iter([part]) if self.group is None else parts_of_all(part, self.group, self._device)

    def summed(self, mine: Tensor | None) -> Tensor:
        """Return the sum of the tensors of all processes that have one, a float64 vector."""
        total = torch.empty(0, dtype=torch.float64, device=self._home)
        for part in self.parts(None if mine is None else mine.flatten()):
            total = total + part if len(total) else part
        return total

    def first(self, size: int) -> tuple[int, int]:
        """Choose who does what one has to do: the first with a batch of several examples.

        Args:
            size: How many this process has in a batch, 0 where it has none.

        Returns:
            The chosen process and the size of its batch, 1 only where no process has a larger one.

        Raises:
            PruningError: No process has a batch.
        """
        sizes = self.everyones(size)
        for enough in (2, 1):
            for rank, found in enumerate(sizes):
                if found >= enough:
                    return rank, found
        raise no_example()

    def taps(self, found: Iterable[Tap], layers: Iterable[str]) -> list[Tap]:
        """Return the calls that any process has seen."""
        if self.group is None:
            return list(found)
        # Calls are numbered from 0, so that their number tells which ones they are.
        calls = dict.fromkeys(layers, 0)
        for name, number in found:
            calls[name] = max(calls[name], number + 1)
        facts = facts_of_all(torch.tensor(list(calls.values())), self.group, self._device)
        most = torch.stack(facts).amax(dim=0).tolist()
        return [(name, n) for name, count in zip(calls, most, strict=True) for n in range(count)]

    def _agree(self, error: Exception | None) -> None:
        if self.group is None or self._known:
            return
        # Whatever it raises, all raise something.
        self._known = True
        agree(
            error,
            self._settings,
            self.group,
            self._device,
            failed=lambda sentence: PruningError(f"scoring: {sentence}"),
        )
        self._known = False


def no_example() -> PruningError:
    """Return the error that there is nothing to look at."""
    return PruningError(
        "scoring: expected at least one batch with an example, got none; give a loader "
        "that yields some (a large batch size with drop_last leaves none of a small set), "
        "or a score that needs no data"
    )
