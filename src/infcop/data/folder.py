"""Sets of image files: one folder per class, and the layout of Tiny ImageNet."""

from __future__ import annotations

from pathlib import Path

import torch

from infcop.data.arrays import Images, ImageSet
from infcop.data.images import SUFFIXES, decode_images, survey_images
from infcop.data.layouts import (
    evaluation_folder,
    missing_image_folder,
    missing_tiny_imagenet,
)
from infcop.errors import DataError, MissingDataError

__all__ = ["load_image_folder", "load_tiny_imagenet"]

_Labelled = list[tuple[Path, int]]


def load_image_folder(folder: Path) -> ImageSet:
    """Read ``train/<class>/*`` and ``test/<class>/*``, or ``val/`` where there is no ``test/``.

    Files are png, jpg, jpeg, bmp or ppm, all of one size; others and hidden ones are left alone.
    The classes are the folders of ``train``, in the order of their names.

    Raises:
        MissingDataError: A folder is not there, or Pillow is not installed.
        DataError: A class folder is empty, a test class is unknown, or an image is damaged or of
            another size.
    """
    test_folder = evaluation_folder(folder)
    if test_folder is None or not (folder / "train").is_dir():
        raise MissingDataError(
            f"image-folder: expected {' and '.join(missing_image_folder(folder))} in {folder}"
        )
    classes = tuple(path.name for path in _subfolders(folder / "train"))
    train = _class_folders(folder / "train", classes)
    return _image_set(folder.resolve().name, train, _class_folders(test_folder, classes), classes)


def load_tiny_imagenet(folder: Path) -> ImageSet:
    """Read Tiny ImageNet (200 classes of 64x64 images, or as many as ``wnids.txt`` lists).

    The published ``test/`` folder has no labels and is never read: the validation part, labelled
    by ``val/val_annotations.txt``, serves as the test part.

    Raises:
        MissingDataError: A part is not there, or Pillow is not installed.
        DataError: A class folder is empty or unknown, the annotations don't match the files, or
            an image is damaged or of another size.
    """
    if missing := missing_tiny_imagenet(folder):
        raise MissingDataError(f"tiny-imagenet: expected {', '.join(missing)} in {folder}")
    classes = tuple(_text(folder / "wnids.txt").split())
    if not classes or len(set(classes)) != len(classes):
        raise DataError(f"{folder / 'wnids.txt'}: expected one distinct class per line")
    present = {path.name for path in _subfolders(folder / "train")}
    if absent := [name for name in classes if name not in present]:
        raise DataError(
            f"{folder / 'train'}: expected a folder for each class of wnids.txt, "
            f"there is none for {_listing(tuple(absent))}"
        )
    train = _class_folders(folder / "train", classes, inner="images")
    return _image_set("tiny-imagenet", train, _annotated(folder / "val", classes), classes)


def _image_set(name: str, train: _Labelled, test: _Labelled, classes: tuple[str, ...]) -> ImageSet:
    shape = survey_images([path for path, _ in train + test])
    parts = [
        Images(
            decode_images([path for path, _ in part], shape),
            torch.tensor([label for _, label in part], dtype=torch.int64),
        )
        for part in (train, test)
    ]
    return ImageSet(name, parts[0], parts[1], len(classes), classes)


def _class_folders(folder: Path, classes: tuple[str, ...], inner: str = "") -> _Labelled:
    labels = {name: label for label, name in enumerate(classes)}
    found: _Labelled = []
    for path in _subfolders(folder):
        if path.name not in labels:
            raise DataError(f"{path}: this class is unknown; expected one of {_listing(classes)}")
        files = _image_files(path / inner)
        if not files:
            raise DataError(
                f"{path / inner}: expected image files ({', '.join(sorted(SUFFIXES))}) of "
                f"class '{path.name}', there is none; fill or remove the folder"
            )
        found += [(file, labels[path.name]) for file in files]
    if not found:
        raise DataError(f"{folder}: expected one folder of image files per class, there is none")
    return found


def _annotated(folder: Path, classes: tuple[str, ...]) -> _Labelled:
    source = folder / "val_annotations.txt"
    labels = {name: label for label, name in enumerate(classes)}
    files = {path.name: path for path in _image_files(folder / "images")}
    found: dict[str, tuple[Path, int]] = {}
    for number, line in enumerate(_text(source).splitlines(), start=1):
        file, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in labels:
            raise DataError(
                f"{source}, line {number}: class '{label[:80]}' is unknown; "
                f"expected one of {_listing(classes)}"
            )
        # Looked up among the files listed, so that no name can lead out of the folder.
        if file not in files or file in found:
            fault = "is named twice" if file in found else f"is not in {folder / 'images'}"
            raise DataError(f"{source}, line {number}: '{file[:80]}' {fault}")
        found[file] = files[file], labels[label]
    if unlabelled := sorted(files.keys() - found.keys()):
        raise DataError(
            f"{source}: expected one line per image, but {len(unlabelled)} image(s) have none, "
            f"such as '{unlabelled[0]}'"
        )
    return list(found.values())


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a text file, it can't be read ({error})") from error


def _listing(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:5])
    return shown if len(classes) <= 5 else f"{shown}, ... ({len(classes)} classes)"
