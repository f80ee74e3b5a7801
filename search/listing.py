"""What passes a filter, without a query: the most probable tags first, else in the order of indexing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from vidx.search.collection import Collection
from vidx.search.moments import moments
from vidx.search.retrieve import Span


def listed(collection: Collection, kept: np.ndarray, probable: np.ndarray, *, k: int, by: str) -> list[Span]:
    """The first k clips, moments or videos of the clips `kept`, ascending ids int64 (n,).

    `probable` float32 (n,) is what orders them, and their score; ties by clip id. A moment is a stretch without a gap.
    """
    each = (_Clips if by == "clip" else _Moments)(collection, kept, probable)
    order = np.argsort(-probable, kind="stable").tolist()
    spans = (span for at in order for span in each.at(at))
    return list(islice(_first_of_each_video(spans) if by == "video" else spans, k))


def _first_of_each_video(spans: Iterator[Span]) -> Iterator[Span]:
    seen: set[int] = set()
    for span in spans:
        if span.live_range not in seen:
            seen.add(span.live_range)
            yield span


class _Clips:
    """A span for each clip."""

    def __init__(self, collection: Collection, kept: np.ndarray, probable: np.ndarray) -> None:
        self._collection, self._kept, self._probable = collection, kept, probable
        self._ranges = collection.live.place(kept)

    def at(self, position: int) -> Iterator[Span]:
        """Of the clip at a position of `kept`."""
        ids = self._kept[[position]]
        [(start_s, end_s)] = self._collection.clips(ids).times_s.tolist()
        clip_id, score = int(ids[0]), float(self._probable[position])
        middle_s = (start_s + end_s) / 2
        yield Span(score, None, int(self._ranges[position]), start_s, end_s, clip_id, middle_s, (clip_id,))


class _Moments:
    """A span for each stretch of clips of a video, found when its most probable clip comes up."""

    def __init__(self, collection: Collection, kept: np.ndarray, probable: np.ndarray) -> None:
        self._collection, self._kept, self._probable = collection, kept, probable
        self._ranges = collection.live.place(kept)
        self._by_peak: dict[int, Span] = {}
        self._known: set[int] = set()

    def at(self, position: int) -> Iterator[Span]:
        """Of the stretch whose most probable clip is at a position of `kept`, if it is that of one."""
        live_range = int(self._ranges[position])
        if live_range not in self._known:
            self._known.add(live_range)
            self._by_peak |= {span.peak: span for span in self._of_video(live_range)}
        if (span := self._by_peak.get(int(self._kept[position]))) is not None:
            yield span

    def _of_video(self, live_range: int) -> Iterator[Span]:
        clips = self._collection.of_video(live_range, self._kept)
        scores = self._probable[np.searchsorted(self._kept, clips.ids)]
        starts_s, ends_s = clips.times_s.T
        for moment in moments(starts_s, ends_s, scores, background=-np.inf):
            peak = moment.peak
            yield Span(
                score=moment.score,
                calibrated=None,
                live_range=live_range,
                start_s=moment.start_s,
                end_s=moment.end_s,
                peak=int(clips.ids[peak]),
                peak_s=float(starts_s[peak] + ends_s[peak]) / 2,
                clip_ids=tuple(clips.ids[list(moment.clips)].tolist()),
            )
