"""What ``infcop.measure`` returns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from infcop.core.edges import Edge
from infcop.core.measurement import (
    MEASUREMENT_VERSION,
    MeasuredEdge,
    MeasuredLayer,
    MeasurementRecord,
)
from infcop.core.names import did_you_mean
from infcop.errors import FlowError
from infcop.report.graph_page import write_graph
from infcop.report.graph_words import measurement_lines

__all__ = ["Measurement"]


class Measurement:
    """Prunable layers, edges and flow of a model.

    Args:
        record: All numbers; the same for the same model, data and seed.
        matrices: The correlation matrices that were kept.

    Attributes:
        record: As given.

    Example:
        >>> record = MeasurementRecord(
        ...     model="net", examples=2, seed=0, parameters=8, prunable=8, layers=[], edges=[])
        >>> Measurement.from_json(Measurement(record).to_json()).record == record
        True
    """

    def __init__(
        self, record: MeasurementRecord, matrices: Mapping[Edge, Tensor] | None = None
    ) -> None:
        self.record = record
        self._matrices = dict(matrices or {})

    @property
    def layers(self) -> tuple[MeasuredLayer, ...]:
        """The prunable layers, in the order of execution."""
        return self.record.layers

    @property
    def edges(self) -> tuple[MeasuredEdge, ...]:
        """The edges, in the order of the consumers, then of the producers."""
        return self.record.edges

    def matrix(self, edge: Edge) -> Tensor:
        """Return the correlations of an edge, float64 of shape ``[C_producer, C_consumer]``.

        Args:
            edge: Names of producer and consumer.

        Raises:
            FlowError: No matrices were kept, or there is no such edge.
        """
        if not self._matrices:
            raise FlowError(
                "Measurement.matrix: no matrices were kept; measure with matrices=True and with "
                "'information' among the kinds"
            )
        if edge not in self._matrices:
            known = (" -> ".join(names) for names in self._matrices)
            raise FlowError(
                f"Measurement.matrix: no edge {edge!r} was measured; expected a pair of names; "
                f"{did_you_mean(' -> '.join(map(str, edge)), known)}"
            )
        return self._matrices[edge]

    def summary(self) -> str:
        """Return findings and tables as plain text."""
        return "\n".join(measurement_lines(self.record))

    def to_json(self) -> str:
        """Return all but the matrices as JSON; what is not finite becomes a string."""
        return self.record.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """Return what ``to_json`` wrote; without matrices.

        Raises:
            FlowError: The text is no measurement, or a newer infcop wrote it.
        """
        try:
            content = json.loads(text)
            version = content.get("schema_version") if isinstance(content, dict) else None
            if isinstance(version, int) and version > MEASUREMENT_VERSION:
                raise FlowError(
                    f"Measurement.from_json: this was written by a newer infcop (version {version},"
                    f" this one reads up to {MEASUREMENT_VERSION}); upgrade infcop to read it"
                )
            return cls(MeasurementRecord.model_validate(content))
        except FlowError:
            raise
        except ValueError as error:
            raise FlowError(
                f"Measurement.from_json: expected what to_json wrote, got something else: {error}"
            ) from error

    def write_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page with a picture of the graph and all tables; it needs no network.

        Raises:
            RunFolderError: The file can't be written; what was there before is left as it was.
        """
        return write_graph(self.record, path)
