"""Which software and which machine numbers come from."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["hardware", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on.

    Example:
        >>> "torch" in versions()
        True
    """
    found = {"python": platform.python_version()}
    for package in ("infcop", "torch", "numpy", "lightning-fabric", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def hardware(device: torch.device) -> dict[str, str]:
    """Return what is known of the machine, with a device of it in front.

    Example:
        >>> list(hardware(torch.device("cpu")))
        ['device', 'system', 'threads', 'byte order']
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "system": f"{platform.system()} {platform.release()}",
        "threads": str(torch.get_num_threads()),
        "byte order": sys.byteorder,
    }
