"""Which of the networks that can be had is chosen for a size, on networks that are mere numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from infcop.core.records import Cost
from infcop.errors import PruningError
from infcop.pipeline import masks_for_size as module
from infcop.pipeline.masks_for_size import masks_for_size


@dataclass(frozen=True)
class Sized:
    kept: int

    @property
    def kept_per_layer(self) -> dict[str, int]:
        return {"all": self.kept}


def chosen(
    steps: list[int], wanted: float, power: float, patch: pytest.MonkeyPatch
) -> tuple[float, list[str], int]:
    """Return what the chosen one takes, the warnings, and how many networks were collapsed."""
    total, warnings = max(steps), list[str]()
    collapsed: list[int] = []

    def down_to(_: Any, kept: int, __: int) -> tuple[Sized, Cost]:
        fitting = [step for step in steps if step <= kept]
        if not fitting:
            raise PruningError("there is none as small")
        return Sized(max(fitting)), Cost()

    def part_of_dense(masks: Sized, patience: int = 1) -> float:
        collapsed.append(masks.kept)
        return float((masks.kept / total) ** power)

    meter = SimpleNamespace(exact=True, reason="no reason", part_of_dense=part_of_dense)
    patch.setattr(module, "masks_down_to", down_to)
    patch.setattr(module, "_Counter", lambda _: meter)
    run: Any = SimpleNamespace(
        config=SimpleNamespace(density_in="flops", density=wanted),
        groups=SimpleNamespace(counted=lambda masks: masks.kept),
        masks=Sized(total),
        target_kept=round(wanted * total),
        warn=warnings.append,
    )
    planned: Any = Sized(round(wanted * total))
    found = masks_for_size(run, planned)
    assert found is not None
    return found[1], warnings, len(collapsed)


def test_what_can_be_had_within_a_hundredth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    within = 0
    for _ in range(1000):
        total = draw.randint(2000, 100_000)
        count = draw.choice((8, 15, 30, 60, 200))
        steps = sorted({*(draw.randint(total // 100, total) for _ in range(count)), total})
        wanted, power = draw.choice((0.2, 0.3, 0.5, 0.7)), draw.uniform(0.6, 2)
        nearest = min(abs((step / total) ** power - wanted) for step in steps)
        try:
            part, warnings, collapsed = chosen(steps, wanted, power, monkeypatch)
        except PruningError:
            assert all((step / total) ** power > wanted for step in steps)
            continue
        assert collapsed <= 10
        assert bool(warnings) == (abs(part - wanted) > 0.01)
        if nearest <= 0.01 * wanted:
            assert abs(part - wanted) <= 0.01
            within += 1
    assert within > 300


def test_none_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PruningError, match=r"the nearest takes 0\.600: there is none as small"):
        chosen([600, 1000], 0.5, 1.0, monkeypatch)
