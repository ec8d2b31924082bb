"""From a stop rule's configuration to the rule."""

from __future__ import annotations

from infcop.core.method import (
    AccuracyTarget,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    FixedBudget,
    GradientFlow,
    InformationFlow,
    Plateau,
    RelativeGradientFlow,
    RelativeInformationFlow,
    StopConfig,
)
from infcop.core.records import Flow
from infcop.errors import ConfigError
from infcop.stopping.accuracy import AccuracyRule
from infcop.stopping.budget import BudgetRule
from infcop.stopping.combine import AllOfRule, AnyOfRule, AtLeastRule, AtMostRule
from infcop.stopping.flow import FlowRule, flow_distance, relative_flow_distance
from infcop.stopping.plateau import PlateauRule
from infcop.stopping.rule import StopRule

__all__ = ["build_rule", "named_passes", "needed_flows"]

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
    if isinstance(config, _FlowConfig):
        return frozenset({_flow(config)})
    if isinstance(config, AnyOf | AllOf):
        return frozenset().union(*map(needed_flows, config.rules))
    if isinstance(config, AtLeast | AtMost):
        return needed_flows(config.of)
    return frozenset()


def named_passes(config: StopConfig) -> tuple[float, ...]:
    """Return the passes that a rule and its parts name: a level is read there.

    Example:
        >>> named_passes(AtLeast(passes=0.5, of=FixedBudget(passes=1.5)))
        (0.5, 1.5)
    """
    if isinstance(config, AnyOf | AllOf):
        return tuple(passes for rule in config.rules for passes in named_passes(rule))
    if isinstance(config, AtLeast | AtMost):
        return (config.passes, *named_passes(config.of))
    if isinstance(config, FixedBudget) and config.passes is not None:
        return (config.passes,)
    return ()


def _rule(config: StopConfig) -> StopRule:
    if isinstance(config, FixedBudget):
        return BudgetRule(passes=config.passes)
    if isinstance(config, RelativeInformationFlow | RelativeGradientFlow):
        return FlowRule(_flow(config), config.epsilon, relative_flow_distance)
    if isinstance(config, InformationFlow | GradientFlow):
        return FlowRule(_flow(config), config.epsilon, flow_distance)
    if isinstance(config, AccuracyTarget):
        return AccuracyRule(target=config.target, margin=config.margin)
    if isinstance(config, Plateau):
        return PlateauRule(patience=config.patience, improvement=config.improvement)
    return _combined(config)


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
        return "information.signed" if config.statistic == "signed" else "information.absolute"
    return "gradient.norm" if config.statistic == "norm" else "gradient.mean"
