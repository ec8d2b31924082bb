"""The demonstration: a real search on data that needs no download."""

from __future__ import annotations

from infcop.core.config import RunConfig
from infcop.pipeline.configure import resolve_config

__all__ = ["demo_config"]


def demo_config() -> RunConfig:
    """Return the settings of ``infcop demo``: handwritten digits, LeNet-300-100, 20 and 5 %."""
    return resolve_config(
        {
            "density": 0.05,
            "milestones": [0.2],
            "method": "infcop",
            "data": {"name": "digits"},
            "model": {"name": "lenet-300-100"},
            "training": {"batch_size": 32, "schedule": "cosine"},
            "dense": {"passes": 30},
            "levels": {"max_passes": 30},
            "final": {"passes": 30},
            # A fifth of the few training examples.
            "probe_examples": 256,
            # One thread is the fastest here, and the same everywhere.
            "execution": {"threads": 1},
        }
    )
