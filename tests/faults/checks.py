"""What must hold of every snapshot of a store, whatever happened to its writers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

Clips = dict[tuple[Any, ...], bytes]
_HAS_CLIPS = ("ok", "partial")


@dataclass(frozen=True)
class Contents:
    """All that is checked of a snapshot: it is read once, since opening the files is what takes long."""

    files: list[tuple[str, bytes, str | None, str]]  # path, path_bytes, video_id, state
    videos: list[str]  # video_id
    newest: list[tuple[str, str, str, int | None]]  # video_id, space, state, n_clips
    live: dict[str, pa.Table] = field(repr=False)  # the live clips of each space

    @property
    def clips(self) -> Clips:
        """Vectors of the live clips of the only space, by video_id, start_s, end_s and the ticks of the frames."""
        if not self.live:
            return {}
        (rows,) = self.live.values()
        if len(rows) == 0:
            return {}
        columns = [rows[name].to_pylist() for name in ("video_id", "start_s", "end_s", "frame_pts")]
        vectors = np.from_dlpack(rows["vector"].combine_chunks().flatten()).reshape(len(rows), -1)
        clips = {
            (video_id, start_s, end_s, *ticks): vector.tobytes()
            for video_id, start_s, end_s, ticks, vector in zip(*columns, vectors, strict=True)
        }
        assert len(clips) == len(rows), "a clip is there twice"
        return clips

    @property
    def sizes(self) -> dict[str, int]:
        """Counts that only grow while files are only added."""
        whole = {"files": self.files, "videos": self.videos, "contents": self.newest}
        return {**{name: len(rows) for name, rows in whole.items()}, "clips": sum(map(len, self.live.values()))}

    @property
    def settled(self) -> set[str]:
        """Paths of content that was indexed."""
        indexed = {video_id for video_id, _, state, _ in self.newest if state in _HAS_CLIPS}
        return {path for path, _, video_id, _ in self.files if video_id in indexed}

    @property
    def violations(self) -> list[str]:
        """What is wrong, in words; empty when nothing is."""
        indexed = {video_id for video_id, _, state, _ in self.newest if state == "ok"}
        shared = {
            "a path has several rows": _doubled(row[:2] for row in self.files),
            "a content has several rows of facts": _doubled(self.videos),
            "an indexed content has no facts": sorted(indexed - set(self.videos)),
        }
        wrong = [f"{what}: {rows[:3]}" for what, rows in shared.items() if rows]
        for space, rows in self.live.items():
            wrong += [f"{space}: {what}: {rows[:3]}" for what, rows in self._wrong_in(space, rows).items() if rows]
        return wrong

    def _wrong_in(self, space: str, live: pa.Table) -> dict[str, list[Any]]:
        video_ids = live["video_id"].to_pylist()
        found = Counter(video_ids)
        claimed = {video_id: n for video_id, of, state, n in self.newest if of == space and state in _HAS_CLIPS}
        named = {video_id for _, _, video_id, _ in self.files}
        present = {(path, video_id) for path, _, video_id, state in self.files if state == "present"}
        return {
            "a clip id is there twice": _doubled(live["clip_id"].to_pylist()),
            "a window is there twice": _doubled(zip(video_ids, live["start_s"].to_pylist(), strict=True)),
            "an attempt has not the clips it claims": [
                (video_id, n, found[video_id])
                for video_id, n in claimed.items()
                if video_id in named and n != found[video_id]
            ],
            "a file of indexed content finds no clip": sorted(
                path for path, video_id in present if video_id in claimed and not found[video_id]
            ),
        }


def contents(store: Path | Snapshot) -> Contents:
    """What a store holds now, or a snapshot of it. Raises StoreMissing."""
    snapshot = store if isinstance(store, Snapshot) else Snapshot(Store.open(store))
    return Contents(
        files=snapshot.rows("SELECT path, path_bytes, video_id, state FROM files"),  # type: ignore[arg-type]
        videos=[video_id for (video_id,) in snapshot.rows("SELECT video_id FROM videos")],
        newest=snapshot.rows("SELECT video_id, space, state, n_clips FROM newest"),  # type: ignore[arg-type]
        live={space: snapshot.arrow(f"FROM {snapshot.clips(space)}") for space in _spaces(snapshot)},
    )


def live_clips(store: Path) -> Clips:
    """See `Contents.clips`."""
    return contents(store).clips


def doubled_thumbnails(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    """Pictures that are stored more than once."""
    return snapshot.rows("SELECT video_id, frame_pts FROM thumbnails GROUP BY ALL HAVING count(*) > 1")


def _spaces(snapshot: Snapshot) -> list[str]:
    """The spaces that a snapshot knows; the store may have got another since."""
    return [name.removeprefix("clips/") for name in snapshot.versions() if name.startswith("clips/")]


def _doubled(rows: Iterable[Hashable]) -> list[Any]:
    return [row for row, n in Counter(rows).items() if n > 1]
