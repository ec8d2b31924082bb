"""What the public code of arXiv 2501.15592 does otherwise than ``infcop-if`` and ``infcop-gf``.

For reproduction only: the card of each method says what is imitated and what is not.
"""

from __future__ import annotations

from infcop.core.method import GradientFlow, MethodConfig, Rewind
from infcop.methods.infcop_published import infcop_gf, infcop_if

__all__ = ["infcop_gf_reference_code", "infcop_if_reference_code"]

_REWIND = Rewind(to="warm-up", restores="prunable-weights")


def infcop_if_reference_code() -> MethodConfig:
    """As ``infcop-if``, but only the surviving prunable weights go back."""
    return infcop_if().model_copy(update={"name": "infcop-if-reference-code", "rewind": _REWIND})


def infcop_gf_reference_code() -> MethodConfig:
    """As ``infcop-gf``, but present norms are compared with means of the reference.

    Only the surviving prunable weights go back.
    """
    return infcop_gf().model_copy(
        update={
            "name": "infcop-gf-reference-code",
            "rewind": _REWIND,
            "stop": GradientFlow(epsilon=0.5, statistic="norm", reference_statistic="mean"),
        }
    )
