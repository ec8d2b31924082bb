from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from infcop.data.idx import load_idx, read_idx
from infcop.errors import DataError, MissingDataError

NAMES = tuple("0123456789")


def test_reads_what_was_written(idx_folder):
    data = load_idx(idx_folder, "tiny", NAMES)
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (12, 5, 4), np.uint8), rng.integers(0, 256, (3, 5, 4), "u1")
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(train))
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(test))
    assert data.train.labels.tolist() == [*range(10), 0, 1]
    assert data.train.labels.dtype == torch.int64
    assert (data.channels, data.image_size, data.num_classes) == (1, (5, 4), 10)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_each_compression_gives_the_same(tmp_path, write_idx, suffix):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = write_idx(tmp_path / f"images{suffix}", array)
    assert torch.equal(read_idx(path, ndim=3), torch.from_numpy(array))


def test_wrong_magic_names_the_file_and_the_bytes(tmp_path, write_idx):
    path = write_idx(tmp_path / "labels", np.zeros(3, np.uint8), magic=b"\x00\x00\x0d\x01")
    with pytest.raises(DataError, match=r"labels: expected an IDX file.*'00 00 0d 01'"):
        read_idx(path, ndim=1)


def test_labels_in_place_of_images_are_refused(tmp_path, write_idx):
    path = write_idx(tmp_path / "labels", np.zeros(30, np.uint8))
    with pytest.raises(DataError, match=r"with 3 dimension\(s\)"):
        read_idx(path, ndim=3)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_fewer_bytes_than_declared(tmp_path, write_idx, suffix):
    path = write_idx(tmp_path / f"images{suffix}", np.zeros((2, 3, 4), np.uint8), shape=(3, 3, 4))
    with pytest.raises(DataError, match=r"declares 3 x 3 x 4 = 36 bytes, the file holds only 24"):
        read_idx(path, ndim=3)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_trailing_bytes(tmp_path, write_idx, suffix):
    path = write_idx(tmp_path / f"labels{suffix}", np.zeros(4, np.uint8), shape=(3,))
    with pytest.raises(DataError, match="the file holds more"):
        read_idx(path, ndim=1)


@pytest.mark.parametrize("length", range(8))
def test_a_file_that_ends_in_its_header(tmp_path, length):
    path = tmp_path / "labels"
    path.write_bytes((b"\x00\x00\x08\x01" + struct.pack(">I", 5))[:length])
    with pytest.raises(DataError, match="labels: expected"):
        read_idx(path, ndim=1)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_compressed_stream_cut_short(tmp_path, write_idx, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8)
    path = write_idx(tmp_path / f"labels{suffix}", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match="labels"):
        read_idx(path, ndim=1)


def test_a_gzip_stream_without_its_check_sum_is_refused(tmp_path, write_idx):
    path = write_idx(tmp_path / "labels.gz", np.zeros(100, np.uint8))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="cut short or damaged"):
        read_idx(path, ndim=1)


def test_a_gzip_stream_with_a_wrong_check_sum_is_refused(tmp_path, write_idx):
    path = write_idx(tmp_path / "labels.gz", np.zeros(100, np.uint8))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_idx(path, ndim=1)


def test_what_only_claims_to_be_gzip_is_refused(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(b"\x00\x00\x08\x01\x00\x00\x00\x01\x07")
    with pytest.raises(DataError, match="can't be read"):
        read_idx(path, ndim=1)


@pytest.mark.parametrize("shape", [(2**31,), (0,), (2**32 - 1,)])
def test_absurd_sizes_are_refused(tmp_path, write_idx, shape):
    path = write_idx(tmp_path / "labels", np.zeros(3, np.uint8), shape=shape)
    with pytest.raises(DataError, match="declare"):
        read_idx(path, ndim=1)


def test_memory_follows_the_content_not_the_header(tmp_path, write_idx):
    path = write_idx(tmp_path / "labels", np.zeros(3, np.uint8), shape=(2**31 - 1,))
    assert _peak(path) < 10_000_000


def test_memory_follows_the_header_not_the_unpacked_content(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05" + bytes(50_000_000), 1))
    assert _peak(path) < 10_000_000


def _peak(path: Path) -> int:
    tracemalloc.start()
    with pytest.raises(DataError, match="declares"):
        read_idx(path, ndim=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_counts_that_disagree(idx_folder, write_idx):
    write_idx(idx_folder / "t10k-labels-idx1-ubyte", np.zeros(4, np.uint8))
    with pytest.raises(DataError, match=r"t10k-images.*3 images.*t10k-labels.*4\s+labels"):
        load_idx(idx_folder, "tiny", NAMES)


def test_a_label_out_of_range_is_named(idx_folder, write_idx):
    write_idx(idx_folder / "t10k-labels-idx1-ubyte", np.array([0, 10, 11], np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels.*\[0, 10\), got 10 at index 1"):
        load_idx(idx_folder, "tiny", NAMES)


def test_a_missing_file_is_named(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingDataError, match="t10k-labels-idx1-ubyte"):
        load_idx(idx_folder, "tiny", NAMES)


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        read_idx(tmp_path, ndim=1)


def test_real_fashion_mnist(real_data):
    data = load_idx(real_data("fashion-mnist"), "fashion-mnist", NAMES)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.image_size == (28, 28)
    assert data.train.labels.bincount().tolist() == [6000] * 10
    # Published: 0.2860 and 0.3530.
    assert data.mean.item() == pytest.approx(0.2860, abs=5e-5)
    assert data.std.item() == pytest.approx(0.3530, abs=5e-5)
