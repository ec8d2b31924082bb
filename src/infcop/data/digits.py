"""The handwritten digits that come with scikit-learn: a real data set without any download."""

from __future__ import annotations

import torch

from infcop.data.arrays import Images, ImageSet
from infcop.data.splits import stratified
from infcop.errors import MissingDataError

__all__ = ["TEST_EXAMPLES", "load_digits"]

TEST_EXAMPLES = 360
"""20 % of the 1,797 images."""

_TEST_SEED = 0


def load_digits() -> ImageSet:
    """Return the 1,797 digits of 8x8 grey pixels (UCI optical recognition, test part).

    Values 0 to 16 are scaled to bytes as ``x * 255 // 16``. The set has no published test part:
    a fixed, stratified one of 360 images is taken.

    Raises:
        MissingDataError: scikit-learn is not installed.

    Example:
        >>> digits = load_digits()
        >>> len(digits.train), len(digits.test), digits.image_size
        (1437, 360, (8, 8))
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingDataError(
            "digits: this set comes with scikit-learn, which is not installed; "
            "run: pip install 'infcop[demo]'"
        ) from error
    bunch = datasets.load_digits()
    values = torch.from_numpy(bunch.images).to(torch.int64)
    images = (values * 255 // 16).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    test = stratified(labels, TEST_EXAMPLES, seed=_TEST_SEED)
    rest = torch.ones(len(labels), dtype=torch.bool).index_fill_(0, test, False)
    return ImageSet(
        "digits",
        Images(images[rest], labels[rest]),
        Images(images[test], labels[test]),
        num_classes=10,
        class_names=tuple("0123456789"),
    )
