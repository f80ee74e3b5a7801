"""A Delta log read for damage that Delta passes over in silence: an emptied commit is to it one without changes."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LogState:
    """What a log says of its newest version."""

    version: int
    n_files: int | None  # data files of that version; None where the log does not tell


def read_log(log: Path) -> LogState:
    """Read the commits since the last checkpoint.

    Raises ValueError, saying what is wrong, where one is garbled or holds less than it says of itself; OSError where
    the log can't be read. Gaps between commits and what is inside a checkpoint are left to Delta, which sees them.
    """
    names = sorted(entry.name for entry in log.iterdir())
    checkpoint = max((name.split(".")[0] for name in names if ".checkpoint." in name), default="")
    version, n_files = int(checkpoint or -1), _files_of_checkpoint(log, checkpoint)
    for name in names:
        number, _, suffix = name.partition(".")
        if suffix != "json" or not number.isdigit() or number <= checkpoint:
            continue
        held = _actions(log / name)
        version = int(number)
        n_files = None if n_files is None else n_files + held["add"] - held["remove"]
    return LogState(version, n_files)


def _files_of_checkpoint(log: Path, checkpoint: str) -> int | None:
    if not checkpoint:
        return 0
    with suppress(OSError, ValueError, TypeError, KeyError):
        last = json.loads((log / "_last_checkpoint").read_bytes())
        if last["version"] == int(checkpoint):  # else it is of an older or, by now, of a newer one
            return int(last["numOfAddFiles"])
    return None


def _actions(path: Path) -> Counter[str]:
    """How many actions of each kind a commit holds. Raises ValueError where that is not what it says of itself."""
    try:
        commit = [json.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:  # cleaned up since it was listed, or a gap, which Delta sees
        return Counter()
    except ValueError:
        raise ValueError(f"{path.name} of its log is garbled") from None
    if not commit or not all(isinstance(action, dict) for action in commit):
        raise ValueError(f"{path.name} of its log is cut or altered")
    held = Counter(kind for action in commit for kind in action)
    info: Any = next((action["commitInfo"] for action in commit if "commitInfo" in action), None)
    metrics = info.get("operationMetrics") if isinstance(info, dict) else None
    counted = metrics if isinstance(metrics, dict) else {}
    if any(str(held[kind]) != str(counted[name]) for name, kind in _COUNTED.items() if name in counted):
        raise ValueError(f"{path.name} of its log is cut or altered")
    return held
