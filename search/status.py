"""What is in a store, counted, and what could not be used, listed."""

from __future__ import annotations

import json
from typing import Any

from vidx.schema.records import Trouble
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store


def status(store: Store) -> dict[str, Any]:
    """Files by state, videos, hours, clips by space, and the last run. Raises StoreError.

    `files` counts recorded paths, by the outcome of their content in the default space; those that are `missing` are
    among them. A video that no path leads to any more is `retired` and counted nowhere else.
    """
    snapshot = Snapshot(store)
    default_space = store.facts().default_space
    states = dict(snapshot.rows(_STATES, {"space": default_space}))
    [(missing,)] = snapshot.rows("SELECT count(*) FROM files WHERE state = 'missing'")
    [(videos, hours)] = snapshot.rows(
        "SELECT count(*), coalesce(sum(duration_s), 0) / 3600 FROM videos SEMI JOIN files USING (video_id)"
    )
    [(retired,)] = snapshot.rows("SELECT count(*) FROM videos ANTI JOIN files USING (video_id)")
    clips = dict(
        snapshot.rows("SELECT space, sum(n_clips)::BIGINT FROM newest SEMI JOIN files USING (video_id) GROUP BY space")
    )
    return {
        "store": str(store.path),
        "files": sum(states.values()),
        "ok": states.get("ok", 0),
        "partial": states.get("partial", 0),
        "failed": states.get("failed", 0),
        "not_video": states.get("not_video", 0),
        "not_indexed": states.get(None, 0),
        "missing": missing,
        "videos": videos,
        "hours": round(hours, 3),
        "retired": retired,
        "default_space": default_space,
        "clips": {space: clips.get(space, 0) for space in store.spaces()},
        "last_run": _last_run(snapshot),
    }


def troubles(store: Store) -> list[Trouble]:
    """Every recorded path that failed or is partial in the default space, in the order of paths. Raises StoreError."""
    rows = Snapshot(store).rows(_TROUBLES, {"space": store.facts().default_space})
    return [Trouble(*row) for row in rows]


def _last_run(snapshot: Snapshot) -> dict[str, Any] | None:
    """Command, how it ended and its account; a run that was killed left no record."""
    query = "SELECT command, state, strftime(finished_at, '%Y-%m-%dT%H:%M:%SZ'), counts FROM runs ORDER BY finished_at"
    for command, state, finished_at, counts in snapshot.rows(query + " DESC LIMIT 1"):
        return {"command": command, "state": state, "finished_at": finished_at, "counts": json.loads(counts)}
    return None


_STATES = """
SELECT CASE f.state WHEN 'unreadable' THEN 'failed' ELSE n.state END, count(*)
FROM files f LEFT JOIN newest n ON n.video_id = f.video_id AND n.space = $space GROUP BY 1
"""
_TROUBLES = """
SELECT path, state, reason, first_bad_s FROM (
    SELECT f.path, f.path_bytes, n.state, n.reason, n.first_bad_s
    FROM files f JOIN newest n ON n.video_id = f.video_id AND n.space = $space WHERE n.state IN ('failed', 'partial')
    UNION ALL SELECT path, path_bytes, 'failed', reason, NULL FROM files WHERE state = 'unreadable'
) ORDER BY path_bytes
"""
