"""The dense training of runs that start alike, trained once and taken from a folder after that."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from infcop.core.config import SearchConfig
from infcop.pipeline.store import RunStore
from infcop.rewinding.snapshot import Snapshot
from infcop.training.phase import Phase

__all__ = ["SharedDense"]


class SharedDense:
    """Places of one dense training, with everything that training on from there needs.

    A place is found only by runs that have the same settings of the dense training, the same
    initial values and the same places before it, so what is taken from here is what the run would
    have trained itself, bit for bit.

    Args:
        folder: Where places are kept; made when the first is.
        config: The settings of the run.
        model: The model before any training.
        marks: The steps at which the dense training is interrupted.
        facts: What else the training depends on, for instance the data.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: SearchConfig,
        model: nn.Module,
        marks: Sequence[int],
        facts: Any,
    ) -> None:
        settings = config.model_dump(mode="json", include={"seed", "training", "dense"})
        start = hashlib.sha256(json.dumps([settings, list(marks), facts]).encode())
        for name, tensor in Snapshot.take(model, copy=False).items():
            start.update(name.encode())
            start.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())
        self._folder, self._key = Path(folder), start.hexdigest()[:16]
        self._store = RunStore(folder)

    def advance(self, phase: Phase, model: nn.Module, step: int) -> tuple[float, float]:
        """Bring a phase to a step, by training or by taking it from the folder.

        Returns:
            The mean training loss on the way, and the seconds that the training took if it was
            made by another run.
        """
        path = self._folder / f"{self._key}-{step}.safetensors"
        if path.exists():
            tensors, meta = self._store.read_tensors(path)
            optimizer = {
                name.removeprefix("optimizer."): tensor
                for name, tensor in tensors.items()
                if name.startswith("optimizer.")
            }
            values = {n.removeprefix("model."): t for n, t in tensors.items() if n[:6] == "model."}
            Snapshot(values).restore(model)
            phase.load_state(optimizer, meta["phase"])
            return float(meta["loss"]), float(meta["seconds"])
        begun = time.monotonic()
        loss = phase.advance(step)
        seconds = time.monotonic() - begun
        optimizer, state = phase.state()
        tensors = {f"model.{n}": t for n, t in Snapshot.take(model, copy=False).items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.items()}
        meta = {"phase": state, "loss": loss, "seconds": seconds}
        self._store.write_tensors(path, tensors, meta)
        return loss, 0.0
