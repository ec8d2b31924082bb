"""How forms of a network compare: by what was counted, and by what was measured."""

from __future__ import annotations

from infcop.core.footprint import Footprint, NetworkFootprint, Timing

__all__ = ["fewer_multiply_adds", "is_timed", "overlap", "places", "speed_up", "timings_at"]


def is_timed(footprint: Footprint) -> bool:
    """Return whether the time of any network was measured."""
    return any(network.timings for network in footprint.networks)


def places(footprint: Footprint) -> list[tuple[int, int]]:
    """Return every batch size and number of threads that networks were timed at, in order."""
    found = {(t.batch, t.threads) for network in footprint.networks for t in network.timings}
    return sorted(found)


def timings_at(
    footprint: Footprint, batch: int, threads: int
) -> list[tuple[NetworkFootprint, Timing]]:
    """Return the networks that were timed at a place, with their timings."""
    pairs = [(network, network.timing(batch, threads)) for network in footprint.networks]
    return [(network, timing) for network, timing in pairs if timing is not None]


def speed_up(footprint: Footprint, network: NetworkFootprint, timing: Timing) -> float | None:
    r"""Return the measured speed-up: median time of the dense network over that of another.

    :math:`\mathrm{median}(t_\mathrm{dense}) / \mathrm{median}(t)`, at the same batch size and
    number of threads. None for the dense network itself, and where that was not timed.
    """
    dense = _dense_timing(footprint, timing)
    if network.network == "dense" or dense is None or not timing.median:
        return None
    return dense.median / timing.median


def overlap(footprint: Footprint, timing: Timing) -> bool:
    """Return whether the middle half of a network's times meets that of the dense network."""
    dense = _dense_timing(footprint, timing)
    return dense is not None and timing.lower <= dense.upper and dense.lower <= timing.upper


def fewer_multiply_adds(footprint: Footprint, network: NetworkFootprint) -> float | None:
    """Return the multiply-adds of the dense network over those of another.

    It is a count and not a speed-up: show it beside the measured one only.
    """
    dense = footprint.of("dense")
    if network.network == "dense" or dense is None:
        return None
    if dense.multiply_adds is None or not network.multiply_adds:
        return None
    return dense.multiply_adds / network.multiply_adds


def _dense_timing(footprint: Footprint, timing: Timing) -> Timing | None:
    dense = footprint.of("dense")
    return None if dense is None else dense.timing(timing.batch, timing.threads)
