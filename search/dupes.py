"""Near-duplicate videos and segments of an archive, from the vectors it holds: `vidx dupes`.

First all clips are compared, and pairs of videos with near clips are kept (`_dupes_near`); then the clips of each such
pair are laid against each other in time (`_dupes_align`). docs/explanation/dupes.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vidx.config import MIN_SIMILARITY
from vidx.errors import StoreMissing, UnknownChoice
from vidx.schema.live import Clips
from vidx.schema.snapshot import Snapshot
from vidx.search._dupes_align import Segment, common, repeats
from vidx.search._dupes_near import near_videos
from vidx.search.collection import Collection
from vidx.search.hits import hits_of
from vidx.search.retrieve import Span

BY = ("video", "segment")
KINDS = ("video", "contained", "segment")
_COVERED = 0.8  # of a video's clips that must match for it to be a copy, or to be contained


@dataclass(frozen=True)
class Side:
    """A stretch of a video that another has too."""

    video_id: str
    path: str
    online: bool
    start_s: float
    end_s: float
    covered: float  # share of the video that matches the other one, hubs aside


@dataclass(frozen=True)
class Duplicate:
    """Two stretches that show the same; a `b` of the same video is the later one.

    `kind` is of their videos: `video`, each shows the other; `contained`, all of A is in B; else `segment`.
    """

    kind: str
    similarity: float  # mean cosine of the clips that match
    a: Side
    b: Side


@dataclass(frozen=True)
class Dupes:
    """What was found: the first of `total` rows, and how many clips are like too many others to say anything."""

    rows: list[Duplicate]
    total: int
    n_hubs: int  # near clips of too many other videos
    n_repeats: int  # come again too often in their own video


class _Found(NamedTuple):
    """A row to be; `videos` are live ranges."""

    kind: str
    similarity: float
    videos: tuple[int, int]
    covered: tuple[float, float]
    segment: Segment


def duplicates(
    snapshot: Snapshot,
    collection: Collection,
    *,
    least: float = MIN_SIMILARITY,
    by: str = "video",
    k: int = 100,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Dupes:
    """The k first pairs of videos, or of segments, whose clips have cosines of at least `least`, each told once.

    Whole videos come first, then contained ones, then segments; the most similar first. By `video`, the times are those
    of the segment with the largest sum of cosines. `tell` hears how many clips of how many are compared. Raises
    StoreMissing where the space has no clip, UnknownChoice for a `by` that does not exist.
    """
    if by not in BY:
        raise UnknownChoice(f"can't list by {by!r}", hint=f"choose from: {', '.join(BY)}")
    if collection.live.n_clips == 0:
        raise StoreMissing(
            f"no video is indexed with {collection.space.encoder} yet", hint="run `vidx index FOLDER` first"
        )
    near = near_videos(collection, least, tell)
    shelf = _Shelf(collection, near.hubs)
    found = [row for first, second in near.pairs.tolist() for row in _of_pair(shelf, first, second, least, by)]
    n_repeats = 0
    for video in np.flatnonzero(collection.live.counts > 2).tolist():
        rows, often = _of_one(shelf, video, least, by)
        found += rows
        n_repeats += often
    found.sort(key=lambda row: _place(collection, row))
    return Dupes(_told(snapshot, collection, found[:k]), len(found), len(near.hubs), n_repeats)


class _Shelf:
    """Clips of videos in the order of time, and which of them may match; the last two taken are kept at hand."""

    def __init__(self, collection: Collection, hubs: np.ndarray) -> None:
        self._collection, self._hubs = collection, hubs
        self._held: dict[int, tuple[Clips, np.ndarray]] = {}

    def video_id(self, video: int) -> str:
        return self._collection.video_id(video)

    def take(self, video: int) -> tuple[Clips, np.ndarray]:
        held = self._held.pop(video, None)
        if held is None:
            clips = self._collection.of_video(video)
            held = (clips, ~np.isin(clips.ids, self._hubs))
        if len(self._held) > 1:
            del self._held[next(iter(self._held))]
        self._held[video] = held
        return held


def _of_pair(shelf: _Shelf, first: int, second: int, least: float, by: str) -> list[_Found]:
    # By content, so that the order in which videos were indexed does not matter.
    videos = (first, second) if shelf.video_id(first) < shelf.video_id(second) else (second, first)
    (a, usable_a), (b, usable_b) = shelf.take(videos[0]), shelf.take(videos[1])
    segments = common(a, b, least, usable_a, usable_b)
    covered = _covered(segments, a, usable_a), _covered(segments, b, usable_b)
    n_whole = sum(share >= _COVERED for share in covered)
    rows = _rows(segments, by, KINDS[2 - n_whole], videos, covered)
    return [_turned(row) for row in rows] if n_whole == 1 and covered[1] >= _COVERED else rows


def _of_one(shelf: _Shelf, video: int, least: float, by: str) -> tuple[list[_Found], int]:
    clips, usable = shelf.take(video)
    segments, often = repeats(clips, least, usable)
    share = _covered(segments, clips, usable)
    return _rows(segments, by, "segment", (video, video), (share, share)), often


def _rows(
    segments: list[Segment], by: str, kind: str, videos: tuple[int, int], covered: tuple[float, float]
) -> list[_Found]:
    """One for each segment, or one for the pair."""
    similarities = [segment.similarity for segment in segments]
    if by == "video" and segments:
        counts = [segment.n_clips for segment in segments]
        similarities, segments = [float(np.average(similarities, weights=counts))], segments[:1]
    return [
        _Found(kind, similarity, videos, covered, segment)
        for similarity, segment in zip(similarities, segments, strict=True)
    ]


def _covered(segments: list[Segment], clips: Clips, usable: np.ndarray) -> float:
    """The share of the usable clips' time that is in segments; two seconds that are like ten are two."""
    shared_s = sum(min(row.end_a_s - row.start_a_s, row.end_b_s - row.start_b_s) for row in segments)
    starts_s, ends_s = clips.times_s[usable].T
    before_s = np.maximum.accumulate(np.concatenate([[-np.inf], ends_s]))[:-1]
    total_s = np.maximum(ends_s - np.maximum(starts_s, before_s), 0).sum()
    return min(float(shared_s / max(total_s, 1e-9)), 1.0)


def _turned(row: _Found) -> _Found:
    """A and B change places."""
    return row._replace(videos=row.videos[::-1], covered=row.covered[::-1], segment=row.segment.turned())


def _place(collection: Collection, row: _Found) -> tuple[int, float, str, str, float, float]:
    """Where a row comes among the others, in whatever order they were found."""
    a, b = (collection.video_id(video) for video in row.videos)
    return KINDS.index(row.kind), -round(row.similarity, 6), a, b, row.segment.start_a_s, row.segment.start_b_s


def _told(snapshot: Snapshot, collection: Collection, found: list[_Found]) -> list[Duplicate]:
    sides = []
    for row in found:
        times_s = (row.segment.start_a_s, row.segment.end_a_s), (row.segment.start_b_s, row.segment.end_b_s)
        for video, (start_s, end_s) in zip(row.videos, times_s, strict=True):
            sides.append(Span(row.similarity, None, video, start_s, end_s, peak=-1, peak_s=start_s, clip_ids=()))
    hits = hits_of(snapshot, collection, sides)
    shares = [share for row in found for share in row.covered]
    told = [
        Side(hit.video_id, hit.path, hit.online, hit.start_s, hit.end_s, round(share, 3))
        for hit, share in zip(hits, shares, strict=True)
    ]
    return [
        Duplicate(row.kind, round(row.similarity, 6), *pair)
        for row, pair in zip(found, zip(told[::2], told[1::2], strict=True), strict=True)
    ]
