"""A network of your own and ordinary data loaders: a small CNN on the handwritten digits.

    python examples/own_model.py [RUN_DIR]

The search trains the dense network, prunes it level by level to 10 % of its weights, and trains
the result to the end. Stop it and start it again: it goes on from its last checkpoint.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

import infcop
from infcop.report.summary import summary_lines


class SmallNet(nn.Module):
    """Two convolutions with batch normalisation, then two linear layers.

    Nothing here knows of infcop. Because the names of the arguments are those that
    ``infcop search`` gives, ``model.name=own_model:SmallNet`` works from the command line too.
    """

    def __init__(
        self, in_channels: int = 1, image_size: int = 8, num_classes: int = 10, width: int = 16
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.fc1 = nn.Linear(2 * width * (image_size // 4) ** 2, 64)
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        maps = functional.max_pool2d(functional.relu(self.norm1(self.conv1(images))), 2)
        maps = functional.max_pool2d(functional.relu(self.norm2(self.conv2(maps))), 2)
        return self.fc2(functional.relu(self.fc1(maps.flatten(1))))


def digits_task() -> infcop.Classification:
    """Return the digits in three parts that share no example."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    data = TensorDataset(images, torch.from_numpy(digits.target).long())
    parts = random_split(data, [1297, 140, 360], generator=torch.Generator().manual_seed(0))
    train, held_out, test = parts
    return infcop.Classification(
        DataLoader(train, batch_size=32, shuffle=True),  # what training uses
        DataLoader(held_out, batch_size=256),  # what decisions use
        DataLoader(test, batch_size=256),  # read once, at the end
    )


def main(run_dir: str) -> None:
    """Search, show the result, and put the sparse weights into a plain network."""
    torch.manual_seed(0)
    result = infcop.search(
        SmallNet(),
        digits_task(),
        run_dir=run_dir,
        density=0.1,
        method={
            "name": "infcop-gf",
            "schedule": {"kind": "fraction", "remove": 0.5},
            "rewind": {"to": "epoch", "passes": 1},
        },
        dense={"passes": 6},
        levels={"max_passes": 6},
        final={"passes": 4},
        probe_examples=256,
        execution={"threads": 1},  # the fastest for so small a network
    )
    print("\n".join(summary_lines(result.record)))
    print(f"Report: {result.run_dir / 'report.html'}")

    path = result.run_dir / "small-net.safetensors"
    save_file(result.model.state_dict(), path)
    plain = SmallNet()
    plain.load_state_dict(load_file(path))
    zeros = sum(int((plain.get_parameter(name) == 0).sum()) for name in result.masks)
    print(f"Loaded into a plain SmallNet: {zeros} of {result.masks.total} weights are zero")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/own-model")
