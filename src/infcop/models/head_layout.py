"""Whether fused projections hold the heads of attention where they are taken to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infcop.errors import ModelError
from infcop.models.attention import HeadSlices
from infcop.models.preserved import preserved_model
from infcop.models.unwrap import uncompiled, unwrapped

__all__ = ["check_fused_heads"]

_NOISE = 1e-3
"""Relative difference granted to rounding. A head in another place makes one of about 1."""


def check_fused_heads(
    model: nn.Module, heads: Mapping[str, HeadSlices], forward: Callable[[nn.Module], object]
) -> None:
    """Prove that each fused projection is queries, keys, values, each with its heads in order.

    Names and widths don't tell: the heads may lie one after the other instead, each with its own
    queries, keys and values. So the projections are made to give noise, with the part of one head
    at zero. If it is that head's part, the head gives the output projection zeros, and all other
    heads what they gave before. One forward pass for each head, and one more; the model is given
    back as it was.

    Args:
        model: Any model; wrappers around it are looked through.
        heads: The part of the heads in each projection, by weight; only fused ones are looked at.
        forward: Runs the model that it is given, the same way each time.

    Raises:
        ModelError: A projection holds its heads elsewhere, or this can't be seen.

    Example:
        >>> from infcop.models.attention import head_slices
        >>> class Attention(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.num_heads, self.qkv, self.proj = 2, nn.Linear(6, 18), nn.Linear(6, 6)
        ...     def forward(self, x):
        ...         q, k, v = self.qkv(x).unflatten(-1, (3, 2, 3)).movedim(-3, 0).transpose(-3, -2)
        ...         mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        ...         return self.proj(mixed.transpose(-3, -2).flatten(-2))
        >>> model = Attention()
        >>> check_fused_heads(model, head_slices(model), lambda model: model(torch.randn(1, 4, 6)))
    """
    model = unwrapped(model)
    watched = [_Watched(model, name, one) for name, one in heads.items() if len(one.sections) > 1]
    if not watched:
        return
    with (
        preserved_model(model, copy_parameters=False),
        uncompiled(),
        torch.no_grad(),
        ExitStack() as hooks,
    ):
        model.eval()
        for one in watched:
            hooks.enter_context(one.hooked())
        for silent in (None, *range(max(one.heads.count for one in watched))):
            for one in watched:
                one.begin(silent)
            forward(model)
            for one in watched:
                one.compare()


class _Watched:
    """A fused projection and the output projection of the same attention."""

    def __init__(self, model: nn.Module, weight: str, heads: HeadSlices) -> None:
        self.weight, self.heads = weight, heads
        self._fused = model.get_submodule(weight.rpartition(".")[0])
        self._output = model.get_submodule(heads.weights[-1].rpartition(".")[0])
        self._silent: int | None = None
        self._before: list[Tensor] = []
        self._seen: list[Tensor] = []
        self._calls = 0

    @contextmanager
    def hooked(self) -> Iterator[None]:
        handles = (
            self._fused.register_forward_hook(self._replace),
            self._output.register_forward_hook(self._look, with_kwargs=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, silent: int | None) -> None:
        """Prepare for a forward pass, with the part of this head at zero."""
        self._silent = silent
        self._seen, self._calls = [], 0

    def compare(self) -> None:
        """Compare what the output projection was given with the pass without a silent head."""
        if self._silent is None:
            self._before = self._seen
            if self._calls == 0 or not any(bool(given.any()) for given in self._before):
                raise ModelError(
                    self._message("the model calls no such layer, so that can't be seen")
                )
        elif self._silent < self.heads.count and not self._is_alone(self._silent):
            raise ModelError(
                self._message("a forward pass shows that the model mixes or orders them otherwise")
            )

    def _is_alone(self, head: int) -> bool:
        """Whether exactly this head was silent."""
        if [given.shape for given in self._seen] != [given.shape for given in self._before]:
            return False
        own = _places(self.heads.sections[:1], self.heads.count, head)
        for before, after in zip(self._before, self._seen, strict=True):
            allowed = _NOISE * before.abs().max()
            expected = before.index_fill(-1, own.to(before.device), 0.0)
            if bool(((after - expected).abs() > allowed).any()):
                return False
        return True

    def _replace(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        # The same noise in every pass, on the CPU so that it doesn't depend on the device.
        generator = torch.Generator().manual_seed(self._calls)
        self._calls += 1
        noise = torch.randn(output.shape, generator=generator).to(output)
        if self._silent is None or self._silent >= self.heads.count:
            return noise
        own = _places(self.heads.sections, self.heads.count, self._silent)
        return noise.index_fill(-1, own.to(noise.device), 0.0)

    def _look(
        self, _: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> Tensor:
        # Rows that a mask leaves nothing to look at may be NaN.
        self._seen.extend(given.nan_to_num() for given in (*args, *named.values()))
        # What follows sees the same in every pass, whichever head is silent.
        return torch.zeros_like(output)

    def _message(self, what: str) -> str:
        return (
            f"pattern 'heads': '{self.weight}' is taken for queries, keys and values, each with "
            f"{self.heads.count} heads in order, but {what}; use another pattern, such as "
            f"'channel', or leave the projections dense: method.exclude = "
            f"{list(self.heads.weights)}"
        )


def _places(sections: Sequence[int], count: int, head: int) -> Tensor:
    """Return the channels of one head among sections that are ``count`` equal pieces each."""
    places, start = [], 0
    for section in sections:
        size = section // count
        places.append(torch.arange(start + head * size, start + (head + 1) * size))
        start += section
    return torch.cat(places)
