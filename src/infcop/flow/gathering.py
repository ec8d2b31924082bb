"""What a reading is made of while it is being taken, whatever its source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infcop.core.edges import Edges
from infcop.core.records import Flow
from infcop.errors import FlowError
from infcop.flow import reduce
from infcop.flow.gradient import GradientStatistics
from infcop.flow.information import alignment, both_means, dead_units
from infcop.flow.moments import CoMoments
from infcop.flow.reading import FlowReading, Source
from infcop.flow.sampling import (
    STATISTICS,
    Precision,
    bias_bounds,
    covariances,
    distance_error,
    standard_errors,
)
from infcop.flow.stream import InformationStream
from infcop.flow.taps import Pass

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Gathering"]

_ALIGNMENT: Flow = "information.cka"


class Gathering:
    """Takes in batches and gives a reading at the end.

    Args:
        edges: What information flow is measured on; None where it is not measured.
        parameters: What gradient flow is measured on.
        gradients: Their statistics; None where they are not measured.
        errors: Whether standard errors are wanted; costs memory for all pooled activations.
        keep: Whether the activations are needed while reading, for an adaptive probe.
        alignment: Whether the alignment of the ends of every edge is wanted.
        group: The processes that measure together; None for this one alone.
        device: Where the model is.
    """

    def __init__(
        self,
        edges: Edges | None,
        parameters: Mapping[str, Tensor],
        gradients: GradientStatistics | None,
        *,
        errors: bool,
        keep: bool,
        alignment: bool,
        group: ProcessGroup | None,
        device: torch.device,
    ) -> None:
        self._edges, self._parameters, self._gradients = edges, parameters, gradients
        self._errors, self._group, self._device = errors, group, device
        self.stream = None
        if edges is not None:
            self.stream = InformationStream(edges, keep=errors or keep, own=alignment)
        self.examples = 0
        self._losses: list[Tensor | None] = []

    def add(
        self,
        examples: int,
        passes: list[Pass],
        gradients: Mapping[str, Tensor] | None = None,
        loss: Tensor | None = None,
    ) -> None:
        """Take in one batch: its forward passes and its gradients."""
        self.examples += examples
        if self.stream is not None:
            self.stream.add(passes)
        if self._gradients is not None and gradients is not None:
            self._gradients.update(gradients, examples)
        self._losses.append(None if loss is None else loss.detach())

    def is_precise(self, wanted: Precision) -> bool:
        """Whether the distance to a reference is known well enough."""
        if self.stream is None or self._edges is None:
            return True
        moments = self.stream.flush()
        if _too_few(moments):
            return False
        vector = dict(zip(STATISTICS, both_means(moments), strict=True))[wanted.statistic]
        covariance = covariances(moments, self._edges, self.stream.kept)[wanted.statistic]
        error = distance_error(vector, wanted.reference, covariance)
        if wanted.statistic == "information.absolute":
            error += float(bias_bounds(moments).norm())
        return error <= wanted.within

    def reading(
        self,
        source: Source,
        *,
        keep_moments: bool,
        strict: bool,
        failure: Exception | None = None,
    ) -> FlowReading:
        """Return the reading of everything taken in, the same in all processes.

        Args:
            source: Where the batches came from.
            keep_moments: Whether the reading shall hold the moments.
            strict: Whether to raise where something is not finite.
            failure: What went wrong in this process while it took in its batches.

        Raises:
            FlowError: There is no example, or (with ``strict``) something is not finite.
        """
        if self._group is not None:
            reduce.agree(failure or self._failure(), self._settings, self._group, self._device)
        examples = self._reduced(self.examples)
        if examples == 0:
            raise FlowError(
                "FlowMeter: expected at least one batch with an example, got none; give the "
                "batches as a list or loader that can be iterated over again, and train or read "
                "before asking for a reading"
            )
        flows: dict[Flow, tuple[float, ...]] = {}
        dead: dict[str, int] = {}
        errors: dict[Flow, tuple[float, ...]] = {}
        few: list[str] = []
        moments = None
        if self.stream is not None and self._edges is not None:
            moments = self._moments(self.stream)
            few = _too_few(moments)
            if few and not strict:
                names = STATISTICS if self.stream.own is None else (*STATISTICS, _ALIGNMENT)
                flows |= dict.fromkeys(names, (math.nan,) * len(moments.edges))
            else:
                flows |= zip(STATISTICS, both_means(moments), strict=True)
                dead = dead_units(moments)
                if self.stream.own is not None:
                    first, second = map(self._joined, self.stream.own)
                    flows[_ALIGNMENT] = alignment(moments, (first, second))
            if self._errors and not few:
                errors = self._standard_errors(moments, self.stream, self._edges)
        if self._gradients is not None:
            gradients = self._gradients
            if self._group is not None:
                gradients = reduce.reduce_gradients(gradients, self._parameters, self._group)
            flows["gradient.norm"] = gradients.norm()
            flows["gradient.mean"] = gradients.mean()
        if self._group is not None:
            flows, errors = self._first(flows), self._first(errors)
        measured = examples if source == "probe" else 0
        backward = measured if self._gradients is not None else 0
        reading = FlowReading(
            source=source,
            flows=flows,
            dead_units=dead,
            examples=examples,
            forward_examples=measured - backward,
            gradient_examples=backward,
            standard_errors=errors,
            # A copy: what is taken in later must not change an earlier reading.
            moments=moments.merge(CoMoments(moments.edges)) if keep_moments and moments else None,
        )
        return reading if reading.is_finite else self._non_finite(reading, few, strict)

    @property
    def _settings(self) -> str:
        edges = () if self._edges is None else self._edges.edges
        also = ", with standard errors" if self._errors else ""
        if self.stream is not None and self.stream.own is not None:
            also += ", with alignment"
        statistics = type(self._gradients).__name__
        return f"edges {edges}, {statistics} of {tuple(self._parameters)}{also}"

    def _failure(self) -> Exception | None:
        """Finish what this process does alone, and return what goes wrong with it."""
        try:
            if self.stream is not None:
                self.stream.flush()
        except Exception as error:  # lack of memory, a device that reports late
            return error
        return None

    def _first(self, vectors: Mapping[Flow, tuple[float, ...]]) -> dict[Flow, tuple[float, ...]]:
        """Return the first process's vectors."""
        if self._group is None or not vectors:
            return dict(vectors)
        entries = [value for vector in vectors.values() for value in vector]
        values = iter(reduce.first_values(entries, self._group, self._device))
        return {name: tuple(islice(values, len(vector))) for name, vector in vectors.items()}

    def _reduced(self, examples: int) -> int:
        if self._group is None:
            return examples
        return reduce.reduced_counts((examples,), self._group, self._device)[0]

    def _moments(self, stream: InformationStream) -> CoMoments:
        return self._joined(stream.flush())

    def _joined(self, moments: CoMoments) -> CoMoments:
        if self._group is None:
            return moments
        return reduce.reduce_moments(moments, self._group, self._device)

    def _standard_errors(
        self, moments: CoMoments, stream: InformationStream, edges: Edges
    ) -> dict[Flow, tuple[float, ...]]:
        found = covariances(moments, edges, stream.kept)
        if self._group is not None:
            # Each process has its own examples' part of the sum over examples.
            found = {name: reduce.reduce_tensor(c, self._group) for name, c in found.items()}
        return {name: standard_errors(covariance) for name, covariance in found.items()}

    def _non_finite(self, reading: FlowReading, few: list[str], strict: bool) -> FlowReading:
        places: dict[str, int | None] = dict.fromkeys(few)
        if self.stream is not None:
            places |= self.stream.first_non_finite()
        if self._gradients is not None:
            bad = [
                batch
                for batch, loss in enumerate(self._losses)
                if loss is not None and not bool(loss.isfinite())
            ]
            for name, value in zip(self._parameters, reading.flows["gradient.norm"], strict=True):
                if not torch.tensor(value).isfinite():
                    places[name] = bad[0] if bad else None
        if strict:
            raise FlowError(_sentence(places, alone=self._group is None))
        return replace(reading, non_finite=places)


def _too_few(moments: CoMoments) -> list[str]:
    """Return the consumers of the edges that have fewer than two examples."""
    known = moments.parts
    return [edge[1] for edge in moments.edges if edge not in known or known[edge].n < 2]


def _sentence(places: Mapping[str, int | None], *, alone: bool) -> str:
    known = [
        f"'{name}'" + ("" if batch is None else f" from batch {batch} on")
        for name, batch in places.items()
    ]
    where = ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
    elsewhere = "somewhere, as sums of finite numbers overflow" if alone else "in another process"
    return (
        "flow: expected finite activations and gradients, got NaN or infinity "
        f"{'in ' + where if known else elsewhere} (batches count from 0); look for non-finite "
        "inputs or weights"
    )
