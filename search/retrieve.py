"""A query vector to ranked spans of videos, over every live clip of a collection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vidx.config import SearchOptions
from vidx.errors import StoreMissing
from vidx.search.collection import Background, Collection
from vidx.search.moments import moments
from vidx.vectors._exact import scores_of

# Cosine from which two clips show the same; docs/explanation/dupes.md has what was measured.
SAME = 0.95


@dataclass(frozen=True)
class Span:
    """A stretch of one video that answers a query; `live_range` is a position in the collection's."""

    score: float  # cosine of the best clip
    calibrated: float | None  # how many standard deviations that is above the mean of all clips
    live_range: int
    start_s: float
    end_s: float
    peak: int  # id of the best clip
    peak_s: float  # its middle
    clip_ids: tuple[int, ...]


def retrieve(
    collection: Collection, vector: np.ndarray, options: SearchOptions, kept: np.ndarray | None = None
) -> list[Span]:
    """The k best clips, moments or videos for a unit vector float32 (dim,), best first, ties by clip id.

    `kept`, ascending ids int64 (n,), are the clips that may be hits or parts of them; None means all. Raises
    StoreMissing where the space has no clip.
    """
    if collection.live.n_clips == 0:
        raise StoreMissing(
            f"no video is indexed with {collection.space.encoder} yet", hint="run `vidx index FOLDER` first"
        )
    search = _Search(collection, vector, collection.background(vector), options, kept)
    k = options.k
    while True:
        scores, ids = collection.search(vector, k, kept)
        spans = search.chosen(scores, ids)
        if len(spans) >= options.k or len(ids) < k or search.is_too_low(scores[-1]):
            return spans[: options.k]
        k *= 2


class _Search:
    """One query at work: moments of a video are made once, however often more clips are asked for."""

    def __init__(
        self,
        collection: Collection,
        vector: np.ndarray,
        background: Background,
        options: SearchOptions,
        kept: np.ndarray | None,
    ) -> None:
        self._collection, self._vector, self._background = collection, vector, background
        self._options, self._kept = options, kept
        self._by_peak: dict[int, Span] = {}
        self._known: set[int] = set()

    def is_too_low(self, score: float) -> bool:
        """Whether no clip of that score or a lower one may be a hit."""
        least, calibrated = self._options.min_score, self._calibrated(score)
        return least is not None and (calibrated is None or calibrated < least)

    def chosen(self, scores: np.ndarray, ids: np.ndarray) -> list[Span]:
        """The hits whose peaks are among the best clips: their order is final whatever lies beyond."""
        spans = self._clips(scores, ids) if self._options.by == "clip" else self._moments(ids)
        high = (span for span in spans if not self.is_too_low(span.score))
        return list(self._distinct(high) if self._options.dedupe else high)

    def _clips(self, scores: np.ndarray, ids: np.ndarray) -> Iterator[Span]:
        ranges, rows = self._collection.live.place(ids), self._collection.clips(ids)
        for number, (score, clip_id) in enumerate(zip(scores, ids, strict=True)):
            start_s, end_s = rows.times_s[number]
            yield self._span(float(score), int(ranges[number]), start_s, end_s, int(clip_id), (start_s + end_s) / 2)

    def _moments(self, ids: np.ndarray) -> Iterator[Span]:
        seen: set[int] = set()
        for clip_id, live_range in zip(ids.tolist(), self._collection.live.place(ids).tolist(), strict=True):
            if live_range not in self._known:
                self._known.add(live_range)
                self._by_peak |= {span.peak: span for span in self._moments_of(live_range)}
            span = self._by_peak.get(clip_id)
            if span is not None and not (self._options.by == "video" and live_range in seen):
                seen.add(live_range)
                yield span

    def _moments_of(self, live_range: int) -> Iterator[Span]:
        clips = self._collection.of_video(live_range, self._kept)
        scores = scores_of(clips.vectors, self._vector)
        starts_s, ends_s = clips.times_s.T
        for moment in moments(starts_s, ends_s, scores, self._background.mean):
            middle = (starts_s[moment.peak] + ends_s[moment.peak]) / 2
            span = self._span(
                moment.score, live_range, moment.start_s, moment.end_s, int(clips.ids[moment.peak]), middle
            )
            yield replace(span, clip_ids=tuple(clips.ids[list(moment.clips)].tolist()))

    def _span(self, score: float, live_range: int, start_s: float, end_s: float, peak: int, peak_s: float) -> Span:
        return Span(
            score, self._calibrated(score), live_range, float(start_s), float(end_s), peak, float(peak_s), (peak,)
        )

    def _calibrated(self, score: float) -> float | None:
        mean, deviation = self._background
        return (score - mean) / deviation if deviation > 0 else None

    def _distinct(self, spans: Iterator[Span]) -> Iterator[Span]:
        """Without those whose best clip looks like that of a better hit."""
        shown = np.empty((0, self._collection.space.dim), np.float32)
        for span in spans:
            vectors = self._collection.clips(np.array([span.peak])).vectors
            if not (scores_of(shown, vectors[0]) >= SAME).any():
                shown = np.concatenate([shown, vectors])
                yield span
