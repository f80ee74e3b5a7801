"""What is in a store, counted."""

from __future__ import annotations

from typing import Any

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store


def status(store: Store) -> dict[str, Any]:
    """Files by state, videos, hours, and clips by space. Raises StoreError."""
    snapshot = Snapshot(store)
    default_space = store.facts().default_space
    states = dict(
        snapshot.rows(
            "SELECT coalesce(n.state, f.state), count(*) FROM files f"
            " LEFT JOIN newest n ON n.video_id = f.video_id AND n.space = $space GROUP BY 1",
            {"space": default_space},
        )
    )
    [(videos, hours)] = snapshot.rows("SELECT count(*), coalesce(sum(duration_s), 0) / 3600 FROM videos")
    clips = dict(
        snapshot.rows("SELECT space, sum(n_clips)::BIGINT FROM newest SEMI JOIN files USING (video_id) GROUP BY space")
    )
    return {
        "store": str(store.path),
        "files": sum(states.values()),
        "ok": states.get("ok", 0),
        "partial": states.get("partial", 0),
        "failed": states.get("failed", 0) + states.get("unreadable", 0),
        "not_video": states.get("not_video", 0),
        "videos": videos,
        "hours": round(hours, 3),
        "default_space": default_space,
        "clips": {space: clips.get(space, 0) for space in store.spaces()},
    }
