"""What was removed from each layer, and why not more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infcop.collapse.dead import kin
from infcop.collapse.exported import entries_of
from infcop.collapse.facts import Note
from infcop.collapse.plan import Plan
from infcop.collapse.repair import Proven
from infcop.collapse.run import Findings

__all__ = ["CollapseReport", "LayerReport", "report_on"]


@dataclass(frozen=True)
class LayerReport:
    """What became of the parameters and buffers of one module.

    Attributes:
        name: The module.
        kind: Its class.
        before: The shape of each of its parameters and buffers.
        after: Their shapes in the smaller network.
        reason: Why nothing was removed; None if something was.
    """

    name: str
    kind: str
    before: dict[str, tuple[int, ...]]
    after: dict[str, tuple[int, ...]]
    reason: str | None


@dataclass(frozen=True)
class CollapseReport:
    """What became of a network.

    Attributes:
        parameters_before: Entries of all parameters; shared ones count once.
        parameters_after: The same of the smaller network.
        layers: Every module that has parameters or buffers of its own.
        changed: Attributes of modules that were set anew, with both values.
        verified: On what the networks were compared; the last one may say on what they were not.
    """

    parameters_before: int
    parameters_after: int
    layers: tuple[LayerReport, ...]
    changed: tuple[str, ...]
    verified: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.parameters_before:,} parameters became {self.parameters_after:,}"]
        for layer in self.layers:
            name = layer.name or "the model"
            if layer.reason is not None:
                lines.append(f"{name} ({layer.kind}): nothing removed: {layer.reason}")
                continue
            changes = [
                f"{own} {_times(before)} to {_times(layer.after[own])}"
                for own, before in layer.before.items()
                if before != layer.after[own]
            ]
            lines.append(f"{name} ({layer.kind}): {', '.join(changes)}")
        lines += [f"attribute {change}" for change in self.changed]
        lines += [
            inputs if inputs.startswith("not ") else f"compared on {inputs}"
            for inputs in self.verified
        ]
        return "\n".join(lines)


def report_on(
    model: nn.Module, proven: Proven, findings: Findings, verified: tuple[str, ...]
) -> CollapseReport:
    """Compare a network with its smaller copy.

    Args:
        model: The network.
        proven: The smaller one, with what was kept.
        findings: What a run has found out.
        verified: On what both were compared.
    """
    small = proven.model
    before, after = entries_of(model), entries_of(small)
    why = _Reasons(findings, proven.plan, proven.spared)
    layers = []
    for path, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if not own:
            continue
        names = {name: _full(path, name) for name, _ in own}
        shapes = {name: tuple(before[full].shape) for name, full in names.items()}
        left = {name: tuple(after[full].shape) for name, full in names.items()}
        reason = None
        if shapes == left:
            reason = why.of(list(names.values()))
        layers.append(LayerReport(path, type(module).__name__, shapes, left, reason))
    changed = [
        f"{_full(path, name)}: {getattr(model.get_submodule(path), name)} to {value}"
        for path, own in proven.stated.items()
        for name, value in own.items()
    ]
    return CollapseReport(_count(model), _count(small), tuple(layers), tuple(changed), verified)


class _Reasons:
    def __init__(self, findings: Findings, plan: Plan, spared: Sequence[Note]) -> None:
        self.units = findings.units
        self.plan = plan
        self.notes = [*spared, *findings.facts.notes]
        self.kin = kin(findings.facts)
        self.note = torch.full((findings.facts.count,), -1, dtype=torch.int64)
        for number in reversed(range(len(self.notes))):
            self.note[self.kin[self.notes[number].ids]] = number

    def of(self, names: list[str]) -> str:
        """Say why the units of some parameters of one module stay."""
        known = [name for name in names if self.units.get(name)]
        if not known:
            return "it has no part in the outputs for these inputs"
        # Beyond the first two dimensions of a weight are the positions of a kernel.
        layers = [layer for layer in self.units[known[0]][:2] if len(layer.ids) > 1]
        reasons = dict.fromkeys(self._why(layer.ids) for layer in layers)
        return "; ".join(reasons) or "a single unit stays in any case"

    def _why(self, ids: Tensor) -> str:
        found = self.plan.survivors
        noted = self.note[self.kin[ids]]
        if bool((noted >= 0).any()):
            most = int(noted[noted >= 0].mode().values)
            return self.notes[most].reason
        if bool(found.needed[ids].all()):
            return "every unit is used"
        return "other units of the same tensors are used, and tensors stay blocks"


def _full(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "1"
