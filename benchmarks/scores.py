"""What scoring, selecting and masked training cost, beside the tools that do the same.

``score_ratio_resnet50``: the larger of two ratios. ``score_ratio_resnet50_vs_torch_prune``: scoring
the weights of a ResNet-50 by magnitude, selecting over all layers and putting the others to zero,
over ``torch.nn.utils.prune.global_unstructured`` with ``L1Unstructured``, where 20 % or 90 % are
removed, whichever ratio is larger. ``score_ratio_resnet50_vs_torch_pruning``: scoring all output
channels by the Euclidean norm of their weights, over ``MagnitudeImportance(p=2)`` of torch-pruning
on the same channels, each layer by itself.

``select_seconds_per_1e8``: ``select_global`` on as many float32 scores in 16 layers, 10 % kept, in
a process of its own; ``select_peak_bytes_per_entry`` is the most that this process held above its
imports: scores, old masks and new masks are 6 bytes of it. ``..._1e9`` the same on 1e9 scores,
where the memory that is free allows it.

``masked_step_ratio``: a training step of ResNet-20, 64 images of 32x32, with ``MaskEnforcer`` and a
tenth of the weights, over the same step without. ``masked_step_vs_torch_prune``: LeNet-300-100 with
``MaskEnforcer`` over the same with the reparametrisation of ``torch.nn.utils.prune`` and the same
masks. Each has a counterpart of the other model, whose name is added: ``masked_step_ratio_lenet``.
``masking_vs_torch_prune_MODEL``: what masking alone takes, over what the reparametrisation alone
takes: the products of weights and masks, and their gradients.

One thread, and processor time, which does not count what other processes take. Everything that is
compared is timed in turn.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.common import arguments, finish
from benchmarks.masked_step import Network, Training, Way, build_network, check_same, masking_alone
from infcop.core.mask import Masks
from infcop.core.pattern import Channel
from infcop.core.score import Magnitude
from infcop.masking.apply import MaskEnforcer
from infcop.masking.groups import build_groups
from infcop.masking.prune_groups import group_scores
from infcop.masking.select import select_global
from infcop.models.weight_axes import weight_axes
from infcop.scoring.score_all import score_all

REMOVED = (0.2, 0.9)
"""Fractions of the weights that are removed, compared with ``torch.nn.utils.prune``."""

_ENOUGH = 5
"""Repeats that have a median worth printing; of fewer the range says more."""

MODELS = ("resnet-20", "lenet-300-100")
"""The models that are trained."""

_REPEATS = {"resnet-20": (40, 8), "lenet-300-100": (100, 30)}
_QUICK = {"resnet-20": (3, 1), "lenet-300-100": (5, 10)}
"""Repeats, and steps in each, by model."""

_SCORED = "timm:resnet50"
_LAYERS = 16
_KEPT = 0.1
_SHARE_OF_FREE = 0.7


# -- timing in turn --------------------------------------------------------------------------------


def _in_turn(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    steps: int = 1,
    between: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the seconds of each call in each repeat, of several calls that take turns.

    Who begins changes each time, ``between`` comes before each call, and what it takes is not
    counted. One call of each goes before.
    """
    times: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        between(), call()
    labels = list(calls)
    for repeat in range(repeats):
        seconds = dict.fromkeys(labels, 0.0)
        for step in range(steps):
            first = (repeat * steps + step) % len(labels)
            for label in labels[first:] + labels[:first]:
                between()
                begun = time.process_time()
                calls[label]()
                seconds[label] += time.process_time() - begun
        for label, spent in seconds.items():
            times[label].append(spent / steps)
    return times


def _compared(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return the median of the ratios pair by pair, and how well it is known.

    ``interval`` is where the median lies at 95 % confidence whatever the distribution: as many
    ratios lie below it as heads fall in so many throws of a coin, half of them give or take two
    standard deviations.
    """
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    half, spread = len(ratios) / 2, math.sqrt(len(ratios))
    ends = max(0, math.floor(half - spread)), min(len(ratios), math.ceil(half + spread)) - 1
    return {
        "ratio": statistics.median(ratios),
        "interval": [ratios[end] for end in ends],
        "lowest": ratios[0],
        "highest": ratios[-1],
        "ours_s": statistics.median(ours),
        "theirs_s": statistics.median(theirs),
        "repeats": len(ratios),
    }


# -- scoring and selecting a ResNet-50 -------------------------------------------------------------


def _prune_ours(network: Network, removed: int) -> None:
    masks = Masks.full(network.shapes)
    scores = score_all(Magnitude(), network.parameters, {}, masks)
    left = select_global(scores, masks, masks.total - removed)
    MaskEnforcer(network.parameters, left).apply()


def _prune_torch(network: Network, removed: int) -> None:
    prune.global_unstructured(network.owners, pruning_method=prune.L1Unstructured, amount=removed)


def _survivors(network: Network, call: Callable[[Network, int], None], removed: int) -> Tensor:
    """Return the sizes that are left, in order: which of equal ones were removed may differ."""
    network.restore()
    call(network, removed)
    left = torch.cat([weight.abs().flatten() for weight in network.weights()])
    network.restore()
    return left.sort().values


def _against_torch_prune(network: Network, share: float, repeats: int) -> dict[str, Any]:
    removed = round(share * network.entries)
    ways = {"ours": _prune_ours, "theirs": _prune_torch}
    left = [_survivors(network, call, removed) for call in ways.values()]
    if not torch.equal(*left):
        raise SystemExit("infcop and torch.nn.utils.prune kept different weights")
    calls = {label: partial(call, network, removed) for label, call in ways.items()}
    times = _in_turn(calls, repeats, between=network.restore)
    network.restore()
    return _compared(times["ours"], times["theirs"])


def _against_torch_pruning(network: Network, repeats: int) -> dict[str, Any] | None:
    try:
        import torch_pruning
    except ImportError as error:
        print(f"no comparison with torch-pruning: {error}; pip install torch-pruning")
        return None
    graph = torch_pruning.DependencyGraph().build_dependency(
        network.model, example_inputs=torch.zeros(1, 3, 32, 32)
    )
    coupled = []
    for module, _ in network.owners:
        linear = isinstance(module, nn.Linear)
        function = (
            torch_pruning.prune_linear_out_channels
            if linear
            else torch_pruning.prune_conv_out_channels
        )
        group = graph.get_pruning_group(module, function, list(range(len(module.weight))))
        # Other layers that the channel takes along are left out: infcop scores each by itself.
        del group.items[1:]
        coupled.append(group)
    importance = torch_pruning.importance.MagnitudeImportance(p=2, normalizer=None)
    axes = weight_axes(network.model, network.values)
    groups = build_groups(Channel(reduce="norm"), axes, network.shapes)
    masks = Masks.full(network.shapes)

    def ours() -> list[Any]:
        scores = score_all(Magnitude(), network.parameters, {}, masks)
        return [group_scores(unit, "norm", scores, masks) for unit in groups.units]

    def theirs() -> list[Tensor]:
        return [importance(group) for group in coupled]

    for own, other in zip(ours(), theirs(), strict=True):
        # Theirs are the squares.
        if not torch.allclose(torch.from_numpy(own) ** 2, other.double(), rtol=1e-4):
            raise SystemExit("infcop and torch-pruning scored channels differently")
    times = _in_turn({"ours": ours, "theirs": theirs}, repeats)
    return {**_compared(times["ours"], times["theirs"]), "version": version("torch-pruning")}


# -- memory: each measurement is this module run as a process of its own ---------------------------


def _peak() -> int:
    # Unlike ru_maxrss, this starts anew when a process starts another program.
    return _kilobytes("/proc/self/status", "VmHWM:") * 1024


def _kilobytes(file: str, key: str) -> int:
    lines = Path(file).read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(key))
    return int(line.split()[1])


def _alone(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scores", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure_select(entries: int) -> None:
    imported = _peak()
    size = entries // _LAYERS
    masks = Masks.full({f"layer{number:02}": (size,) for number in range(_LAYERS)})
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(size, generator=generator).abs_() for name in masks}
    held = _peak()
    seconds = []
    for _ in range(2):
        begun = time.process_time()
        kept = select_global(scores, masks, round(_KEPT * masks.total))
        seconds.append(time.process_time() - begun)
        assert kept.kept == round(_KEPT * masks.total)
        del kept
    result = {
        "entries": masks.total,
        "seconds": seconds,
        "seconds_per_1e8": statistics.median(seconds) * 1e8 / masks.total,
        "peak_bytes_per_entry": (_peak() - imported) / masks.total,
        "of_which_selecting": (_peak() - held) / masks.total,
        "imports_bytes": imported,
    }
    print(json.dumps(result))


def _measure_pruning(way: str, share: float, name: str) -> None:
    network = build_network(name, channels=3, size=32, classes=1000)
    gc.collect()
    held = _peak()
    call = {"ours": _prune_ours, "theirs": _prune_torch}[way]
    call(network, round(share * network.entries))
    print(json.dumps({"bytes_per_entry": (_peak() - held) / network.entries}))


def _selecting(quick: bool) -> dict[str, Any]:
    found = {"1e8": _alone("--select", 10**7 if quick else 10**8)}
    _say_select(found["1e8"])
    one = found["1e8"]
    needed = one["peak_bytes_per_entry"] * 1e9 + one["imports_bytes"]
    allowed = _SHARE_OF_FREE * _kilobytes("/proc/meminfo", "MemAvailable:") * 1024
    if quick:
        found["1e9"] = {"skipped": "--quick"}
    elif needed > allowed:
        found["1e9"] = {
            "skipped": f"it would take {needed / 1e9:.1f} GB; {_SHARE_OF_FREE:.0%} of the memory "
            f"that is free are {allowed / 1e9:.1f} GB"
        }
    else:
        found["1e9"] = _alone("--select", 10**9)
        _say_select(found["1e9"])
    if "skipped" in found["1e9"]:
        print(f"select_global on 1e9 entries: not measured, {found['1e9']['skipped']}")
    return found


# -- masked training -------------------------------------------------------------------------------


def _masked_training(name: str, repeats: int, steps: int) -> dict[str, Any]:
    ways: tuple[Way, ...] = ("plain", "ours", "theirs")
    trained = {way: Training(name, way) for way in ways}
    times = _in_turn({way: one.step for way, one in trained.items()}, repeats, steps)
    check_same(trained["ours"], trained["theirs"])
    alone = _in_turn(masking_alone(trained["ours"], trained["theirs"]), 50, steps)
    return {
        "steps": steps,
        "plain": _compared(times["ours"], times["plain"]),
        "torch prune": _compared(times["ours"], times["theirs"]),
        "torch prune over plain": _compared(times["theirs"], times["plain"]),
        "masking alone": _compared(alone["ours"], alone["theirs"]),
        "share": statistics.median(alone["ours"]) / statistics.median(times["plain"]),
    }


# -- all of it -------------------------------------------------------------------------------------


def _say(what: str, found: Mapping[str, Any]) -> None:
    low, high = found["interval"]
    print(
        f"{what:<62} {found['ratio']:7.4f}, median within [{low:.4f}, {high:.4f}], pairs within "
        f"[{found['lowest']:.3f}, {found['highest']:.3f}]  {found['ours_s'] * 1e3:.2f} ms over "
        f"{found['theirs_s'] * 1e3:.2f} ms"
    )


def _say_select(found: Mapping[str, Any]) -> None:
    print(
        f"select_global, {found['entries']:,} entries: {found['seconds']} s, peak "
        f"{found['peak_bytes_per_entry']:.2f} bytes an entry, {found['of_which_selecting']:.2f} of "
        "them while selecting"
    )


def _pruning(quick: bool) -> dict[str, Any]:
    """Compare on a ResNet-50; for a quick check on a ResNet-20."""
    name, repeats, shares = ("resnet-20", 3, REMOVED[:1]) if quick else (_SCORED, 9, REMOVED)
    network = build_network(name, channels=3, size=32, classes=1000)
    details: dict[str, Any] = {"model": name, "entries": network.entries}
    for share in shares:
        found = _against_torch_prune(network, share, repeats)
        for way in ("ours", "theirs"):
            peak = _alone("--prune", way, share, name)["bytes_per_entry"]
            found[f"{way}_bytes_per_entry"] = peak
        details[f"torch prune {share}"] = found
        _say(f"pruning {share:.0%} of {name} / global_unstructured", found)
    channels = _against_torch_pruning(network, 7 * repeats)
    if channels is not None:
        details["torch-pruning"] = channels
        _say("scoring the channels / torch-pruning", channels)
    return details


def figures(details: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that this module's first lines tell of."""
    pruned = [details[key]["ratio"] for key in details if key.startswith("torch prune ")]
    ratios = {"score_ratio_resnet50_vs_torch_prune": max(pruned)}
    if "torch-pruning" in details:
        ratios["score_ratio_resnet50_vs_torch_pruning"] = details["torch-pruning"]["ratio"]
    select = details["select"]
    found = {"score_ratio_resnet50": max(ratios.values()), **ratios}
    found["select_seconds_per_1e8"] = select["1e8"]["seconds_per_1e8"]
    found["select_peak_bytes_per_entry"] = select["1e8"]["peak_bytes_per_entry"]
    if "skipped" not in select["1e9"]:
        found["select_seconds_per_1e8_at_1e9"] = select["1e9"]["seconds_per_1e8"]
    resnet, lenet = (details[f"training {name}"] for name in MODELS)
    found["masked_step_ratio"] = resnet["plain"]["ratio"]
    found["masked_step_ratio_lenet"] = lenet["plain"]["ratio"]
    found["masked_step_vs_torch_prune"] = lenet["torch prune"]["ratio"]
    found["masked_step_vs_torch_prune_resnet20"] = resnet["torch prune"]["ratio"]
    found["masking_vs_torch_prune_resnet20"] = resnet["masking alone"]["ratio"]
    found["masking_vs_torch_prune_lenet300"] = lenet["masking alone"]["ratio"]
    return {key: round(value, 4) for key, value in found.items()}


def markdown(details: Mapping[str, Any]) -> str:
    """Return what was measured as a table."""
    rows = ["| | measured | limit | |", "| --- | --- | --- | --- |"]
    for share in REMOVED:
        found = details[f"torch prune {share}"]
        what = f"removing {share * 100:.0f} % of ResNet-50 by size, over `torch.nn.utils.prune`"
        rows.append(_row(what, found, "at most 1"))
        ours, theirs = found["ours_bytes_per_entry"], found["theirs_bytes_per_entry"]
        rows.append(f"| the same, memory | {ours:.0f} over {theirs:.0f} bytes a weight | | |")
    if "torch-pruning" in details:
        what = "scoring its channels by norm, over torch-pruning"
        rows.append(_row(what, details["torch-pruning"], "at most 1"))
    for key, found in details["select"].items():
        rows.append(_select_row(key, found))
    for name in MODELS:
        found = details[f"training {name}"]
        what = f"a masked step of {name}, over a plain one"
        rows.append(_row(what, found["plain"], "at most 1.05"))
        rows.append(f"| masking alone, over a plain step | {found['share']:.4f} | | |")
        what = f"a masked step of {name}, over `torch.nn.utils.prune`"
        rows.append(_row(what, found["torch prune"], "below 1"))
        rows.append(_row("the same, masking alone", found["masking alone"], "below 1"))
    return "\n".join(rows)


def _row(what: str, found: Mapping[str, Any], limit: str) -> str:
    low, high = found["interval"]
    measured = f"{found['ratio']:.3f} ({low:.3f} to {high:.3f})"
    return f"| {what} | {measured} | {limit} | {verdict(low, high, limit)} |"


def verdict(low: float, high: float, limit: str) -> str:
    """Return whether a limit is met, which an interval that holds it leaves open."""
    most = float(limit.split()[-1])
    met, missed = high <= most, low > most
    if limit.startswith("below"):
        met, missed = high < most, low >= most
    return "met" if met else "missed" if missed else "open"


def _select_row(count: str, found: Mapping[str, Any]) -> str:
    what = f"`select_global` on {count} float32 scores, 10 % kept"
    if "skipped" in found:
        return f"| {what} | not measured: {found['skipped']} | | |"
    times = found["seconds"]
    seconds = f"{statistics.median(times):.2f}"
    if len(times) < _ENOUGH:
        seconds = f"{min(times):.2f} to {max(times):.2f}"
    peak, own = found["peak_bytes_per_entry"], found["of_which_selecting"]
    return f"| {what} | {seconds} s, {peak:.1f} bytes an entry, {own:.1f} of them new | | |"


def main() -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    if "--select" in sys.argv:
        return _measure_select(int(sys.argv[-1]))
    if "--prune" in sys.argv:
        return _measure_pruning(sys.argv[-3], float(sys.argv[-2]), sys.argv[-1])
    given = arguments(__doc__ or "")
    details = _pruning(given.quick)
    details["select"] = _selecting(given.quick)
    for name, sizes in (_QUICK if given.quick else _REPEATS).items():
        details[f"training {name}"] = found = _masked_training(name, *sizes)
        _say(f"masked step / plain, {name}", found["plain"])
        _say(f"masked step / torch prune, {name}", found["torch prune"])
        _say(f"torch prune / plain, {name}", found["torch prune over plain"])
        _say(f"masking alone / reparametrising alone, {name}", found["masking alone"])
        print(f"    masking alone is {found['share']:.2%} of the plain step")
    finish(figures(details), details, given.out)
    return None


if __name__ == "__main__":
    main()
