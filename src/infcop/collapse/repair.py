"""Finding the smallest network that passes: with what is gone, or with a little less gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from infcop.collapse.facts import Coupling, Note, rigid
from infcop.collapse.plan import Plan, plan
from infcop.collapse.run import Findings
from infcop.collapse.shrink import knows_its_sizes, shrink
from infcop.collapse.stated import changed_sizes, stated_sizes
from infcop.collapse.verify import Failure, Reference
from infcop.errors import CollapseError

__all__ = ["Proven", "prove"]

Stated = Mapping[str, Mapping[str, Any]]
"""By module, attributes that state a size, with their new values."""


@dataclass(frozen=True, eq=False)
class Proven:
    """A network that was verified.

    Attributes:
        model: The network.
        plan: What it keeps.
        spared: Units that were kept because the code relies on sizes, or because a bias could not
            take over what they add, with the failure otherwise.
        stated: By module, attributes that were set anew.
    """

    model: nn.Module
    plan: Plan
    spared: tuple[Note, ...]
    stated: Stated


class _Search:
    def __init__(
        self, model: nn.Module, findings: Findings, reference: Reference, fold: bool
    ) -> None:
        self.model = model
        self.fold = fold
        self.findings = findings
        self.reference = reference
        self.types = {name: type(module) for name, module in model.named_modules()}
        self.patched: set[str] = set()
        self.fixed: list[Coupling] = []
        self.pinned: list[Tensor] = []
        self.spared: list[Note] = []

    def attempt(self) -> tuple[Plan, Proven | Failure]:
        """Remove what is dead and not spared, and see whether the result passes."""
        chosen = plan(self.findings, self.model, self.pinned, self.fixed, fold=self.fold)
        stated: Stated = stated_sizes(self.model, self.findings, chosen.survivors, self.patched)
        failure = self._refuses(chosen, stated)
        if failure is not None:
            return chosen, failure
        stated = self._needed(chosen, stated)
        model = shrink(self.model, chosen, stated)
        return chosen, Proven(model, chosen, tuple(self.spared), stated)

    def _refuses(self, chosen: Plan, stated: Stated) -> Failure | None:
        return self.reference.refuses(lambda model: shrink(model, chosen, stated), chosen)

    def _needed(self, chosen: Plan, stated: Stated) -> Stated:
        """Put attributes back that need not change, one name of one class after the other."""
        kinds = dict.fromkeys(
            (self.types[place], name) for place in stated for name in stated[place]
        )
        for kind, name in kinds if len(kinds) > 1 else ():
            fewer = {
                place: {
                    one: value
                    for one, value in own.items()
                    if one != name or self.types[place] is not kind
                }
                for place, own in stated.items()
            }
            if self._refuses(chosen, fewer) is None:
                stated = fewer
        return {place: own for place, own in stated.items() if own}

    def unfolded(self, failure: Failure) -> Proven | None:
        """Try without folding; return what passes."""
        adds = self.findings.facts.adds
        if not self.fold or not adds:
            return None
        self.fold = False
        before = list(self.spared)
        reason = f"it is a constant that can't be folded: otherwise {failure.reason}"
        self.spared += [Note(units, reason) for units, _ in adds]
        _, found = self.attempt()
        if isinstance(found, Proven):
            return found
        self.fold, self.spared = True, before
        return None

    def adapt(self, failure: Failure, chosen: Plan) -> bool:
        """Change the next attempt where this one has failed; return whether anything changed."""
        families = [
            self._family(place)
            for place in _outwards(failure.place)
            if not knows_its_sizes(self.model.get_submodule(place))
        ]
        return any(self._patch(family, chosen) for family in families) or any(
            self._spare(family, chosen, failure) for family in families
        )

    def adapt_all(self, failure: Failure, chosen: Plan) -> bool:
        """The same for all modules: the network runs, but gives something else."""
        every = {name for name, module in self.model.named_modules() if not knows_its_sizes(module)}
        return self._patch(every, chosen) or self._spare(every, chosen, failure)

    def _family(self, place: str) -> set[str]:
        """Return the modules of the same class: they will fail alike."""
        return {name for name, kind in self.types.items() if kind is self.types[place]}

    def _patch(self, places: set[str], chosen: Plan) -> bool:
        new = places - self.patched
        if not stated_sizes(self.model, self.findings, chosen.survivors, new):
            return False
        self.patched |= new
        return True

    def _spare(self, places: set[str], chosen: Plan, failure: Failure) -> bool:
        for unclear in (True, False):
            changes = changed_sizes(self.findings, chosen.survivors, places, unclear=unclear)
            if changes:
                self.fixed += [rigid(layer, dims) for layer, dims in changes]
                self.spared += [_note(layer.ids, failure) for layer, _ in changes]
                return True
        return False


def prove(
    model: nn.Module, findings: Findings, reference: Reference, *, fold: bool = True
) -> Proven:
    """Shrink a model so far as can be verified.

    First all that is dead goes. If the smaller network fails in some module, attributes of modules
    of that class that state sizes are set anew. If that does not help, what goes through their
    reshapings stays: first where one size would have to become several, then everywhere. If the
    network runs but gives something else, constants stay where they are; if it still does, the
    same as above is done for all modules. At last the parameters are let go one part after the
    other, each if the network still passes without it. Of the attributes that were set anew, those
    that need not be are put back.

    Args:
        model: The model, with masked weights.
        findings: What a run over its graph has found out.
        reference: What it gives.
        fold: Whether biases take over constants.

    Raises:
        CollapseError: Not even a copy with nothing removed passes.
    """
    search = _Search(model, findings, reference, fold)
    while True:
        chosen, found = search.attempt()
        if isinstance(found, Proven):
            return found
        if found.place is not None and search.adapt(found, chosen):
            continue
        unfolded = search.unfolded(found) if found.place is None else None
        if unfolded is not None:
            return unfolded
        if not search.adapt_all(found, chosen):
            return _part_by_part(search, found)


def _part_by_part(search: _Search, failure: Failure) -> Proven:
    """Let go of parameters, half of them at a time, as long as the network passes."""
    units = search.findings.units
    before = list(search.spared)

    def attempt(held: Collection[str]) -> Proven | Failure:
        search.pinned = [layer.ids for name in held for layer in units[name]]
        search.spared = [*before, *(_note(ids, failure) for ids in search.pinned)]
        return search.attempt()[1]

    held = list(units)
    best = attempt(held)
    if isinstance(best, Failure):
        raise CollapseError(
            "compact: expected a copy with all of its parameters to do the same as the masked "
            f"network, but {best.reason}; its outputs depend on more than its inputs and its state"
        )
    parts = [held]
    while parts:
        part = parts.pop()
        left = [name for name in held if name not in part]
        found = attempt(left)
        if isinstance(found, Proven):
            best, held = found, left
        elif len(part) > 1:
            parts += [part[: len(part) // 2], part[len(part) // 2 :]]
    return best


def _note(ids: Tensor, failure: Failure) -> Note:
    return Note(ids, f"its code relies on sizes; without these {failure.reason}")


def _outwards(place: str | None) -> list[str]:
    """Return a module and the ones around it."""
    parts = place.split(".") if place else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]
