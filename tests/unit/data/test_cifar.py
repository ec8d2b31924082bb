from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from infcop.data.cifar import load_cifar10, load_cifar100
from infcop.errors import DataError, MissingDataError


def records(pixels: np.ndarray, *labels: np.ndarray) -> bytes:
    return np.concatenate([*(part[:, None] for part in labels), pixels], axis=1).tobytes()


@pytest.fixture
def binary_folder(tmp_path, cifar_arrays):
    (tmp_path / "data_batch_1.bin").write_bytes(records(*cifar_arrays(4, seed=1)))
    (tmp_path / "test_batch.bin").write_bytes(records(*cifar_arrays(3, seed=0)))
    return tmp_path


@pytest.fixture
def pickled_folder(tmp_path, cifar_arrays, write_batch):
    for name, count, seed in (("data_batch_1", 4, 1), ("test_batch", 3, 0)):
        pixels, labels = cifar_arrays(count, seed)
        write_batch(tmp_path / name, {"data": pixels, "labels": labels.tolist()})
    return tmp_path


def assert_part(part, pixels, labels):
    assert torch.equal(part.images, torch.from_numpy(pixels).view(-1, 3, 32, 32))
    assert part.labels.tolist() == labels.tolist()


def test_binary_files(binary_folder, cifar_arrays):
    data = load_cifar10(binary_folder)
    assert_part(data.train, *cifar_arrays(4, seed=1))
    assert_part(data.test, *cifar_arrays(3, seed=0))
    assert (data.num_classes, data.class_names[0], data.class_names[9]) == (10, "airplane", "truck")


def test_all_batches_that_are_there_are_used_in_order(binary_folder, cifar_arrays, pack):
    fourth = records(*cifar_arrays(2, seed=4))
    second = records(*cifar_arrays(5, seed=2))
    (binary_folder / "data_batch_4.bin.xz").write_bytes(pack(fourth, ".xz"))
    (binary_folder / "data_batch_2.bin.gz").write_bytes(pack(second, ".gz"))
    parts = [cifar_arrays(4, 1), cifar_arrays(5, 2), cifar_arrays(2, 4)]
    expected = (np.concatenate([part[axis] for part in parts]) for axis in (0, 1))
    assert_part(load_cifar10(binary_folder).train, *expected)


def test_the_first_plane_is_red(binary_folder):
    pixels = np.repeat(np.array([[10, 20, 30]], np.uint8), 1024, axis=1)
    (binary_folder / "test_batch.bin").write_bytes(records(pixels, np.array([3], np.uint8)))
    assert load_cifar10(binary_folder).test.images[0, :, 0, 0].tolist() == [10, 20, 30]


def test_cifar100_uses_the_fine_label(tmp_path, cifar_arrays):
    for name in ("train.bin", "test.bin"):
        pixels, coarse = cifar_arrays(3, seed=0)
        fine = np.array([0, 50, 99], np.uint8)
        (tmp_path / name).write_bytes(records(pixels, coarse, fine))
    data = load_cifar100(tmp_path)
    assert_part(data.train, pixels, fine)
    assert (data.num_classes, len(data.class_names)) == (100, 100)


@pytest.mark.parametrize("cut", [1, 100, 3072])
def test_an_incomplete_record(binary_folder, cut):
    path = binary_folder / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"data_batch_1.bin: expected records of 3073 bytes"):
        load_cifar10(binary_folder)


def test_an_empty_file(binary_folder):
    (binary_folder / "test_batch.bin").write_bytes(b"")
    with pytest.raises(DataError, match="got 0 bytes"):
        load_cifar10(binary_folder)


def test_a_damaged_xz_file(binary_folder, pack):
    content = pack((binary_folder / "test_batch.bin").read_bytes(), ".xz")
    (binary_folder / "test_batch.bin").unlink()
    (binary_folder / "test_batch.bin.xz").write_bytes(content[:-50])
    with pytest.raises(DataError, match=r"test_batch.bin.xz: can't be read"):
        load_cifar10(binary_folder)


def test_label_ten_in_a_ten_class_set(binary_folder, cifar_arrays):
    pixels, _ = cifar_arrays(3, seed=0)
    content = records(pixels, np.array([9, 0, 10], np.uint8))
    (binary_folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch.bin: .*\[0, 10\), got 10 at index 2"):
        load_cifar10(binary_folder)


def test_names_of_the_classes_come_from_the_file(binary_folder):
    (binary_folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert load_cifar10(binary_folder).class_names == tuple("abcdefghij")
    (binary_folder / "batches.meta.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"batches.meta.txt: .*10 classes, got 2"):
        load_cifar10(binary_folder)


@pytest.mark.parametrize("absent", ["data_batch_1.bin", "test_batch.bin"])
def test_missing_files(binary_folder, absent):
    (binary_folder / absent).unlink()
    with pytest.raises(MissingDataError, match=r"data_batch_1.bin.*test_batch.bin"):
        load_cifar10(binary_folder)


def test_python_batches(pickled_folder, cifar_arrays):
    data = load_cifar10(pickled_folder)
    assert_part(data.train, *cifar_arrays(4, seed=1))
    assert_part(data.test, *cifar_arrays(3, seed=0))


def test_python_batches_of_python_2(tmp_path, cifar_arrays, python2_batch):
    for name, count, seed in (("data_batch_3", 4, 1), ("test_batch", 3, 0)):
        pixels, labels = cifar_arrays(count, seed)
        (tmp_path / name).write_bytes(python2_batch(pixels, labels.tolist(), "labels"))
    data = load_cifar10(tmp_path)
    assert_part(data.train, *cifar_arrays(4, seed=1))
    assert_part(data.test, *cifar_arrays(3, seed=0))


def test_the_python_2_bytes_are_what_pickle_reads(cifar_arrays, python2_batch):
    # The fixture is written by hand; this keeps it honest.
    pixels, labels = cifar_arrays(4, seed=1)
    content = python2_batch(pixels, labels.tolist(), "labels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's: its modules have moved, its types are booleans.
        batch = pickle.loads(content, encoding="bytes")
    assert (batch[b"data"] == pixels).all()
    assert batch[b"labels"] == labels.tolist()


def test_cifar100_python_batches(tmp_path, cifar_arrays, write_batch):
    pixels, _ = cifar_arrays(3, seed=0)
    for name in ("train", "test"):
        entries = {b"data": pixels, b"fine_labels": [0, 50, 99], b"coarse_labels": [1, 2, 3]}
        write_batch(tmp_path / name, entries, protocol=4)
    write_batch(tmp_path / "meta", {"fine_label_names": [f"n{label}" for label in range(100)]})
    data = load_cifar100(tmp_path)
    assert data.train.labels.tolist() == [0, 50, 99]
    assert data.class_names[99] == "n99"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"labels": [0]}, "an entry 'data'"),
        ({"data": np.zeros((1, 3072), np.uint8)}, "an entry 'labels'"),
        ({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}, r"shape \[N, 3072\]"),
        ({"data": np.zeros((1, 3072), np.int64), "labels": [0]}, "uint8"),
        ({"data": [1, 2], "labels": [0]}, "uint8"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images and 1 labels"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "got 10 at index 0"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}, "got -1 at index 0"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [2**99]}, "an integer of 100 bits"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [0.5]}, "list of integers"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": "0"}, "list of integers"),
        ([1, 2, 3], "expected a dictionary, got list"),
    ],
)
def test_batches_that_hold_something_else(pickled_folder, write_batch, entries, message):
    write_batch(pickled_folder / "test_batch", entries)
    with pytest.raises(DataError, match=f"test_batch: .*{message}"):
        load_cifar10(pickled_folder)


@pytest.mark.parametrize("names", [["a"] * 9, "abc", [1] * 10])
def test_names_that_are_no_names(pickled_folder, write_batch, names):
    write_batch(pickled_folder / "batches.meta", {"label_names": names})
    with pytest.raises(DataError, match=r"batches.meta: expected"):
        load_cifar10(pickled_folder)


def test_real_cifar_subset(real_data):
    data = load_cifar10(real_data("cifar-10-subset"))
    assert data.train.labels.bincount().tolist() == [1000] * 10
    assert data.test.labels.bincount().tolist() == [200] * 10
    assert data.image_size == (32, 32)
    assert data.class_names[:2] == ("airplane", "automobile")
    # Near those of the whole set: 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616.
    assert data.mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
    assert data.std.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.01)
