"""Information consistent pruning (Gharatappeh and Yasaei Sekeh, arXiv 2501.15592).

The pruning is that of ``sap``; only the stop rule differs. The thresholds are those of the
authors' runs. They belong to the vectors of their networks: the length of the difference grows
with the number of layers.
"""

from __future__ import annotations

from infcop.core.method import FlowConfig, GradientFlow, InformationFlow, MethodConfig
from infcop.methods.sap import sap

__all__ = ["infcop_gf", "infcop_if"]


def infcop_if() -> MethodConfig:
    """Stop a level when the signed mean correlations lie within 0.11 of the reference."""
    return sap().model_copy(
        update={
            "name": "infcop-if",
            "stop": InformationFlow(epsilon=0.11),
            "flow": FlowConfig(edges="main-path"),
        }
    )


def infcop_gf() -> MethodConfig:
    """Stop a level when the gradient norms per batch lie within 0.5 of the reference."""
    return sap().model_copy(
        update={
            "name": "infcop-gf",
            "stop": GradientFlow(epsilon=0.5),
            "flow": FlowConfig(gradient="per-batch"),
        }
    )
