"""What a compact network takes, in words."""

from __future__ import annotations

from collections import Counter

from infcop.core.footprint import Footprint, NetworkFootprint
from infcop.report import words
from infcop.report.accounting import fewer_multiply_adds, overlap, places, speed_up, timings_at
from infcop.report.operator_words import operator_name

__all__ = [
    "NAMES",
    "data_size",
    "footprint_sentences",
    "latency",
    "timed_sentence",
    "uncounted_sentence",
]

NAMES = {"dense": "dense", "masked": "masked", "compact": "compact", "onnx": "ONNX"}
"""How networks are called."""


def data_size(count: int | None) -> str:
    """Return a number of bytes in powers of 1000, with three digits.

    Example:
        >>> data_size(0), data_size(999), data_size(20480), data_size(1106296), data_size(None)
        ('0 B', '999 B', '20.5 kB', '1.11 MB', 'not measured')
    """
    if count is None:
        return "not measured"
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{_three_digits(value)} {unit}"


def latency(seconds: float) -> str:
    """Return a short time with three digits.

    Example:
        >>> latency(2.5), latency(0.01234), latency(0.00000123)
        ('2.50 s', '12.3 ms', '1.23 µs')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def _three_digits(value: float) -> str:
    for below, decimals in ((9.995, 2), (99.95, 1)):
        if value < below:
            return f"{value:.{decimals}f}"
    return f"{value:,.0f}"


def footprint_sentences(footprint: Footprint) -> list[str]:
    """Return what the compact network keeps, and how fast it is if that was measured."""
    dense, compact = footprint.of("dense"), footprint.of("compact")
    if dense is None or compact is None or not dense.parameters or compact.parameters is None:
        return []
    kept = compact.parameters / dense.parameters
    first = (
        f"With all that is dead left out, the network has {words.count(compact.parameters)} of "
        f"{words.count(dense.parameters)} parameters, {words.percent(kept)}, and does the same."
    )
    if compact.parameters == dense.parameters:
        first = (
            "Nothing could be left out: in every layer each unit has a weight that survives, or "
            "something else needs it."
        )
    return [first, *_speed(footprint, compact)]


def _speed(footprint: Footprint, compact: NetworkFootprint) -> list[str]:
    told = []
    for batch, threads in places(footprint):
        for network, timing in timings_at(footprint, batch, threads):
            found = speed_up(footprint, network, timing)
            if network is compact and found is not None:
                chance = ", which may be chance" if overlap(footprint, timing) else ""
                place = f"batch {batch} and {words.plural(threads, 'thread')}"
                told.append(f"{found:.2f} at {place}{chance}")
    if not told:
        return []
    fewer = fewer_multiply_adds(footprint, compact)
    counted = "" if fewer is None else f", with {fewer:.2f} times fewer multiply-adds"
    return [f"Its measured speed-up over the dense network{counted}: {'; '.join(told)}."]


def uncounted_sentence(footprint: Footprint) -> str:
    """Return what multiply-adds count, and the operations that they leave out."""
    counted = (
        "Multiply-adds are per example and count matrix products and convolutions, those with "
        "zeros too."
    )
    calls: Counter[str] = Counter()
    for network in footprint.networks:
        own: Counter[str] = Counter()
        for name, number in network.uncounted.items():
            own[operator_name(name)] += number
        calls |= own
    if not calls:
        return f"{counted} Nothing else is computed."
    listing = ", ".join(f"{name} ({number})" for name, number in calls.items())
    return f"{counted} Not counted, with the number of calls: {listing}."


def timed_sentence(footprint: Footprint) -> str:
    """Return when and on what times were measured, as far as that is known.

    Example:
        >>> told = {"date": "2026-01-31", "torch": "2.9", "device": "cpu", "system": "Linux"}
        >>> timed_sentence(Footprint(networks=(), layers=(), timed_with=told))
        'Times were measured on 2026-01-31, on cpu, Linux, with torch 2.9.'
    """
    known = footprint.timed_with or {**footprint.versions, **footprint.hardware}
    place = [known[key] for key in ("device", "system") if key in known]
    parts = [f"on {known['date']}"] if "date" in known else []
    parts += [f"on {', '.join(place)}"] if place else []
    parts += [f"with torch {known['torch']}"] if "torch" in known else []
    return f"Times were measured {', '.join(parts)}." if parts else ""
