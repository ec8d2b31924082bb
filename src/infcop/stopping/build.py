"""From a stop rule's configuration to the rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from infcop.core.comparison import Anchor, Units
from infcop.core.method import (
    AccuracyTarget,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    FixedBudget,
    GradientFlow,
    InformationFlow,
    LossPlateau,
    MaskDistance,
    MatrixFlow,
    Plateau,
    RelativeGradientFlow,
    RelativeInformationFlow,
    Settling,
    ShockBudget,
    StopConfig,
    rule_parts,
)
from infcop.core.records import Flow
from infcop.errors import ConfigError
from infcop.stopping.accuracy import AccuracyRule
from infcop.stopping.budget import BudgetRule
from infcop.stopping.combine import AllOfRule, AnyOfRule, AtLeastRule, AtMostRule
from infcop.stopping.flow import FlowRule, flow_distance, relative_flow_distance
from infcop.stopping.mask import MaskRule
from infcop.stopping.matrix import MatrixRule
from infcop.stopping.plateau import LossRule, PlateauRule
from infcop.stopping.rule import StopRule
from infcop.stopping.settling import SettlingRule
from infcop.stopping.shock import ShockRule

__all__ = [
    "build_rule",
    "NeededFloor",
    "named_passes",
    "needed_comparisons",
    "needed_floors",
    "needed_flows",
    "needs_flow_in_levels",
    "needs_mask",
    "needs_metric",
]

_INFORMATION: dict[str, Flow] = {
    "signed": "information.signed",
    "absolute": "information.absolute",
    "cka": "information.cka",
}
_GRADIENT: dict[str, Flow] = {"norm": "gradient.norm", "mean": "gradient.mean"}
_FlowConfig = InformationFlow | GradientFlow | RelativeInformationFlow | RelativeGradientFlow


def build_rule(config: StopConfig, max_passes: float) -> StopRule:
    """Return the rule of a configuration, capped by the level's whole budget.

    The cap asks the rule first, so the reason ``budget`` is given only where the rule itself
    would go on. A minimum of passes is the caller's: configure ``AtLeast``.

    Args:
        config: Any stop rule of ``infcop.core.method``.
        max_passes: Passes after which a level ends whatever the rule says, > 0.

    Raises:
        ConfigError: ``config`` is no stop rule, or ``max_passes`` is not above 0.

    Example:
        >>> from infcop.core.records import Reading
        >>> from infcop.stopping.rule import StopContext, replay
        >>> rule = build_rule(AtLeast(passes=2, of=Plateau(patience=1)), max_passes=3)
        >>> readings = [Reading(phase="level", level=1, passes=p, main=0.5) for p in (1, 2, 3)]
        >>> [d.reason.value for d in replay(rule, StopContext(max_passes=3), readings)]
        ['not-yet', 'plateau', 'plateau']
    """
    return AtMostRule(passes=max_passes, of=_rule(config))


def needed_flows(config: StopConfig) -> frozenset[Flow]:
    """Return the flows that a rule and its parts compare; every reading must hold them.

    Example:
        >>> config = AnyOf(rules=(InformationFlow(epsilon=0.11), Plateau()))
        >>> sorted(needed_flows(config))
        ['information.signed']
    """
    parts = [part for part in rule_parts(config) if isinstance(part, _FlowConfig)]
    return frozenset({*map(_flow, parts), *map(_reference_flow, parts)})


def needed_comparisons(config: StopConfig) -> frozenset[tuple[Anchor, Units]]:
    """Return the states that a rule and its parts compare correlation matrices with.

    Example:
        >>> sorted(needed_comparisons(AnyOf(rules=(MatrixFlow(kappa=1), Settling()))))
        [('last', 'all'), ('trained', 'all')]
    """
    found: set[tuple[Anchor, Units]] = set()
    for part in rule_parts(config):
        if isinstance(part, MatrixFlow):
            found |= {(part.reference, part.units), ("trained", part.units)}
        elif isinstance(part, ShockBudget):
            found.add(("trained", part.units))
        elif isinstance(part, Settling):
            found.add(("last", part.units))
    return frozenset(found)


class NeededFloor(NamedTuple):
    """What a part of a rule needs to know of the noise of the reference."""

    kind: Literal["drift", "halves", "larger"]
    readings: int | None
    """Changes that a drift is averaged over; None for all."""
    units: Units


def needed_floors(config: StopConfig) -> tuple[NeededFloor, ...]:
    """Return the noise floors that the parts of a rule need.

    Example:
        >>> needed_floors(MatrixFlow(epsilon=0.4)), needed_floors(MatrixFlow(kappa=1))[0].kind
        ((), 'drift')
    """
    found = []
    for part in rule_parts(config):
        if isinstance(part, MatrixFlow) and part.kappa is not None:
            found.append(NeededFloor(part.floor, part.floor_readings, part.units))
    return tuple(found)


def needs_flow_in_levels(config: StopConfig) -> bool:
    """Return whether a rule compares flow while a level trains, not only right after pruning.

    Example:
        >>> needs_flow_in_levels(ShockBudget()), needs_flow_in_levels(Settling())
        (False, True)
    """
    return any(isinstance(part, _FlowConfig | MatrixFlow | Settling) for part in rule_parts(config))


def needs_mask(config: StopConfig) -> bool:
    """Return whether a rule looks at the mask that would be drawn next."""
    return any(isinstance(part, MaskDistance) for part in rule_parts(config))


def needs_metric(config: StopConfig) -> bool:
    """Return whether a rule looks at the held-out main metric."""
    return any(isinstance(part, AccuracyTarget | Plateau) for part in rule_parts(config))


def named_passes(config: StopConfig) -> tuple[float, ...]:
    """Return the passes that a rule and its parts name: a level is read there.

    Example:
        >>> named_passes(AtLeast(passes=0.5, of=FixedBudget(passes=1.5)))
        (0.5, 1.5)
    """
    return tuple(
        part.passes
        for part in rule_parts(config)
        if isinstance(part, AtLeast | AtMost | FixedBudget) and part.passes is not None
    )


def _rule(config: StopConfig) -> StopRule:
    if isinstance(config, FixedBudget):
        return BudgetRule(passes=config.passes)
    if isinstance(config, RelativeInformationFlow | RelativeGradientFlow):
        return FlowRule(_flow(config), config.epsilon, relative_flow_distance)
    if isinstance(config, InformationFlow | GradientFlow):
        return FlowRule(_flow(config), config.epsilon, flow_distance, _reference_flow(config))
    if isinstance(config, AccuracyTarget):
        return AccuracyRule(target=config.target, margin=config.margin)
    if isinstance(config, Plateau):
        return PlateauRule(patience=config.patience, improvement=config.improvement)
    if isinstance(config, LossPlateau):
        return LossRule(patience=config.patience, improvement=config.improvement)
    if isinstance(config, MatrixFlow | ShockBudget | Settling | MaskDistance):
        return _of_matrices(config)
    return _combined(config)


def _of_matrices(config: MatrixFlow | ShockBudget | Settling | MaskDistance) -> StopRule:
    settings = config.model_dump(exclude={"rule"})
    if isinstance(config, MatrixFlow):
        return MatrixRule(**settings)
    if isinstance(config, ShockBudget):
        return ShockRule(**settings)
    return SettlingRule(**settings) if isinstance(config, Settling) else MaskRule(**settings)


def _combined(config: StopConfig) -> StopRule:
    if isinstance(config, AnyOf):
        return AnyOfRule(tuple(map(_rule, config.rules)))
    if isinstance(config, AllOf):
        return AllOfRule(tuple(map(_rule, config.rules)))
    if isinstance(config, AtLeast):
        return AtLeastRule(config.passes, _rule(config.of))
    if isinstance(config, AtMost):
        return AtMostRule(config.passes, _rule(config.of))
    raise ConfigError(
        f"build_rule: expected a stop rule of infcop.core.method, got {type(config).__name__}"
    )


def _flow(config: _FlowConfig) -> Flow:
    """Return the name under which a reading holds what a rule compares."""
    if isinstance(config, InformationFlow | RelativeInformationFlow):
        return _INFORMATION[config.statistic]
    return _GRADIENT[config.statistic]


def _reference_flow(config: _FlowConfig) -> Flow:
    """Return the name under which the reference holds what it is compared with."""
    if isinstance(config, GradientFlow) and config.reference_statistic is not None:
        return _GRADIENT[config.reference_statistic]
    return _flow(config)
