"""Footprints with the numbers that a test asks for."""

from __future__ import annotations

from typing import Any

from infcop.core.footprint import Footprint, LayerSizes, NetworkFootprint, NetworkKind, Timing

__all__ = ["make_footprint", "make_timings"]

_SIZES: dict[NetworkKind, tuple[int, int, int, int, int]] = {
    "dense": (10_000, 10_000, 400_000, 41_000, 2_048),
    "masked": (10_000, 500, 400_000, 41_000, 2_048),
    "compact": (2_500, 500, 100_000, 11_000, 1_024),
}


def make_timings(scale: float, threads: tuple[int, ...] = (1, 2)) -> tuple[Timing, ...]:
    """Timings of which each has quartiles a tenth off its median."""
    return tuple(
        Timing(
            batch=batch,
            threads=count,
            median=scale * batch / count,
            lower=0.9 * scale * batch / count,
            upper=1.1 * scale * batch / count,
            repeats=9,
            calls=10,
        )
        for batch in (1, 64)
        for count in threads
    )


def make_footprint(
    *, timed: bool = True, layers: int = 4, name: str = "layers.{}.conv", **changes: Any
) -> Footprint:
    """A compact network that is four times smaller and twice as fast; without ONNX."""
    speeds = {"dense": 0.002, "masked": 0.00205, "compact": 0.001}
    networks = [
        NetworkFootprint(
            network=kind,
            metrics={"accuracy": 0.912, "loss": 0.3},
            parameters=sizes[0],
            nonzero=sizes[1],
            multiply_adds=sizes[2],
            uncounted={"relu": 3, "_softmax": 1},
            file_bytes=sizes[3],
            activation_bytes=sizes[4],
            timings=make_timings(speeds[kind]) if timed else (),
        )
        for kind, sizes in _SIZES.items()
    ]
    networks.append(NetworkFootprint(network="onnx", missing="not exported yet"))
    weights = [
        LayerSizes(
            name=name.format(place),
            kind="Conv2d",
            before={"weight": (16, 8, 3, 3), "bias": (16,)},
            after={"weight": (16 - place % 5, 8, 3, 3), "bias": (16 - place % 5,)},
            outputs=(16, 16 - place % 5),
            reason=None if place % 5 else "every unit is used",
        )
        for place in range(layers)
    ]
    norm = LayerSizes(
        name="norm", kind="LayerNorm", before={"weight": (8,)}, after={"weight": (8,)}, reason="x"
    )
    settings: dict[str, Any] = {
        "networks": tuple(networks),
        "layers": (*weights, norm),
        "main_metric": "accuracy",
        "measured_on": "test",
        "versions": {"torch": "2"},
        "hardware": {"device": "cpu", "threads": "2"},
    }
    return Footprint(**{**settings, **changes})
