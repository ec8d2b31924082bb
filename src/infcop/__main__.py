"""``python -m infcop``."""

from __future__ import annotations

from infcop.cli import main

if __name__ == "__main__":
    main()
