"""What each choice of ``Rewind`` means for weights and learning rate."""

from __future__ import annotations

from infcop.core.method import Rewind

__all__ = ["keeps_weights", "rewinds_levels", "schedule_start", "snapshot_place"]


def keeps_weights(rewind: Rewind) -> bool:
    """Return whether a level goes on from the trained weights instead of earlier values.

    Example:
        >>> keeps_weights(Rewind(to="none")), keeps_weights(Rewind(to="epoch"))
        (True, False)
    """
    return rewind.to in ("learning-rate", "none")


def rewinds_levels(rewind: Rewind) -> bool:
    """Return whether a level that trains begins with earlier values.

    Example:
        >>> rewinds_levels(Rewind(to="epoch")), rewinds_levels(Rewind(to="epoch", when="end"))
        (True, False)
    """
    return not keeps_weights(rewind) and rewind.when == "every-level"


def snapshot_place(rewind: Rewind, warmup: int) -> float | None:
    """Return after how many passes of dense training the snapshot is taken, or None for never.

    Args:
        rewind: The method's choice.
        warmup: Passes of the warm-up.

    Example:
        >>> snapshot_place(Rewind(to="initialisation"), warmup=8)
        0
        >>> snapshot_place(Rewind(to="epoch", passes=2), warmup=8)
        2.0
    """
    if keeps_weights(rewind):
        return None
    return {"initialisation": 0, "epoch": rewind.passes, "warm-up": warmup}[rewind.to]


def schedule_start(rewind: Rewind, dense: float, warmup: float) -> float:
    """Return where on the dense learning-rate schedule a level continues, in passes.

    Weights that are rewound take the learning rate of their time with them; of the two choices
    that keep the weights, ``learning-rate`` starts the schedule over (Renda et al. 2020,
    arXiv 2003.02389) and ``none`` goes on from its end. Where only the final training begins with
    earlier values, levels start the schedule over too.

    Args:
        rewind: The method's choice.
        dense: Passes of the dense training.
        warmup: Passes of the warm-up.

    Example:
        >>> schedule_start(Rewind(to="none"), dense=8, warmup=8)
        8.0
        >>> schedule_start(Rewind(to="learning-rate"), dense=8, warmup=8)
        0.0
    """
    if rewind.when == "end":
        return 0.0
    places: dict[str, float] = {
        "initialisation": 0.0,
        "epoch": rewind.passes,
        "warm-up": warmup,
        "learning-rate": 0.0,
        "none": dense,
    }
    return float(places[rewind.to])
