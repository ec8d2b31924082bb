"""Which files make up each known set; nothing here reads them or needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infcop.data.files import find_file

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "IDX_FILES",
    "CifarForm",
    "CifarLayout",
    "evaluation_folder",
    "find_form",
    "missing_cifar10",
    "missing_cifar100",
    "missing_idx",
    "missing_image_folder",
    "missing_tiny_imagenet",
]

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Training images and labels, test images and labels; each plain, ``.gz`` or ``.xz``."""


@dataclass(frozen=True)
class CifarForm:
    """One of the two forms CIFAR is published in; each file plain, ``.gz`` or ``.xz``.

    Attributes:
        train: Training batches, of which at least one must be there.
        test: The test batch.
        names: A file with the names of the classes; it may be absent.
    """

    train: tuple[str, ...]
    test: str
    names: str


@dataclass(frozen=True)
class CifarLayout:
    """What distinguishes CIFAR-10 from CIFAR-100.

    Attributes:
        name: Of the set.
        num_classes: How many classes it has.
        label_bytes: Label bytes of a binary record, the last of which is the label in use.
        label_key: Entry of the labels in a Python batch.
        names_key: Entry of the names in the file that describes the Python batches.
        binary: The binary files.
        pickled: The Python batches.
    """

    name: str
    num_classes: int
    label_bytes: int
    label_key: str
    names_key: str
    binary: CifarForm
    pickled: CifarForm


CIFAR10 = CifarLayout(
    name="cifar-10",
    num_classes=10,
    label_bytes=1,
    label_key="labels",
    names_key="label_names",
    binary=CifarForm(
        tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin", "batches.meta.txt"
    ),
    pickled=CifarForm(tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"),
)
CIFAR100 = CifarLayout(
    name="cifar-100",
    num_classes=100,
    label_bytes=2,
    label_key="fine_labels",
    names_key="fine_label_names",
    binary=CifarForm(("train.bin",), "test.bin", "fine_label_names.txt"),
    pickled=CifarForm(("train",), "test", "meta"),
)


def missing_idx(folder: Path) -> tuple[str, ...]:
    """Return the names of the IDX files that a folder lacks.

    Example:
        >>> len(missing_idx(Path("no-such-folder")))
        4
    """
    return tuple(name for name in IDX_FILES if find_file(folder, name) is None)


def find_form(layout: CifarLayout, folder: Path) -> CifarForm | None:
    """Return the form that a folder holds, the binary one where it holds both."""
    for form in (layout.binary, layout.pickled):
        if any(find_file(folder, name) for name in form.train) and find_file(folder, form.test):
            return form
    return None


def _missing_cifar(layout: CifarLayout, folder: Path) -> tuple[str, ...]:
    if find_form(layout, folder) is not None:
        return ()
    form = layout.binary
    train = () if any(find_file(folder, name) for name in form.train) else form.train[:1]
    return train + (() if find_file(folder, form.test) else (form.test,))


missing_cifar10 = partial(_missing_cifar, CIFAR10)
"""Return the binary files that a folder lacks; nothing where it holds one form."""
missing_cifar100 = partial(_missing_cifar, CIFAR100)
"""Return the binary files that a folder lacks; nothing where it holds one form."""


def evaluation_folder(folder: Path) -> Path | None:
    """Return the ``test`` folder of a class-per-folder set, or else its ``val`` folder."""
    candidates = (folder / "test", folder / "val")
    return next((path for path in candidates if path.is_dir()), None)


def missing_image_folder(folder: Path) -> tuple[str, ...]:
    """Return which parts of a class-per-folder set a folder lacks."""
    lacking = () if (folder / "train").is_dir() else ("train/<class>/*.png",)
    return lacking if evaluation_folder(folder) else (*lacking, "test/<class>/*.png")


def missing_tiny_imagenet(folder: Path) -> tuple[str, ...]:
    """Return which parts of Tiny ImageNet a folder lacks."""
    parts = ("wnids.txt", "train", "val/images", "val/val_annotations.txt")
    return tuple(part for part in parts if not (folder / part).exists())
