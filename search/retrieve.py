"""Vectors and a query to ranked hits, over every live clip of a snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from vidx.config import SearchOptions
from vidx.errors import StoreDamaged, StoreMissing, UnknownChoice
from vidx.plugins import load
from vidx.schema.records import Hit
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.search.moments import moments

BY = ("moment", "clip", "video")


@dataclass(frozen=True)
class _Clips:
    """All live clips of a space, ordered by video and start; `videos` holds positions in `video_ids`."""

    ids: np.ndarray
    videos: np.ndarray
    video_ids: list[str]
    starts_s: np.ndarray
    ends_s: np.ndarray
    vectors: np.ndarray

    def of_video(self, number: int) -> slice:
        return slice(*np.searchsorted(self.videos, [number, number + 1]))

    def only(self, ids: np.ndarray) -> _Clips:
        """Those of the clips whose ids are given, in the same order."""
        kept = np.isin(self.ids, ids)
        columns = {name: getattr(self, name)[kept] for name in ("ids", "videos", "starts_s", "ends_s", "vectors")}
        return replace(self, **columns)


@dataclass(frozen=True)
class _Span:
    """A hit before its paths are known: positions of its clips in _Clips."""

    score: float
    video: int
    start_s: float
    end_s: float
    peak: int
    clips: tuple[int, ...]


def search_vector(
    snapshot: Snapshot, space: Space, vector: np.ndarray, options: SearchOptions, kept: np.ndarray | None = None
) -> tuple[list[Hit], list[int]]:
    """The k best clips, moments or videos for a unit vector float32 (dim,), best first, ties by clip id.

    `kept` int64 (n,) are the ids of the clips that may be hits or parts of them; None means all. Returns the hits and
    the id of the best clip of each. Raises StoreMissing where the space has no clip, UnknownChoice for a `by` that does
    not exist.
    """
    if options.by not in BY:
        raise UnknownChoice(f"can't rank by {options.by!r}", hint=f"choose from: {', '.join(BY)}")
    clips = _live_clips(snapshot, space)
    if len(clips.ids) == 0:
        raise StoreMissing(f"no video is indexed with {space.encoder} yet", hint="run `vidx index FOLDER` first")
    background = float(clips.vectors.mean(axis=0) @ vector)  # of the whole store, so that no filter moves it
    if kept is not None:
        clips = clips.only(kept)
    if len(clips.ids) == 0:
        return [], []
    index = load("vectors", "flat").build(clips.vectors, clips.ids)
    position = {int(clip_id): number for number, clip_id in enumerate(clips.ids)}
    k = options.k
    while True:
        scores, ids = index.search(vector[None], k)
        best = [position[int(clip_id)] for clip_id in ids[0]]
        spans = list(_spans(clips, vector, best, scores[0], background, options.by))
        if len(spans) >= options.k or len(best) == len(clips.ids):
            spans = spans[: options.k]
            return _hits(snapshot, clips, spans), [int(clips.ids[span.peak]) for span in spans]
        k *= 2


def _spans(
    clips: _Clips, vector: np.ndarray, best: list[int], scores: np.ndarray, background: float, by: str
) -> Iterator[_Span]:
    """Spans whose peak is among the best clips, which makes their order final whatever lies beyond."""
    if by == "clip":
        for clip, score in zip(best, scores, strict=True):
            yield _Span(float(score), int(clips.videos[clip]), clips.starts_s[clip], clips.ends_s[clip], clip, (clip,))
        return
    peaks: dict[int, _Span] = {}
    for video in {int(clips.videos[clip]) for clip in best}:
        own = clips.of_video(video)
        for moment in moments(clips.starts_s[own], clips.ends_s[own], clips.vectors[own] @ vector, background):
            peak = own.start + moment.peak
            members = tuple(own.start + clip for clip in moment.clips)
            peaks[peak] = _Span(moment.score, video, moment.start_s, moment.end_s, peak, members)
    seen: set[int] = set()
    for clip in best:
        if clip in peaks and not (by == "video" and peaks[clip].video in seen):
            seen.add(peaks[clip].video)
            yield peaks[clip]


def peak_thumbnails(snapshot: Snapshot, space: Space, clip_ids: list[int]) -> list[bytes | None]:
    """The stored picture of each clip's middle frame, None where the store has none."""
    rows = snapshot.rows(
        "SELECT c.clip_id, t.image FROM thumbnails t"
        f" JOIN {snapshot.clips(space.name)} c ON c.video_id = t.video_id"
        " AND t.frame_pts = c.frame_pts[len(c.frame_pts) // 2 + 1] WHERE list_contains($ids, c.clip_id)",
        {"ids": clip_ids},
    )
    images = dict(rows)
    return [images.get(clip_id) for clip_id in clip_ids]


def _live_clips(snapshot: Snapshot, space: Space) -> _Clips:
    attempts = snapshot.rows(
        "SELECT first_clip_id, video_id, CASE WHEN video_id IN (SELECT video_id FROM files) THEN n_clips ELSE 0 END"
        " FROM newest WHERE space = $space ORDER BY first_clip_id",
        {"space": space.name},
    )
    rows = snapshot.arrow(f"SELECT clip_id, start_s, end_s, vector FROM {snapshot.clips(space.name)}")
    ids, starts_s, ends_s, flat = (_column(rows, name) for name in ("clip_id", "start_s", "end_s", "vector"))
    if len(ids) != (claimed := sum(n_clips for _, _, n_clips in attempts)) or len(flat) != len(ids) * space.dim:
        raise StoreDamaged(
            f"the clips of {space.name} are not whole: {claimed} are recorded and {len(ids)} can be read",
            hint="restore the store from a backup",
        )
    # The ids of an attempt are consecutive, so its first id tells whose a clip is.
    videos = np.searchsorted([first for first, *_ in attempts], ids, side="right") - 1
    order = np.lexsort((ids, starts_s, videos))
    return _Clips(
        ids=ids[order],
        videos=videos[order],
        video_ids=[video_id for _, video_id, _ in attempts],
        starts_s=starts_s[order],
        ends_s=ends_s[order],
        vectors=flat.reshape(len(ids), space.dim)[order],
    )


def _column(rows: pa.Table, name: str) -> np.ndarray:
    """A column as an array, lists flattened. Raises StoreDamaged where a value is missing."""
    column = rows[name].combine_chunks()
    if column.null_count:
        raise StoreDamaged(f"clips of the store lack their {name}", hint="restore the store from a backup")
    # Arrow's own to_numpy would import pandas.
    return np.from_dlpack(column.flatten() if pa.types.is_list(column.type) else column)


def _hits(snapshot: Snapshot, clips: _Clips, spans: list[_Span]) -> list[Hit]:
    paths = _paths(snapshot, {clips.video_ids[span.video] for span in spans})
    hits = []
    for rank, span in enumerate(spans, 1):
        video_id = clips.video_ids[span.video]
        known = paths[video_id]
        online = [text for text, exists in known if exists]
        hits.append(
            Hit(
                rank=rank,
                score=round(span.score, 6),
                calibrated=None,
                video_id=video_id,
                path=online[0] if online else known[0][0],
                paths=[text for text, _ in known],
                online=bool(online),
                start_s=round(float(span.start_s), 3),
                end_s=round(float(span.end_s), 3),
                peak_s=round(float(clips.starts_s[span.peak] + clips.ends_s[span.peak]) / 2, 3),
                clip_ids=[int(clips.ids[clip]) for clip in span.clips],
            )
        )
    return hits


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
