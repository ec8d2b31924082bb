from __future__ import annotations

import sys

import pytest
import torch

from infcop.data.digits import load_digits
from infcop.errors import MissingDataError


@pytest.fixture
def embedded():
    return pytest.importorskip("sklearn.datasets", reason="needs scikit-learn, the extra 'demo'")


def test_all_digits_are_there_scaled_to_bytes(embedded):
    data, published = load_digits(), embedded.load_digits()
    assert (len(data.train), len(data.test)) == (1437, 360)
    both = torch.cat([data.train.images, data.test.images]).flatten(1)
    scaled = torch.tensor((published.data.astype(int) * 255) // 16, dtype=torch.uint8)
    assert sorted(both.tolist()) == sorted(scaled.tolist())
    assert (int(both.min()), int(both.max())) == (0, 255)


def test_the_test_part_has_all_classes_in_proportion(embedded):
    data = load_digits()
    total = torch.cat([data.train.labels, data.test.labels]).bincount()
    assert total.tolist() == torch.from_numpy(embedded.load_digits().target).bincount().tolist()
    assert ((data.test.labels.bincount() - total * 360 / 1797).abs() < 1).all()


def test_the_test_part_is_always_the_same(embedded):
    torch.manual_seed(1)
    first = load_digits()
    torch.manual_seed(2)
    assert torch.equal(first.test.images, load_digits().test.images)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDataError, match=r"pip install 'infcop\[demo\]'"):
        load_digits()
