from __future__ import annotations

from typing import get_args

import pytest

from infcop.core.method import Rewind
from infcop.rewinding.policy import (
    keeps_weights,
    rewinds_levels,
    schedule_start,
    snapshot_place,
)

# The table in the docstring of Rewind, for 8 dense passes and a warm-up of 3:
# snapshot after, schedule continues from, weights kept.
TABLE = {
    "initialisation": (0, 0.0, False),
    "epoch": (2, 2.0, False),
    "warm-up": (3, 3.0, False),
    "learning-rate": (None, 0.0, True),
    "none": (None, 8.0, True),
}


@pytest.mark.parametrize("to", TABLE)
def test_every_choice_follows_the_table(to: str) -> None:
    rewind = Rewind(to=to, passes=2)
    snapshot, start, kept = TABLE[to]
    assert snapshot_place(rewind, warmup=3) == snapshot
    assert schedule_start(rewind, dense=8, warmup=3) == start
    assert keeps_weights(rewind) is kept
    assert rewinds_levels(rewind) is not kept


@pytest.mark.parametrize("to", [to for to, (place, *_) in TABLE.items() if place is not None])
def test_going_back_at_the_end_keeps_the_same_values_and_rewinds_no_level(to: str) -> None:
    rewind = Rewind(to=to, passes=2, when="end")
    assert snapshot_place(rewind, warmup=3) == TABLE[to][0]
    assert not keeps_weights(rewind)
    assert not rewinds_levels(rewind)
    # Levels begin the schedule anew, as do trained weights with "learning-rate".
    assert schedule_start(rewind, dense=8, warmup=3) == 0.0


def test_the_table_has_every_choice() -> None:
    assert set(get_args(Rewind.model_fields["to"].annotation)) == set(TABLE)
