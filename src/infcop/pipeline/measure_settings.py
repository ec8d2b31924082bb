"""From the words of ``infcop measure`` to settings and a place for the page. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["measure_settings", "page_path"]


def measure_settings(
    *,
    data: str | None = None,
    data_dir: str | None = None,
    examples: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    edges: str | None = None,
    gradient: str | None = None,
) -> dict[str, Any]:
    """Return what was asked for as settings of a run; what was not keeps its default.

    But for what flow is measured on: methods choose that for their stop rules, while here all of
    the graph is shown.

    Example:
        >>> measure_settings(data="mnist", edges="conv1,conv2")["data"]
        {'name': 'mnist'}
        >>> measure_settings(edges="conv1,conv2")
        {'method': {'flow': {'edges': ['conv1', 'conv2'], 'gradient': 'full'}}}
    """
    whole = edges in (None, "graph", "main-path")
    asked: dict[str, Any] = {
        "data": {"name": data, "dir": data_dir},
        "training": {"batch_size": batch_size},
        "method": {
            "flow": {
                "edges": (edges or "graph")
                if whole
                else [name.strip() for name in str(edges).split(",")],
                "gradient": gradient or "full",
            }
        },
        "probe_examples": examples,
        "seed": seed,
    }
    return _given(asked)


def page_path(model: str) -> Path:
    """Return where the page of a model goes by default.

    Example:
        >>> page_path("resnet-20").as_posix(), page_path("my_nets:wide_net").as_posix()
        ('measure/resnet-20.html', 'measure/my_nets-wide_net.html')
        >>> page_path("runs/digits/").as_posix()
        'measure/digits.html'
    """
    name = re.sub(r"[^\w.-]+", "-", re.split(r"[/\\]", model.rstrip("/\\"))[-1]).strip(".-")
    return Path("measure") / f"{name or 'model'}.html"


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings without what is None and what is empty."""
    kept = {
        key: _given(value) if isinstance(value, dict) else value for key, value in settings.items()
    }
    return {key: value for key, value in kept.items() if value is not None and value != {}}
