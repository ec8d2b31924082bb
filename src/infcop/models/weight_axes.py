"""Where outputs and inputs are in the weights of prunable layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from infcop.errors import ModelError
from infcop.models.attention import HeadSlices, head_slices
from infcop.models.kinds import layer_kind
from infcop.models.unwrap import unwrapped

__all__ = ["WeightAxes", "weight_axes"]


@dataclass(frozen=True)
class WeightAxes:
    """Which axes of a weight hold the outputs and the inputs of its layer.

    Attributes:
        output: The axis of the outputs.
        input: The axis of the inputs.
        groups: Groups of a convolution, each with its own inputs and outputs.
        heads: The part that heads of attention have in it, where it is one of their projections.

    Example:
        >>> WeightAxes(output=1, input=0, groups=2).turned_shape((6, 4, 3))
        (8, 3, 3)
    """

    output: int
    input: int
    groups: int = 1
    heads: HeadSlices | None = None

    def outputs_first(self, weight: Tensor) -> Tensor:
        """Return a weight as ``[outputs, inputs of one output, ...]``, a view where that can be.

        A transposed convolution keeps one output of all groups at the same place of its axis; here
        they are outputs of their own.
        """
        if self.output == 0:
            return weight
        inputs, outputs, *kernel = weight.shape
        apart = weight.reshape(self.groups, inputs // self.groups, outputs, *kernel)
        return apart.transpose(1, 2).reshape(self.turned_shape(weight.shape))

    def turned_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that :meth:`outputs_first` gives a weight of this shape."""
        if self.output == 0:
            return tuple(shape)
        inputs, outputs, *kernel = shape
        return (self.groups * outputs, inputs // self.groups, *kernel)

    def restored(self, tensor: Tensor) -> Tensor:
        """Return what :meth:`outputs_first` has turned in the weight's own order of axes."""
        if self.output == 0:
            return tensor
        outputs, inputs, *kernel = tensor.shape
        apart = tensor.reshape(self.groups, outputs // self.groups, inputs, *kernel)
        return apart.transpose(1, 2).reshape(self.groups * inputs, outputs // self.groups, *kernel)


def weight_axes(model: nn.Module, names: Iterable[str]) -> dict[str, WeightAxes]:
    """Return the axes of the weights of these names.

    Args:
        model: Any model; wrappers around it are looked through.
        names: Names of weights of linear layers and convolutions, for instance
            ``find_prunable(model).names``.

    Raises:
        ModelError: A name is not that of the weight of such a layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2), nn.ConvTranspose1d(4, 2, 3))
        >>> axes = weight_axes(model, ["0.weight", "1.weight"])
        >>> [(one.output, one.input) for one in axes.values()]
        [(0, 1), (1, 0)]
    """
    model = unwrapped(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    heads = head_slices(model)
    axes = {}
    for name in names:
        owner, _, own_name = name.rpartition(".")
        module = modules.get(owner)
        if module is None or own_name != "weight" or layer_kind(module) is None:
            raise ModelError(
                f"weight_axes: expected the weight of a linear layer or a convolution, got "
                f"'{name}'; pass names that find_prunable returns"
            )
        turned = _is_turned(module)
        axes[name] = WeightAxes(
            output=int(turned),
            input=int(not turned),
            groups=getattr(module, "groups", 1),
            heads=heads.get(name),
        )
    return axes


def _is_turned(module: nn.Module) -> bool:
    """Whether the weight is [inputs, outputs, ...]."""
    if isinstance(module, nn.Linear):
        return False
    # Of linear layers only transformers' Conv1D is left, of convolutions the transposed ones.
    return layer_kind(module) == "linear" or bool(getattr(module, "transposed", False))
