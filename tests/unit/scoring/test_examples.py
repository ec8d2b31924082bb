from __future__ import annotations

from collections import UserDict, namedtuple

import pytest
import torch

from infcop.errors import PruningError
from infcop.scoring.evidence.examples import Examples, single_examples

Pair = namedtuple("Pair", "inputs labels")
BATCH = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([7, 8, 9])


class Sized:
    """A task that knows a batch's size from one of its tensors."""

    def __init__(self, labels=lambda batch: batch[1]):
        self._labels = labels

    def batch_size(self, batch):
        return len(self._labels(batch))


class Encoding(UserDict):
    """A mapping that is no dictionary, with attributes of its own, as tokenizers give."""

    encodings = "kept"


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (lambda x, y: (x, y), lambda b: b[1]),
        (lambda x, y: [x, [y]], lambda b: b[1][0]),
        (lambda x, y: {"x": (x,), "y": y}, lambda b: b["y"]),
        (lambda x, y: Pair(x, y), lambda b: b.labels),
        (lambda x, y: (Encoding(x=x), y), lambda b: b[1]),
        (lambda x, y: Encoding(x={"x": x}, y=y), lambda b: b["y"]),
    ],
)
def test_every_kind_of_batch_is_cut(make, labels):
    inputs, targets = BATCH
    cut = list(single_examples(Sized(labels), make(inputs, targets), 3))
    assert len(cut) == 3
    for number, one in enumerate(cut):
        expected = make(inputs[number : number + 1], targets[number : number + 1])
        assert type(one) is type(expected)
        assert str(one) == str(expected)


def test_what_has_no_examples_is_kept():
    inputs, targets = BATCH
    extra = torch.ones(5), torch.tensor(3.0), "text", None, 3
    for one in single_examples(Sized(), (inputs, targets, *extra), 3):
        assert all(kept is given for kept, given in zip(one[2:], extra, strict=True))


def test_a_batch_of_one_is_handed_on():
    batch = object()
    assert list(single_examples(Sized(), batch, 1)) == [batch]


class Opaque:
    def __init__(self, labels):
        self.labels = labels


@pytest.mark.parametrize("batch", [Opaque(BATCH[1]), (BATCH[0], Opaque(BATCH[1]))])
def test_batches_that_cannot_be_cut_are_refused(batch):
    def labels(found):
        return (found[1] if isinstance(found, tuple) else found).labels

    with pytest.raises(PruningError, match=r"its 3 examples.*got 3 examples after cutting"):
        list(single_examples(Sized(labels), batch, 3))


def test_every_time_through_the_same_is_drawn():
    examples = Examples(Sized(), lambda: [BATCH, BATCH], seed=3)
    drawn = [[torch.rand(2).tolist() for _ in examples] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]
    other = [torch.rand(2).tolist() for _ in Examples(Sized(), lambda: [BATCH], seed=4)]
    assert other[0] != drawn[0][0]
