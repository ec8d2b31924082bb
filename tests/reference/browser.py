"""A real browser to look at pages with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest

__all__ = ["chromium_or_skip", "look", "run_chromium"]


def chromium_or_skip() -> str:
    """Return the browser's program; skip without one, or fail where one is required."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    if os.environ.get("INFCOP_REQUIRE_BROWSER") == "1":
        pytest.fail("no chromium, chromium-browser or google-chrome on the path")
    pytest.skip("no chromium, chromium-browser or google-chrome on the path")


def run_chromium(chromium: str, profile: Path, page: Path, *options: str) -> str:
    """Open a page without a window and return what the browser prints."""
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--allow-file-access-from-files",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=30000",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8", "replace")


def look(
    chromium: str, folder: Path, page: Path, frames: str, widths: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Return what a page looks like at each width.

    Args:
        chromium: The browser.
        folder: That of the page; the frames are written beside it.
        page: The page.
        frames: HTML with a frame for each width, in which PAGE stands for the page, and a script
            that leaves what it sees in ``data-reports``.
        widths: Those of the frames.
    """
    around = folder / "frames.html"
    around.write_text(frames.replace("PAGE", page.name), encoding="utf-8")
    dom = run_chromium(
        chromium, folder / "profile", around, "--window-size=1700,2000", "--dump-dom"
    )
    found = re.search(r'data-reports="([^"]*)"', dom)
    assert found, "the page was never looked at"
    reports = {int(width): seen for width, seen in json.loads(unescape(found.group(1))).items()}
    assert sorted(reports) == sorted(widths)
    return reports
