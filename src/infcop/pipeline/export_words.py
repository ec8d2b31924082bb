"""What was exported, in a few lines and as values for ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infcop.pipeline.exporting import Exported

__all__ = ["export_dict", "export_lines"]


def export_dict(done: Sequence[Exported]) -> dict[str, Any]:
    """Return paths and manifests of the files."""
    return {
        "files": [
            {
                "path": str(one.path),
                "manifest_path": str(one.manifest_path),
                "manifest": one.manifest.model_dump(mode="json"),
            }
            for one in done
        ]
    }


def export_lines(done: Sequence[Exported]) -> list[str]:
    """Return where the files are, how they were checked, and what each format takes."""
    lines = [f"{one.path}: {_told(one)}" for one in done]
    for kind in dict.fromkeys(one.manifest.network for one in done):
        manifest = next(one.manifest for one in done if one.manifest.network == kind)
        lines += ["", f"The {kind} network, {manifest.parameters:,} parameters:"]
        lines += [f"  {line}" for line in str(manifest.sizes).splitlines()]
    return [*lines, "", "The manifest of each file is beside it: FILE.json"]


def _told(one: Exported) -> str:
    facts = one.manifest.file
    assert facts is not None  # the manifest beside a file names it
    told = f"the {one.manifest.network} network as {facts.format}, {facts.bytes:,} bytes"
    if facts.difference is None:
        return told
    batches = " and ".join(map(str, facts.checked_on))
    batch = "any batch size" if facts.batch == "any" else f"batches of {facts.batch} only"
    apart = f"within {facts.difference:.1g} of the largest" if facts.difference else "the same"
    return f"{told}; takes {batch}; checked on {batches} examples, outputs {apart}"
