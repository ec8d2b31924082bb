"""Times that an earlier command measured, for networks that are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from infcop.core.footprint import Footprint, NetworkFootprint
from infcop.errors import RunFolderError
from infcop.pipeline.pages import load_footprint
from infcop.pipeline.store import RunStore

__all__ = ["earlier_times", "sha256_of", "today", "with_earlier_times"]

_PART = 2**20
"""Bytes that are read at once."""

_UNTIMED = (
    "its time was not measured with those of the others; infcop compact RUN --report measures all"
)


def earlier_times(store: RunStore) -> Footprint | None:
    """Return what an earlier command found, if it measured times and they can be read."""
    try:
        found = load_footprint(store)
    except RunFolderError:
        return None  # it is written anew, whatever it was
    timed = found is not None and any(network.timings for network in found.networks)
    return found if timed else None


def with_earlier_times(found: Footprint, earlier: Footprint) -> Footprint | None:
    """Return the same with the times that were measured earlier; None if they are of others.

    An ONNX file may have been written anew since: its time is kept where its size and its weights
    are what they were.

    Args:
        found: What was found now, without times.
        earlier: What an earlier command found.
    """
    if found.source_sha256 is None or _identity(found) != _identity(earlier):
        return None
    networks = tuple(_timed(network, earlier) for network in found.networks)
    told = earlier.timed_with
    return found.model_copy(update={"networks": networks, "timed_with": told})


def sha256_of(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the contents of files, one after the other.

    Raises:
        OSError: One can't be read.
    """
    whole = hashlib.sha256()
    for path in files:
        own = hashlib.sha256()
        with path.open("rb") as file:
            while part := file.read(_PART):
                own.update(part)
        whole.update(own.digest())
    return whole.hexdigest()


def today() -> str:
    """Return the date of today in UTC, as in 2026-01-31."""
    return datetime.now(timezone.utc).date().isoformat()


def _identity(footprint: Footprint) -> tuple[object, ...]:
    """Return what times depend on, but for the machine: the networks and what they are given."""
    removed = (footprint.layers, footprint.new_biases)
    return (footprint.source_sha256, *removed, footprint.inputs)


def _timed(network: NetworkFootprint, earlier: Footprint) -> NetworkFootprint:
    before = earlier.of(network.network)
    if network.network != "onnx":
        return network if before is None else _with_times_of(network, before)
    if network.parameters is None:
        return network  # there is none, and its row says why
    if before is not None and _weights(network) == _weights(before):
        return _with_times_of(network, before).model_copy(update={"missing": before.missing})
    return network.model_copy(update={"missing": f"{network.missing}; {_UNTIMED}"})


def _with_times_of(network: NetworkFootprint, before: NetworkFootprint) -> NetworkFootprint:
    return network.model_copy(update={"timings": before.timings})


def _weights(network: NetworkFootprint) -> tuple[int | None, ...]:
    return network.parameters, network.nonzero, network.file_bytes
