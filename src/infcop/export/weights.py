"""Files of plain weights: safetensors, and PyTorch's own."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from infcop.export.manifest import Manifest
from infcop.export.tensors import Plain
from infcop.export.writing import write_whole

__all__ = ["write_safetensors", "write_state_dict"]


def write_safetensors(found: Plain, path: Path, manifest: Manifest) -> None:
    """Write tensors as safetensors; the manifest is the entry ``infcop`` of the metadata.

    A tied tensor is written under its first name: ``safetensors.torch.load_model`` restores the
    others.

    Raises:
        ExportError: The file can't be written.
    """
    metadata = {"infcop": manifest.model_dump_json()}
    write_whole(path, lambda place: save_file(found.tensors, place, metadata))


def write_state_dict(found: Plain, path: Path) -> None:
    """Write tensors under all their names as ``torch.save`` does.

    ``torch.load`` reads it with ``weights_only=True``: it holds a plain dictionary of tensors.

    Raises:
        ExportError: The file can't be written.
    """
    named = {**found.tensors, **{name: found.tensors[to] for name, to in found.tied.items()}}

    def fill(place: Path) -> None:
        # Given a path, torch would write its name into the file.
        with place.open("wb") as file:
            torch.save(named, file)

    write_whole(path, fill)
