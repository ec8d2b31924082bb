"""What the models of the zoo share: checks, scaled widths and Kaiming initialisation."""

from __future__ import annotations

from torch import nn

from infcop.errors import ConfigError, ModelError

__all__ = ["check_facts", "kaiming_normal", "scaled"]


def check_facts(
    model: str, *, in_channels: int, image_size: int, num_classes: int, stem_stride: int = 1
) -> None:
    """Refuse facts of images, and a stride, that are not positive whole numbers.

    Raises:
        ModelError: One of them is not.
    """
    facts = {
        "in_channels": in_channels,
        "image_size": image_size,
        "num_classes": num_classes,
        "stem_stride": stem_stride,
    }
    for name, value in facts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{model}: expected {name} to be an integer >= 1, got {value!r}")


def scaled(channels: int, width: float) -> int:
    """Return ``channels * width`` rounded, at least 1.

    Raises:
        ConfigError: ``width`` is not a positive number.

    Example:
        >>> scaled(16, 0.5), scaled(16, 0.01)
        (8, 1)
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < 1e6:
        raise ConfigError(
            f"build_model: expected option width to be a positive number, got {width!r}; "
            "1.0 is the published width"
        )
    return max(1, round(channels * width))


def kaiming_normal(model: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from N(0, 2 / fan_in), biases zero.

    He et al. 2015, "Delving Deep into Rectifiers" (arXiv 1502.01852), equation 10. Uses the
    global generator of PyTorch.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
