"""Spans to hits: what people and other programs are told of them."""

from __future__ import annotations

import os

from vidx.schema.records import Hit
from vidx.schema.snapshot import Snapshot
from vidx.search.collection import Collection
from vidx.search.retrieve import Span


def hits_of(snapshot: Snapshot, collection: Collection, spans: list[Span]) -> list[Hit]:
    """Hits in the order of the spans, with every path of their videos and whether one of them is there now."""
    video_ids = [collection.video_id(span.live_range) for span in spans]
    paths = _paths(snapshot, set(video_ids))
    hits = []
    for rank, (span, video_id) in enumerate(zip(spans, video_ids, strict=True), 1):
        known = paths[video_id]
        online = [text for text, exists in known if exists]
        hits.append(
            Hit(
                rank=rank,
                score=round(span.score, 6),
                calibrated=None if span.calibrated is None else round(span.calibrated, 3),
                video_id=video_id,
                path=online[0] if online else known[0][0],
                paths=[text for text, _ in known],
                online=bool(online),
                start_s=round(span.start_s, 3),
                end_s=round(span.end_s, 3),
                peak_s=round(span.peak_s, 3),
                clip_ids=list(span.clip_ids),
            )
        )
    return hits


def peak_thumbnails(snapshot: Snapshot, space: str, clip_ids: list[int]) -> list[bytes | None]:
    """The stored picture of each clip's middle frame, None where the store has none."""
    rows = snapshot.rows(
        "SELECT c.clip_id, t.image FROM thumbnails t"
        f" JOIN {snapshot.clips(space)} c ON c.video_id = t.video_id"
        " AND t.frame_pts = c.frame_pts[len(c.frame_pts) // 2 + 1] WHERE list_contains($ids, c.clip_id)",
        {"ids": clip_ids},
    )
    images = dict(rows)
    return [images.get(clip_id) for clip_id in clip_ids]


def _paths(snapshot: Snapshot, video_ids: set[str]) -> dict[str, list[tuple[str, bool]]]:
    """Printable paths of each video in byte order, and whether each is there now."""
    rows = snapshot.rows(
        "SELECT video_id, path, path_bytes FROM files WHERE list_contains($ids, video_id) ORDER BY path_bytes",
        {"ids": sorted(video_ids)},
    )
    paths: dict[str, list[tuple[str, bool]]] = {}
    for video_id, text, exact in rows:
        paths.setdefault(video_id, []).append((text, os.path.isfile(exact)))
    return paths
