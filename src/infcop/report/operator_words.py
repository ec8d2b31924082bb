"""What people call the operators of PyTorch."""

from __future__ import annotations

__all__ = ["operator_name"]

_NAMES = {
    "native_batch_norm_legit_no_training": "batch normalisation",
    "native_batch_norm": "batch normalisation",
    "cudnn_batch_norm": "batch normalisation",
    # Without stored statistics; layers of both kinds call it.
    "native_batch_norm_legit": "batch or instance normalisation",
    "native_layer_norm": "layer normalisation",
    "native_group_norm": "group normalisation",
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "prelu_kernel": "PReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "elu": "ELU",
    "celu": "CELU",
    "glu": "GLU",
    "hardtanh": "hard tanh or ReLU6",
    "hardsigmoid": "hard sigmoid",
    "hardswish": "hard swish",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "softmax": "softmax",
    "safe_softmax": "softmax",
    "log_softmax": "logarithm of softmax",
    "max_pool2d_with_indices": "max pooling",
    "max_pool3d_with_indices": "max pooling",
    "adaptive_max_pool2d": "max pooling",
    "adaptive_max_pool3d": "max pooling",
    "avg_pool2d": "average pooling",
    "avg_pool3d": "average pooling",
    "adaptive_avg_pool2d": "average pooling",
    "adaptive_avg_pool3d": "average pooling",
    "upsample_nearest2d": "upsampling",
    "upsample_bilinear2d": "upsampling",
    "upsample_bicubic2d": "upsampling",
    "constant_pad_nd": "padding",
    "reflection_pad1d": "padding",
    "reflection_pad2d": "padding",
    "replication_pad2d": "padding",
    "embedding": "look-up of embeddings",
    "mean": "mean",
    "sum": "sum",
    "add": "addition",
    "sub": "subtraction",
    "mul": "product entry by entry",
    "div": "division",
    "pow": "power",
    "rsqrt": "inverse square root",
    "cat": "concatenation",
    "stack": "stacking",
    "clone": "copy",
    "to_copy": "copy",
    "copy": "copy",
}


def operator_name(name: str) -> str:
    """Return what people call an operator; one that is not usual keeps the name it has.

    Example:
        >>> operator_name("_native_batch_norm_legit_no_training"), operator_name("_fused_thing")
        ('batch normalisation', 'fused_thing')
    """
    plain = name.strip("_")
    return _NAMES.get(plain, plain)
