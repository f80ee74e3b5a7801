"""Attempts that have clips in the store but no outcome yet, so that a later run can go on where a killed one stopped.

The writer notes an attempt here before the first commit of its clips, and strikes it out after its `indexed` row. An
attempt that is noted and has an outcome none the less was finished just before its run was killed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vidx.errors import StoreDamaged
from vidx.schema.files import write_atomically
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

_NAME = "unfinished.json"


@dataclass(frozen=True)
class Unfinished:
    """One attempt: how its clips are made, and the ids they have or will get."""

    video_id: str
    space: str
    plan: str
    decoder: str
    decode_mode: str
    versions: dict[str, str]
    device: str
    precision: str
    first_clip_id: int
    n_planned: int
    resumable: bool  # not where damage was met, or where the file changed meanwhile: then only its leftovers matter

    @property
    def key(self) -> tuple[str, str]:
        return self.video_id, self.space


def read_unfinished(store_path: Path) -> list[Unfinished]:
    """All noted attempts. Raises StoreDamaged."""
    path = store_path / _NAME
    try:
        return [Unfinished(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise StoreDamaged(
            f"{path} can't be read ({error})", hint="delete it: videos that were half done are then decoded anew"
        ) from error


def write_unfinished(store_path: Path, attempts: list[Unfinished]) -> None:
    """Durable when it returns. Only the holder of the write lock may call it."""
    write_atomically(store_path / _NAME, json.dumps([asdict(attempt) for attempt in attempts], indent=1).encode())


def without_outcome(store: Store, attempts: dict[tuple[str, str], Unfinished]) -> list[Unfinished]:
    """Those of the noted attempts that the store has no outcome of, nor of a later attempt at the same content."""
    if not attempts:
        return []
    known = Snapshot(store).rows(
        "SELECT video_id, space, first_clip_id FROM newest WHERE list_contains($ids, video_id)",
        {"ids": sorted({video_id for video_id, _ in attempts})},
    )
    newest = {(video_id, space): first for video_id, space, first in known}
    return [a for a in attempts.values() if newest.get(a.key, -1) < a.first_clip_id]
