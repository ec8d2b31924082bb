"""A task of your own: regression, judged by an error that should be low.

    python examples/own_task.py [RUN_DIR]

infcop knows of a task only what the class ``Regression`` below states: four loaders, the loss of
a batch, and an evaluation whose main metric is named together with its direction.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

import infcop
from infcop.report.summary import summary_lines

Batch = tuple[Tensor, Tensor]


class Regression:
    """Real numbers predicted from vectors; the main metric is the root mean square error."""

    def __init__(
        self, train: list[Batch], held_out: list[Batch], test: list[Batch] | None = None
    ) -> None:
        self.train_loader = train
        self.held_out_loader = held_out
        self.test_loader = test
        self.probe_loader = None  # flow is then read on a fixed set of training batches

    def training_step(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, ready for ``backward``."""
        inputs, targets = batch
        return functional.mse_loss(model(inputs), targets)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, loader: Iterable[Batch]) -> infcop.Metrics:
        """Return the metrics over a loader; decisions use the main one."""
        squares, absolutes, examples = 0.0, 0.0, 0
        for inputs, targets in loader:
            errors = (model(inputs) - targets).double()
            squares += float(errors.square().sum())
            absolutes += float(errors.abs().sum())
            examples += len(targets)
        values = {"rmse": (squares / examples) ** 0.5, "mae": absolutes / examples}
        return infcop.Metrics(values, main="rmse", higher_is_better=False, examples=examples)

    def inputs(self, batch: Batch) -> tuple[Tensor]:
        """Return what the model is called with."""
        return (batch[0],)

    def batch_size(self, batch: Batch) -> int:
        """Return the number of examples."""
        return len(batch[1])


def waves(examples: int, seed: int) -> list[Batch]:
    """Return batches of a smooth function of four numbers, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(examples, 4, generator=generator) * 2 - 1
    clean = torch.sin(3 * inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]
    targets = clean + 0.05 * torch.randn(examples, 1, generator=generator)
    return list(zip(inputs.split(50), targets.split(50), strict=True))


def main(run_dir: str) -> None:
    """Search with a rule that watches the held-out error."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    result = infcop.search(
        model,
        Regression(waves(1000, seed=1), waves(300, seed=2), waves(300, seed=3)),
        run_dir=run_dir,
        density=0.2,
        method={
            "name": "lth",
            "schedule": {"remove": 0.4},
            "rewind": {"to": "learning-rate"},
            "stop": {"rule": "plateau", "patience": 2, "improvement": 0.01},
        },
        training={"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.0, "schedule": "cosine"},
        dense={"passes": 40},
        levels={"max_passes": 20},
        final={"passes": 20},
        execution={"threads": 1},  # the fastest for so small a network
    )
    print("\n".join(summary_lines(result.record)))
    print(f"Report: {result.run_dir / 'report.html'}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/own-task")
