from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infcop.data.folder import load_image_folder, load_tiny_imagenet
from infcop.errors import DataError, MissingDataError

GREY, COLOUR = (6, 5), (6, 5, 3)
FILES = {"train/cat": "abc", "train/dog": "ab", "test/cat": "a", "test/dog": "a"}


def pixels(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow, the extra 'images'")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pillow.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def class_folders(tmp_path):
    """Two classes of grey PNG images, 3 + 2 to train on and 1 + 1 to test on."""
    for seed, name in enumerate(
        f"{folder}/{file}" for folder, files in FILES.items() for file in files
    ):
        save(tmp_path / f"{name}.png", pixels(GREY, seed))
    return tmp_path


@pytest.fixture
def tiny_folder(tmp_path):
    """Tiny ImageNet in small: two classes, listed in an order that is not alphabetical."""
    (tmp_path / "wnids.txt").write_text("n02\nn01\n")
    for wnid in ("n01", "n02"):
        for number in range(2):
            path = tmp_path / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
            save(path, pixels(COLOUR, number))
    for number in range(3):
        save(tmp_path / "val" / "images" / f"val_{number}.JPEG", pixels(COLOUR, number))
    save(tmp_path / "test" / "images" / "test_0.JPEG", pixels((9, 9, 3), 0))
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("".join(f"val_{n}.JPEG\tn0{1 + n % 2}\t0\t0\t5\t5\n" for n in range(3)))
    return tmp_path


def test_one_folder_per_class(class_folders):
    data = load_image_folder(class_folders)
    assert data.name == class_folders.name
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert (data.channels, data.image_size) == (1, (6, 5))
    for index in range(5):
        assert torch.equal(data.train.images[index, 0], torch.from_numpy(pixels(GREY, index)))


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "PNG"])
def test_colour_planes_come_first(class_folders, suffix):
    save(class_folders / "train" / "cat" / f"0.{suffix}", pixels(COLOUR, 9))
    data = load_image_folder(class_folders)
    expected = torch.from_numpy(pixels(COLOUR, 9)).permute(2, 0, 1)
    assert torch.equal(data.train.images[0], expected)


def test_grey_images_among_colour_become_colour(class_folders):
    save(class_folders / "test" / "dog" / "z.png", pixels(COLOUR, 9))
    data = load_image_folder(class_folders)
    assert data.channels == 3
    grey = torch.from_numpy(pixels(GREY, 0))
    assert torch.equal(data.train.images[0], grey.expand(3, -1, -1))


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("P", 3), ("LA", 1), ("1", 1)])
def test_other_8_bit_modes(class_folders, mode, channels):
    save(class_folders / "train" / "cat" / "0.png", pixels(COLOUR, 9), mode)
    assert load_image_folder(class_folders).channels == channels


def test_val_serves_where_there_is_no_test(class_folders):
    (class_folders / "test").rename(class_folders / "val")
    assert len(load_image_folder(class_folders).test) == 2


def test_other_files_are_left_alone(class_folders):
    (class_folders / "train" / "cat" / "notes.txt").write_text("nothing")
    (class_folders / "train" / "cat" / ".hidden.png").write_text("nothing")
    (class_folders / "train" / ".cache").mkdir()
    assert len(load_image_folder(class_folders).train) == 5


def test_images_of_another_size(class_folders):
    save(class_folders / "test" / "dog" / "a.png", pixels((6, 7), 0))
    with pytest.raises(DataError, match=r"dog.a.png: .* 7x6 here and 5x6 in .*cat.a.png"):
        load_image_folder(class_folders)


def test_sixteen_bits_are_refused(class_folders):
    save(class_folders / "train" / "cat" / "0.png", pixels(GREY, 0).astype(np.uint16))
    with pytest.raises(DataError, match=r"0.png: expected an 8-bit"):
        load_image_folder(class_folders)


@pytest.mark.parametrize("kept", [0, 8, 20, 45, 70])
def test_a_damaged_image_is_named(class_folders, kept):
    path = class_folders / "train" / "dog" / "b.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"dog.b.png: can't be decoded"):
        load_image_folder(class_folders)


def test_text_that_is_called_an_image(class_folders):
    (class_folders / "train" / "dog" / "b.png").write_text("no image")
    with pytest.raises(DataError, match=r"dog.b.png: can't be decoded"):
        load_image_folder(class_folders)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_folder(class_folders, part):
    shutil.rmtree(class_folders / part / "dog")
    (class_folders / part / "dog").mkdir()
    with pytest.raises(DataError, match=rf"{part}.dog: expected image files.*there is none"):
        load_image_folder(class_folders)


def test_an_unknown_test_class(class_folders):
    (class_folders / "test" / "dog").rename(class_folders / "test" / "cow")
    with pytest.raises(DataError, match="cow: this class is unknown; expected one of cat, dog"):
        load_image_folder(class_folders)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_classes(tmp_path, part):
    save(tmp_path / "train" / "cat" / "a.png", pixels(GREY, 0))
    save(tmp_path / "test" / "cat" / "a.png", pixels(GREY, 0))
    shutil.rmtree(tmp_path / part / "cat")
    with pytest.raises(DataError):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part(class_folders, part):
    shutil.rmtree(class_folders / part)
    with pytest.raises(MissingDataError, match=f"expected {part}/<class>"):
        load_image_folder(class_folders)


def test_without_pillow_the_message_says_what_to_install(class_folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDataError, match=r"pip install 'infcop\[images\]'"):
        load_image_folder(class_folders)


def test_tiny_imagenet(tiny_folder):
    data = load_tiny_imagenet(tiny_folder)
    assert data.class_names == ("n02", "n01")
    assert data.train.labels.tolist() == [1, 1, 0, 0]
    assert data.test.labels.tolist() == [1, 0, 1]
    assert (data.channels, data.image_size) == (3, (6, 5))


def test_the_unlabelled_test_folder_is_never_read(tiny_folder):
    # Its image has another size, which would be refused.
    assert len(load_tiny_imagenet(tiny_folder).test) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_2.JPEG\tn03\t0\t0\t5\t5", "line 3: class 'n03' is unknown"),
        ("val_1.JPEG\tn01\t0\t0\t5\t5", "line 3: 'val_1.JPEG' is named twice"),
        ("val_9.JPEG\tn01\t0\t0\t5\t5", "line 3: 'val_9.JPEG' is not in"),
        ("../images/val_2.JPEG\tn01", "line 3: '../images/val_2.JPEG' is not in"),
        ("val_2.JPEG", "line 3: class '' is unknown"),
        (None, r"1 image\(s\) have none, such as 'val_2.JPEG'"),
    ],
)
def test_annotations_that_do_not_match(tiny_folder, line, message):
    path = tiny_folder / "val" / "val_annotations.txt"
    kept = path.read_text().splitlines()[:2]
    path.write_text("\n".join([*kept, line] if line else kept))
    with pytest.raises(DataError, match=message):
        load_tiny_imagenet(tiny_folder)


def test_annotations_that_are_no_text(tiny_folder):
    (tiny_folder / "val" / "val_annotations.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected a text file"):
        load_tiny_imagenet(tiny_folder)


def test_a_training_class_that_is_not_listed(tiny_folder):
    (tiny_folder / "wnids.txt").write_text("n01\n")
    with pytest.raises(DataError, match="n02: this class is unknown"):
        load_tiny_imagenet(tiny_folder)


@pytest.mark.parametrize("content", ["", "n01\nn01\n"])
def test_a_faulty_list_of_classes(tiny_folder, content):
    (tiny_folder / "wnids.txt").write_text(content)
    with pytest.raises(DataError, match=r"wnids.txt: expected one distinct class per line"):
        load_tiny_imagenet(tiny_folder)


def test_a_listed_class_without_images(tiny_folder):
    (tiny_folder / "wnids.txt").write_text("n02\nn01\nn03\n")
    with pytest.raises(DataError, match=r"train: expected a folder.*none for n03"):
        load_tiny_imagenet(tiny_folder)


def test_a_missing_file(tiny_folder):
    (tiny_folder / "wnids.txt").unlink()
    with pytest.raises(MissingDataError, match=r"expected wnids.txt in"):
        load_tiny_imagenet(tiny_folder)
