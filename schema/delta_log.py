"""A Delta log read for damage that Delta passes over in silence: an emptied commit is to it one without changes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

# What the commitInfo of an operation counts, whoever wrote it, and the actions that must then be there.
_COUNTED = {
    "num_added_files": "add",
    "num_target_files_added": "add",
    "numFilesAdded": "add",
    "num_removed_files": "remove",
    "num_target_files_removed": "remove",
    "numFilesRemoved": "remove",
}


def find_damage(log: Path) -> str | None:
    """What is wrong with the commits since the last checkpoint, in words; None for nothing.

    Raises OSError where a file can't be read. Checkpoints and gaps between commits are left to Delta, which sees them.
    """
    names = sorted(entry.name for entry in log.iterdir())
    checkpoint = max((name.split(".")[0] for name in names if ".checkpoint." in name), default="")
    for name in names:
        version, _, suffix = name.partition(".")
        if suffix == "json" and version.isdigit() and version > checkpoint:
            try:
                commit = [json.loads(line) for line in (log / name).read_bytes().splitlines()]
            except ValueError:
                return f"{name} of its log is garbled"
            if not _is_whole(commit):
                return f"{name} of its log is cut or altered"
    return None


def _is_whole(commit: list[Any]) -> bool:
    """Whether a commit holds as many actions of each kind as it says of itself."""
    if not commit or not all(isinstance(action, dict) for action in commit):
        return False
    held = Counter(kind for action in commit for kind in action)
    info = next((action["commitInfo"] for action in commit if "commitInfo" in action), {})
    metrics = info.get("operationMetrics") or {} if isinstance(info, dict) else {}
    return all(held[kind] == int(metrics[name]) for name, kind in _COUNTED.items() if name in metrics)
