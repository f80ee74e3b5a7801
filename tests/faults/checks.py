"""What must hold of every snapshot of a store, whatever happened to its writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

Clips = dict[tuple[Any, ...], bytes]


def live_clips(store: Path | Snapshot) -> Clips:
    """Vectors of the live clips of a store's only space, by video_id, start_s, end_s and the ticks of the frames."""
    snapshot = store if isinstance(store, Snapshot) else Snapshot(Store.open(store))
    if not (names := spaces(snapshot)):
        return {}
    (space,) = names
    rows = snapshot.arrow(f"SELECT video_id, start_s, end_s, frame_pts, vector FROM {snapshot.clips(space)}")
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


def spaces(snapshot: Snapshot) -> list[str]:
    """The spaces that a snapshot knows; the store may have got another since."""
    return [name.removeprefix("clips/") for name in snapshot.versions() if name.startswith("clips/")]


def sizes(snapshot: Snapshot) -> dict[str, int]:
    """Counts that only grow while files are only added."""
    live = " UNION ALL ".join(f"SELECT video_id FROM {snapshot.clips(space)}" for space in spaces(snapshot))
    queries = {
        "files": "SELECT count(*) FROM files",
        "videos": "SELECT count(*) FROM videos",
        "contents": "SELECT count(*) FROM newest",
        "clips": f"SELECT count(*) FROM ({live or 'SELECT 1 WHERE false'})",
    }
    return {name: snapshot.rows(query)[0][0] for name, query in queries.items()}


def violations(snapshot: Snapshot) -> list[str]:
    """What is wrong with a snapshot, in words; empty when nothing is."""
    wrong = [f"{what}: {rows[:3]}" for what, query in _SHARED.items() if (rows := snapshot.rows(query))]
    for space in spaces(snapshot):
        for what, query in _IN_A_SPACE.items():
            parameters = {"space": space} if "$space" in query else None
            if rows := snapshot.rows(query.replace("LIVE", snapshot.clips(space)), parameters):
                wrong.append(f"{space}: {what}: {rows[:3]}")
    return wrong


def doubled_thumbnails(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    """Pictures that are stored more than once."""
    return snapshot.rows("SELECT video_id, frame_pts FROM thumbnails GROUP BY ALL HAVING count(*) > 1")


_SHARED = {
    "a path has several rows": "SELECT path FROM files GROUP BY path, path_bytes HAVING count(*) > 1",
    "a content has several rows of facts": "SELECT video_id FROM videos GROUP BY video_id HAVING count(*) > 1",
    "an indexed content has no facts": (
        "SELECT video_id FROM indexed WHERE state = 'ok' AND video_id NOT IN (SELECT video_id FROM videos)"
    ),
}
_IN_A_SPACE = {
    "a clip id is there twice": "SELECT clip_id FROM LIVE GROUP BY clip_id HAVING count(*) > 1",
    "a window is there twice": "SELECT video_id, start_s FROM LIVE GROUP BY ALL HAVING count(*) > 1",
    "an attempt has not the clips it claims": (
        "SELECT n.video_id, any_value(n.n_clips), count(c.clip_id) FROM newest n LEFT JOIN LIVE c USING (video_id)"
        " WHERE n.space = $space AND n.state IN ('ok', 'partial') AND n.video_id IN (SELECT video_id FROM files)"
        " GROUP BY n.video_id HAVING any_value(n.n_clips) <> count(c.clip_id)"
    ),
    "a file of indexed content finds no clip": (
        "SELECT f.path FROM files f JOIN newest n ON n.video_id = f.video_id AND n.space = $space"
        " WHERE f.state = 'present' AND n.state IN ('ok', 'partial')"
        " AND f.video_id NOT IN (SELECT video_id FROM LIVE)"
    ),
}
