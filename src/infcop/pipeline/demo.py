"""The demonstration: a real search on data that needs no download."""

from __future__ import annotations

from infcop.core.config import RunConfig
from infcop.pipeline.configure import resolve_config

__all__ = ["demo_config"]


def demo_config() -> RunConfig:
    """Return the settings of ``infcop demo``: handwritten digits, LeNet-300-100, 5 % density."""
    return resolve_config(
        {
            "density": 0.05,
            "method": {
                "name": "infcop-gf",
                "schedule": {"p": 1, "q": 2},
                "rewind": {"to": "epoch", "passes": 5},
                # Small enough for the rule to have something to decide on this small problem.
                "stop": {"epsilon": 0.1},
            },
            "data": {"name": "digits"},
            "model": {"name": "lenet-300-100"},
            "training": {"batch_size": 32, "schedule": "cosine"},
            "dense": {"passes": 30},
            "levels": {"max_passes": 30},
            "final": {"passes": 30},
            # One thread is the fastest here, and the same everywhere.
            "execution": {"threads": 1},
        }
    )
