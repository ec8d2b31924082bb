"""Running a model so that its inner operations can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from infcop.models.unwrap import uncompiled

__all__ = ["in_the_open", "layers_in_parts"]


@contextmanager
def layers_in_parts() -> Iterator[None]:
    """Keep layers of transformers from running as one operation of their own.

    They do so without gradients only, and round otherwise then.

    Example:
        >>> with layers_in_parts():
        ...     torch.backends.mha.get_fastpath_enabled()
        False
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def in_the_open() -> Iterator[None]:
    """Let layers run as products that can be seen, not inside operations of their own.

    Example:
        >>> with in_the_open():
        ...     torch.backends.mha.get_fastpath_enabled()
        False
    """
    # The public switch warns of processors that are not there.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with layers_in_parts(), uncompiled(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(before)
