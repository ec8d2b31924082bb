"""The next masks: score, allocate and select, as often as the method asks, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress

import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.pattern import Heads
from infcop.core.records import Cost
from infcop.core.rng import derive_seed
from infcop.core.start import EarlyBird
from infcop.errors import LayerCollapseError, NoEffectWarning
from infcop.masking.apply import MaskEnforcer
from infcop.masking.prune import level_kept, level_rounds, shrink
from infcop.models.calling import call
from infcop.models.head_layout import check_fused_heads
from infcop.pipeline.context import Run
from infcop.scoring import needs_data
from infcop.scoring.gather import gather, score_all

__all__ = ["check_pruning", "masks_down_to", "next_masks", "trial_masks"]


def next_masks(run: Run, stop_kept: int) -> tuple[Masks, Cost]:
    """Score the present weights and select what survives the next level; nothing is changed.

    Returns:
        The masks, and what scoring cost.
    """
    return masks_down_to(run, _next_kept(run, stop_kept), run.target_kept)


def trial_masks(run: Run, stop_kept: int) -> tuple[Masks | None, Cost]:
    """Do the same only to look at the masks; there are none where a layer would be emptied."""
    spent: list[Cost] = []
    try:
        masks = _down_to(run, _next_kept(run, stop_kept), run.target_kept, spent)
    except LayerCollapseError:
        masks = None
    return masks, sum(spent, Cost())


def _next_kept(run: Run, stop_kept: int) -> int:
    return level_kept(
        _weights(run),
        run.masks,
        run.config.method,
        level=len(run.record.levels) + 1,
        target_kept=run.target_kept,
        stop_kept=stop_kept,
        groups=run.groups,
    )


def masks_down_to(run: Run, kept: int, target_kept: int) -> tuple[Masks, Cost]:
    """Score the present weights and select so much of them; nothing is changed.

    Args:
        run: The run.
        kept: Entries to keep, or what counts as so many.
        target_kept: The same at the end of the search.

    Returns:
        The masks, and what scoring cost.
    """
    spent: list[Cost] = []
    masks = _down_to(run, kept, target_kept, spent)
    return masks, sum(spent, Cost())


def _down_to(run: Run, kept: int, target_kept: int, spent: list[Cost]) -> Masks:
    """Add what scoring costs to ``spent``, also if it comes to nothing."""
    method, masks = run.config.method, run.masks
    level = len(run.record.levels) + 1
    counts = level_rounds(masks, kept, method, run.groups)
    checked = False
    with _kept(run.parameters) if len(counts) > 1 else nullcontext():
        for number, count in enumerate(counts, start=1):
            if count >= run.groups.counted(masks):
                continue
            seed = derive_seed(run.config.seed, "score", level, number)
            scores, cost = _scores(run, masks, seed, checked=checked)
            checked = True
            spent.append(cost)
            masks = shrink(scores, masks, method, count, groups=run.groups, target_kept=target_kept)
            if number < len(counts):
                MaskEnforcer(run.parameters, masks).apply()
    return masks


def check_pruning(run: Run) -> None:
    """Refuse, before any training, counts and patterns that no scores could honour.

    Raises:
        PruningError: Names the layer and the remedy.
        ModelError: Heads are not where their pattern takes them to be.
    """
    method, masks = run.config.method, run.masks
    if isinstance(method.pattern, Heads):
        _check_heads(run)
    if method.start.kind == "early-bird" and run.groups.prices is None:
        _warn_of_any_mask(run, method.start)
    # Other scores, or more levels, may keep a layer that these would empty.
    with suppress(LayerCollapseError):
        shrink(
            {name: weight.abs() for name, weight in _weights(run).items()},
            masks,
            method,
            run.target_kept,
            groups=run.groups,
            target_kept=run.target_kept,
        )


def _warn_of_any_mask(run: Run, start: EarlyBird) -> None:
    """Say so if masks can't differ by more than what counts as settled."""
    kept = _next_kept(run, run.next_stop_kept) / run.groups.counted(run.masks)
    most = 2 * min(kept, 1 - kept)
    if start.distance >= most:
        run.warn(
            f"method.start: masks that keep {kept:.1%} of the entries differ in at most {most:.1%} "
            f"of them, so with distance={start.distance:g} the dense training ends after "
            f"{start.window} passes whatever they are; set a distance below {most:.3g}",
            NoEffectWarning,
        )


def _check_heads(run: Run) -> None:
    axes = run.groups.axes
    heads = {name: one.heads for name, one in axes.items() if one.heads is not None}
    inputs = run.task.inputs(run.engine.move(run.probe[0]))
    check_fused_heads(run.model, heads, lambda model: call(model, inputs))


def _scores(run: Run, masks: Masks, seed: int, *, checked: bool) -> tuple[dict[str, Tensor], Cost]:
    score = run.config.method.score
    with run.engine.autocast() if needs_data(score) else nullcontext():
        evidence = gather(
            score,
            run.model,
            run.prunable.names,
            run.task,
            lambda: map(run.engine.move, run.probe),
            seed=seed,
            movement=run.movement.values() if run.movement is not None else None,
            checked=checked,
        )
    return score_all(score, _weights(run), evidence.values, masks), evidence.cost


def _weights(run: Run) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in run.parameters.items()}


@contextmanager
def _kept(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Give the parameters their values back afterwards."""
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])
