"""The known data sets: what they are called, which files they need and who publishes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from infcop.data import layouts

if TYPE_CHECKING:
    from infcop.data.arrays import ImageSet

__all__ = ["DATA_SETS", "DataSet"]

_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


@dataclass(frozen=True)
class DataSet:
    """A known set.

    Attributes:
        description: One line.
        files: What has to be there, for messages.
        published: Where to get it, by name.
        folders: Customary names of its folder, inside the folder of all sets.
        missing: Names of what a folder lacks; nothing where the set is complete.
        load: Reads the set from a folder that lacks nothing.
    """

    description: str
    files: str
    published: str
    folders: tuple[str, ...]
    missing: Callable[[Path], tuple[str, ...]]
    load: Callable[[Path], ImageSet]


# The readers are imported where they are used: they bring PyTorch, and listing the sets does not
# need it.


def _load_digits(folder: Path) -> ImageSet:
    from infcop.data.digits import load_digits

    return load_digits()


def _missing_digits(folder: Path) -> tuple[str, ...]:
    return () if find_spec("sklearn") else ("scikit-learn",)


def _load_mnist(folder: Path) -> ImageSet:
    from infcop.data.idx import load_idx

    return load_idx(folder, "mnist", tuple("0123456789"))


def _load_fashion_mnist(folder: Path) -> ImageSet:
    from infcop.data.idx import load_idx

    return load_idx(folder, "fashion-mnist", _FASHION_CLASSES)


def _load_cifar10(folder: Path) -> ImageSet:
    from infcop.data.cifar import load_cifar10

    return load_cifar10(folder)


def _load_cifar100(folder: Path) -> ImageSet:
    from infcop.data.cifar import load_cifar100

    return load_cifar100(folder)


def _load_tiny_imagenet(folder: Path) -> ImageSet:
    from infcop.data.folder import load_tiny_imagenet

    return load_tiny_imagenet(folder)


def _load_image_folder(folder: Path) -> ImageSet:
    from infcop.data.folder import load_image_folder

    return load_image_folder(folder)


_FOUR_IDX_FILES = f"{', '.join(layouts.IDX_FILES)}, each plain, .gz or .xz"

DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(
        description="1,797 handwritten digits, 8x8 grey, 10 classes",
        files="none, it comes with scikit-learn",
        published="scikit-learn",
        folders=(),
        missing=_missing_digits,
        load=_load_digits,
    ),
    "mnist": DataSet(
        description="70,000 handwritten digits, 28x28 grey, 10 classes",
        files=_FOUR_IDX_FILES,
        published="Yann LeCun's MNIST page",
        folders=("mnist", "MNIST", "MNIST/raw"),
        missing=layouts.missing_idx,
        load=_load_mnist,
    ),
    "fashion-mnist": DataSet(
        description="70,000 articles of clothing, 28x28 grey, 10 classes",
        files=_FOUR_IDX_FILES,
        published="zalandoresearch/fashion-mnist on GitHub",
        folders=("fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"),
        missing=layouts.missing_idx,
        load=_load_fashion_mnist,
    ),
    "cifar-10": DataSet(
        description="60,000 photographs, 32x32 colour, 10 classes",
        files="at least one of data_batch_1.bin to data_batch_5.bin, and test_batch.bin, or the "
        "Python batches data_batch_1 to data_batch_5 and test_batch; each plain, .gz or .xz",
        published="Alex Krizhevsky's CIFAR page",
        folders=("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10", "cifar-10-subset"),
        missing=layouts.missing_cifar10,
        load=_load_cifar10,
    ),
    "cifar-100": DataSet(
        description="60,000 photographs, 32x32 colour, 100 classes",
        files="train.bin and test.bin, or the Python batches train and test; each plain, .gz "
        "or .xz",
        published="Alex Krizhevsky's CIFAR page",
        folders=("cifar-100-binary", "cifar-100-python", "cifar-100"),
        missing=layouts.missing_cifar100,
        load=_load_cifar100,
    ),
    "tiny-imagenet": DataSet(
        description="110,000 labelled photographs, 64x64 colour, 200 classes",
        files="the folder tiny-imagenet-200 as published: wnids.txt, train/<class>/images/*.JPEG, "
        "val/images/*.JPEG and val/val_annotations.txt",
        published="Stanford CS231n's Tiny ImageNet",
        folders=("tiny-imagenet-200", "tiny-imagenet"),
        missing=layouts.missing_tiny_imagenet,
        load=_load_tiny_imagenet,
    ),
    "image-folder": DataSet(
        description="your own images of one size, a folder per class",
        files="train/<class>/* and test/<class>/* (or val/<class>/*): png, jpg, jpeg, bmp or ppm",
        published="nowhere, these are your own files",
        folders=("image-folder",),
        missing=layouts.missing_image_folder,
        load=_load_image_folder,
    ),
}
"""The known sets by name."""
