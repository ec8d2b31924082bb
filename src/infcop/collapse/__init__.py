"""Collapse: the smallest dense network that does what a masked network does."""

from __future__ import annotations

from infcop.collapse.channels import channel_groups
from infcop.collapse.compact import Compact, compact
from infcop.collapse.report import CollapseReport, LayerReport
from infcop.collapse.restore import restore_into

__all__ = ["CollapseReport", "Compact", "LayerReport", "channel_groups", "compact", "restore_into"]
