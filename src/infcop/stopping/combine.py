"""Rules made of rules. All parts see every reading, so rules that count keep counting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infcop.core.records import Reading, StopDecision, StopReason
from infcop.errors import ConfigError
from infcop.stopping.rule import State, StopContext, StopRule, reached

__all__ = ["AllOfRule", "AnyOfRule", "AtLeastRule", "AtMostRule"]


@dataclass(frozen=True)
class AnyOfRule:
    """Stop as soon as one rule does; the first in the list gives reason and evidence.

    While none does, the first that has more to say than "not yet" gives them.

    Raises:
        ConfigError: There is no rule.

    Example:
        >>> from infcop.stopping.budget import BudgetRule
        >>> rule = AnyOfRule((BudgetRule(passes=4), BudgetRule(passes=2)))
        >>> state = rule.init(StopContext(max_passes=8))
        >>> rule.update(state, Reading(phase="level", level=1, passes=2))[1].evidence
        {'passes': 2.0, 'budget': 2.0}
    """

    rules: tuple[StopRule, ...]

    def __post_init__(self) -> None:
        _check_some(self.rules, "AnyOfRule")

    def init(self, context: StopContext) -> State:
        """Return the states of all rules."""
        return _init_all(self.rules, context)

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Ask all rules."""
        state, decisions = _update_all(self.rules, state, reading)
        stops = [decision for decision in decisions if decision.stop]
        if stops:
            return state, stops[0]
        return state, _asking(_most_telling(decisions), min(_asked(decisions), default=None))


@dataclass(frozen=True)
class AllOfRule:
    """Stop when all rules do at the same reading.

    The first in the list gives the reason; the evidence is that of all rules, with the rule's
    position behind the names of the second and later ones. Otherwise reason and evidence come
    from the rules that do not stop.

    Raises:
        ConfigError: There is no rule.

    Example:
        >>> from infcop.stopping.budget import BudgetRule
        >>> rule = AllOfRule((BudgetRule(passes=1), BudgetRule(passes=2)))
        >>> state = rule.init(StopContext(max_passes=8))
        >>> rule.update(state, Reading(phase="level", level=1, passes=2))[1].evidence
        {'passes': 2.0, 'budget': 1.0, 'passes (2)': 2.0, 'budget (2)': 2.0}
    """

    rules: tuple[StopRule, ...]

    def __post_init__(self) -> None:
        _check_some(self.rules, "AllOfRule")

    def init(self, context: StopContext) -> State:
        """Return the states of all rules."""
        return _init_all(self.rules, context)

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Ask all rules."""
        state, decisions = _update_all(self.rules, state, reading)
        waiting = [decision for decision in decisions if not decision.stop]
        if waiting:
            return state, _asking(_most_telling(waiting), max(_asked(waiting), default=None))
        return state, decisions[0].model_copy(update={"evidence": _all_evidence(decisions)})


@dataclass(frozen=True)
class AtLeastRule:
    """Let a rule stop the level only from so many passes on.

    A stop before that becomes a decision to go on, with reason ``minimum`` and the rule's
    evidence.

    Raises:
        ConfigError: ``passes`` is negative.

    Example:
        >>> from infcop.stopping.budget import BudgetRule
        >>> rule = AtLeastRule(passes=2, of=BudgetRule(passes=1))
        >>> state = rule.init(StopContext(max_passes=8))
        >>> rule.update(state, Reading(phase="level", level=1, passes=1))[1].reason.value
        'minimum'
    """

    passes: float
    of: StopRule

    def __post_init__(self) -> None:
        if not self.passes >= 0:
            raise ConfigError(
                f"AtLeastRule: expected passes of at least 0, got {self.passes}; 0 blocks nothing"
            )

    def init(self, context: StopContext) -> State:
        """Return the state of the rule."""
        return {"of": self.of.init(context)}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Ask the rule, and block a stop that comes too early."""
        inner, decision = self.of.update(state["of"], reading)
        if decision.stop and not reached(reading.passes, self.passes):
            blocked = {"stop": False, "reason": StopReason.MINIMUM}
            decision = decision.model_copy(update=blocked)
        return {"of": inner}, decision


@dataclass(frozen=True)
class AtMostRule:
    """Stop with reason ``budget`` from so many passes on, if a rule does not stop by itself.

    The rule is asked first, so at the last reading its reason wins. A budget stop carries the
    rule's evidence beside its own.

    Raises:
        ConfigError: ``passes`` is not above 0.

    Example:
        >>> from infcop.stopping.plateau import PlateauRule
        >>> rule = AtMostRule(passes=1, of=PlateauRule(patience=4))
        >>> state = rule.init(StopContext(max_passes=8))
        >>> reading = Reading(phase="level", level=1, passes=1, main=0.5)
        >>> rule.update(state, reading)[1].reason.value
        'budget'
    """

    passes: float
    of: StopRule

    def __post_init__(self) -> None:
        if not self.passes > 0:
            raise ConfigError(f"AtMostRule: expected passes above 0, got {self.passes}")

    def init(self, context: StopContext) -> State:
        """Return the state of the rule."""
        return {"of": self.of.init(context)}

    def update(self, state: State, reading: Reading) -> tuple[State, StopDecision]:
        """Ask the rule, then the budget."""
        inner, decision = self.of.update(state["of"], reading)
        if not decision.stop and reached(reading.passes, self.passes):
            evidence = {**decision.evidence, "passes": reading.passes, "budget": self.passes}
            decision = StopDecision(stop=True, reason=StopReason.BUDGET, evidence=evidence)
        return {"of": inner}, decision


def _check_some(rules: Sequence[StopRule], name: str) -> None:
    if not rules:
        raise ConfigError(f"{name}: expected at least one rule, got none; nothing would decide")


def _init_all(rules: Sequence[StopRule], context: StopContext) -> State:
    return {"rules": [rule.init(context) for rule in rules]}


def _update_all(
    rules: Sequence[StopRule], state: State, reading: Reading
) -> tuple[State, list[StopDecision]]:
    updated = [
        rule.update(inner, reading) for rule, inner in zip(rules, state["rules"], strict=True)
    ]
    return {"rules": [inner for inner, _ in updated]}, [decision for _, decision in updated]


def _most_telling(decisions: Sequence[StopDecision]) -> StopDecision:
    """Return the first that is not merely "not yet": a non-finite reading must be seen."""
    telling = [decision for decision in decisions if decision.reason is not StopReason.NOT_YET]
    return telling[0] if telling else decisions[0]


def _asked(decisions: Sequence[StopDecision]) -> list[float]:
    """Return where rules want to be asked again: any may stop there, and none before its own."""
    return [decision.until for decision in decisions if decision.until is not None]


def _asking(decision: StopDecision, until: float | None) -> StopDecision:
    return decision.model_copy(update={"until": until})


def _all_evidence(decisions: Sequence[StopDecision]) -> dict[str, float]:
    evidence = dict(decisions[0].evidence)
    for position, decision in enumerate(decisions[1:], start=2):
        for name, number in decision.evidence.items():
            evidence[f"{name} ({position})"] = number
    return evidence
