"""The tables that follow from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.compact.turns import shown

__all__ = [
    *(
        "layers_table",
        "memory_table",
        "only_theirs_table",
        "peers_lists",
        "peers_table",
        "searches_table",
    ),
    *("structured_table", "widths_table"),
]

Cells = Mapping[str, Mapping[str, Any]]

_MOST = 2
"""Layers that are named."""


def structured_table(cells: Cells) -> str:
    """Return trained networks at half of their FLOPs, by scope."""
    rows = [
        "| network, scope | FLOPs | parameters | accuracy dense | pruned | 1 thread | all |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, cell in cells.items():
        kind, name, scope = key.split(" ")
        if kind == "search":
            sizes = f"{cell['multiply_adds']:.3f} | {cell['parameters']:.3f}"
            accuracies = f"{cell['dense_accuracy']:.3f} | {cell['accuracy']:.3f}"
            rows.append(f"| {name}, `{scope}` | {sizes} | {accuracies} | {_times(cell)} |")
    return "\n".join(rows)


def widths_table(cells: Cells) -> str:
    """Return untrained networks that keep the same part of all layers, by the widths' divisor."""
    rows = [
        "| network, removed | widths | multiples of | FLOPs | 1 thread | all threads |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, cell in cells.items():
        kind, name, what = key.split(" ")
        if kind == "widths":
            amount = "80 % of the channels" if what.startswith("channels") else "half of the FLOPs"
            widths = ", ".join(map(str, dict.fromkeys(cell["widths"])))
            facts = f"{widths} | {cell['multiple']} | {cell['multiply_adds']:.3f}"
            rows.append(f"| {name}, {amount} | {facts} | {_times(cell)} |")
    return "\n".join(rows)


def _times(cell: Mapping[str, Any]) -> str:
    return " | ".join(shown(cell[f"latency_{threads}"]) for threads in threads_of(cell))


def threads_of(cell: Mapping[str, Any]) -> list[int]:
    """Return the numbers of threads that times were taken with."""
    return sorted(int(key.split("_")[1]) for key in cell if key.startswith("latency_"))


def peers_table(cells: Cells) -> str:
    """Return the networks that both handle."""
    rows = [
        "| network | parameters left | FLOPs left | torch-pruning over ours | outputs differ by | "
        "time, ours over theirs | seconds, ours | theirs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, cell in cells.items():
        if "latency" in cell:
            ours, theirs = cell["ours"], cell["theirs"]
            left = (ours[what] / cell[what] for what in ("parameters", "multiply_adds"))
            same = ours["parameters"] == theirs["parameters"]
            same &= ours["multiply_adds"] == theirs["multiply_adds"]
            ratio = theirs["parameters"] / ours["parameters"]
            seconds = f"{ours['seconds']:.1f} | {theirs['seconds']:.1f}"
            rows.append(
                f"| {name}, {cell['about']} | {' | '.join(f'{part:.3f}' for part in left)} "
                f"| {'the same' if same else f'{ratio:.3f}'} | {cell['difference']:.1e} "
                f"| {shown(cell['latency'])} | {seconds} |"
            )
    return "\n".join(rows)


def peers_lists(cells: Cells) -> str:
    """Return the networks that only one of both handles, with what the other says."""
    lines = []
    for name, cell in cells.items():
        fails = [who for who in ("ours", "theirs") if "fails" in cell[who]]
        for who in fails:
            tool = {"ours": "infcop", "theirs": "torch-pruning"}[who]
            lines.append(f"- {name}: {tool} fails with `{cell[who]['fails']}`")
    return "\n".join(lines)


def only_theirs_table(cells: Cells) -> str:
    """Return the channels that torch-pruning would remove and infcop would not."""
    rows = ["| network | channels of both | more of torch-pruning | of layers |"]
    rows.append("| --- | --- | --- | --- |")
    for name, cell in cells.items():
        if more := cell["only_theirs"]:
            layers = list(more)
            listed = ", ".join(f"`{layer}`" for layer in layers[:_MOST])
            listed += f" and {len(layers) - _MOST} more" if len(layers) > _MOST else ""
            rows.append(f"| {name} | {cell['channels']:,} | {sum(more.values()):,} | {listed} |")
    return "\n".join(rows)


def memory_table(cells: Cells) -> str:
    """Return what it takes to collapse a large network."""
    rows = [
        "| removed | images | seconds | processor seconds | memory above the model |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell in cells.values():
        seconds, work = cell["seconds"], cell["processor_seconds"]
        size = f"{cell['examples']} of 3 x {cell['size']} x {cell['size']}"
        rows.append(
            f"| {cell['masks']} | {size} | {seconds:.1f} | {work:.1f} "
            f"| {cell['peak']:.1f} times the model |"
        )
    return "\n".join(rows)


def searches_table(cells: Cells) -> str:
    """Return what is left of the networks of real searches."""
    rows = [
        "| network, density | accuracy dense | sparse | weights that survive the search | of these "
        "are useless | parameters left | FLOPs left | outputs differ by | 1 thread | all threads |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, cell in cells.items():
        name, density = key.split(" ")
        accuracies = f"{cell['dense_accuracy']:.3f} | {cell['accuracy']:.3f}"
        useless = 1 - cell["surviving_after"] / cell["surviving"]
        left = (cell[what][1] / cell[what][0] for what in ("parameters", "multiply_adds"))
        rows.append(
            f"| {name}, {float(density):.0%} | {accuracies} | {cell['surviving']:,} "
            f"| {useless:.1%} | {' | '.join(f'{part:.3f}' for part in left)} "
            f"| {cell['difference']:.0e} | {_times(cell)} |"
        )
    return "\n".join(rows)


def layers_table(cell: Mapping[str, Any]) -> str:
    """Return what becomes of each layer of one network."""
    rows = [
        "| layer | outputs | left | weights | survive the search | of these useful | left |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, layer in cell["layers"].items():
        outputs = " | ".join(map(str, layer["outputs"]))
        entries, after = layer["entries"]
        rows.append(
            f"| {name} | {outputs} | {entries:,} | {layer['surviving'][0]:,} "
            f"| {layer['surviving'][1]:,} | {after:,} |"
        )
    return "\n".join(rows)
