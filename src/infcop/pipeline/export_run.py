"""Exporting what the folder of a finished run holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from infcop.data.arrays import ImageSet
from infcop.data.registry import load_set
from infcop.pipeline.exporting import Exported, Source, export_files, formats_of
from infcop.pipeline.rebuild import rebuild

__all__ = ["data_sha256", "export_run"]


def export_run(
    folder: str | os.PathLike[str],
    to: str | Sequence[str],
    *,
    network: str | None = None,
    model: str | None = None,
    data_dir: str | None = None,
    out: Path | None = None,
    licence: str | None = None,
) -> tuple[Exported, ...]:
    """Write the network of a finished run in one or several formats.

    Args:
        folder: The run folder.
        to: Formats, in a list or with commas between.
        network: ``masked`` or ``compact``; by default what fits the format.
        model: ``package.module:factory`` that returns the model and a task or example inputs, for
            a run from Python.
        data_dir: Folder of the data files; by default where the run found them.
        out: Folder for the files; by default ``export`` in the run folder.
        licence: Of the weights, for the manifest.

    Raises:
        InfcopError: As of ``rebuild`` and ``export_files``.
    """
    formats_of(to)  # what is misspelt is said before the data is read
    run = rebuild(folder, model=model, data_dir=data_dir)
    result = run.result
    data, digest = result.record.data, None
    if data.name != "custom":
        digest = data_sha256(load_set(data.name, data_dir or result.record.config["data"]["dir"]))
    source = Source(
        record=result.record,
        masked=result.model,
        compact=lambda: result.compact().model,
        inputs=run.example_inputs,
        examples=run.examples,
        data_sha256=digest,
    )
    if out is not None:
        return export_files(source, to, out, network=network, licence=licence)
    with run.store.locked():
        return export_files(source, to, run.store.exports, network=network, licence=licence)


def data_sha256(images: ImageSet) -> str:
    """Return the SHA-256 of all images and labels of a data set, in its own order.

    For the training and then the test part: the shape of the images in decimal digits with commas
    between, a colon, their bytes, and the labels as little-endian integers of 64 bits.

    Example:
        >>> from infcop.data.digits import load_digits
        >>> data_sha256(load_digits())[:8]
        '8ee52913'
    """
    digest = hashlib.sha256()
    for part in (images.train, images.test):
        pixels = part.images.contiguous().numpy()
        digest.update(f"{','.join(map(str, pixels.shape))}:".encode())
        digest.update(pixels.tobytes())
        digest.update(part.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
