"""A real browser to look at pages with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["chromium_or_skip", "run_chromium"]


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
