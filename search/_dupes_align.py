"""What two videos, or two places of one, have in common: near clips that go on at the same offset in time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from vidx.schema.live import Clips

MOST_REPEATS = 20  # a clip that its own video repeats more often than this says nothing
_MOST_MATCHES = 64  # of a clip in the other video, the best; a still scene matches itself everywhere
_BLOCK_ROWS = 1024
_TOUCH_S = 0.05  # clips this close in time touch
_OFFSET_S = 1.0  # offsets that round to the same multiple are the same


@dataclass(frozen=True)
class Segment:
    """A stretch of one video that shows what a stretch of another shows."""

    similarity: float  # mean cosine of the clips that match
    start_a_s: float
    end_a_s: float
    start_b_s: float
    end_b_s: float
    n_clips: int

    def turned(self) -> Segment:
        """A and B change places."""
        times_s = self.start_b_s, self.end_b_s, self.start_a_s, self.end_a_s
        return Segment(self.similarity, *times_s, self.n_clips)


@dataclass(frozen=True)
class _Matches:
    """Clips `a` and `b`, int64 (M,), with cosines; those of one offset lie together, in the order of time."""

    a: np.ndarray
    b: np.ndarray
    scores: np.ndarray
    joins: np.ndarray  # bool (M,): goes on where the one before ends, at the same offset

    def runs(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Ascending positions `chosen`, split where one does not go on from the one before."""
        if len(chosen) == 0:
            return []
        breaks = np.flatnonzero(~self.joins[chosen[1:]] | (np.diff(chosen) > 1)) + 1
        return np.split(chosen, breaks)


def common(a: Clips, b: Clips, least: float, usable_a: np.ndarray, usable_b: np.ndarray) -> list[Segment]:
    """Segments of two videos whose clips, ordered by start, have cosines of at least `least`.

    Where several offsets would do, the run with the largest sum of cosines comes first; no stretch of either video is
    in two segments. Masks bool (n,) say which clips may match.
    """
    scores = _best_scores(a, b, least, usable_a, usable_b)
    return _chosen(a.times_s, b.times_s, _sorted_matches(a.times_s, b.times_s, *scores), of_one_video=False)


def repeats(clips: Clips, least: float, usable: np.ndarray) -> tuple[list[Segment], int]:
    """Segments of one video that come again, `a` the earlier; and how many clips come again too often to count.

    A clip comes again only after one that differs from it: a scene that goes on is no repeat of itself.
    """
    rows, columns, scores = _best_scores(clips, clips, least, usable, usable, of_one_video=True)
    n = len(clips.ids)
    counts = np.bincount(rows, minlength=n) + np.bincount(columns, minlength=n)
    good = (counts[rows] <= MOST_REPEATS) & (counts[columns] <= MOST_REPEATS)
    matches = _sorted_matches(clips.times_s, clips.times_s, rows[good], columns[good], scores[good])
    return _chosen(clips.times_s, clips.times_s, matches, of_one_video=True), int((counts > MOST_REPEATS).sum())


def _best_scores(
    a: Clips, b: Clips, least: float, usable_a: np.ndarray, usable_b: np.ndarray, of_one_video: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and cosines of the matches, for each row at most _MOST_MATCHES."""
    found: list[tuple[np.ndarray, ...]] = []
    for at in range(0, len(a.ids), _BLOCK_ROWS):
        scores = a.vectors[at : at + _BLOCK_ROWS] @ b.vectors.T
        near = scores >= least
        if of_one_video:
            near &= _comes_again(near, a.times_s, at)
        near &= usable_a[at : at + _BLOCK_ROWS, None] & usable_b
        if len(b.ids) > _MOST_MATCHES:
            scores = np.where(near, scores, -np.inf)
            near &= scores >= -np.partition(-scores, _MOST_MATCHES - 1, axis=1)[:, _MOST_MATCHES - 1, None]
        rows, columns = np.nonzero(near)
        found.append((rows + at, columns, scores[rows, columns]))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def _comes_again(near: np.ndarray, times_s: np.ndarray, at: int) -> np.ndarray:
    """Mask like `near`: later clips that do not touch the row's, with one between that is not near it."""
    rows, columns = np.arange(at, at + len(near))[:, None], np.arange(near.shape[1])
    goes_on = np.logical_and.accumulate(near | (columns <= rows), axis=1)
    later: np.ndarray = times_s[:, 0] > times_s[rows, 1] + _TOUCH_S
    return later & ~goes_on


def _sorted_matches(
    times_a: np.ndarray, times_b: np.ndarray, rows: np.ndarray, columns: np.ndarray, scores: np.ndarray
) -> _Matches:
    offsets = np.rint((times_b[columns, 0] - times_a[rows, 0]) / _OFFSET_S).astype(np.int64)
    order = np.lexsort((columns, rows, offsets))
    rows, columns, offsets = rows[order], columns[order], offsets[order]
    joins = np.zeros(len(rows), bool)
    joins[1:] = (
        (offsets[1:] == offsets[:-1])
        & (times_a[rows[1:], 0] <= times_a[rows[:-1], 1] + _TOUCH_S)
        & (times_b[columns[1:], 0] <= times_b[columns[:-1], 1] + _TOUCH_S)
    )
    return _Matches(rows, columns, scores[order].astype(np.float64), joins)


def _chosen(times_a: np.ndarray, times_b: np.ndarray, matches: _Matches, of_one_video: bool) -> list[Segment]:
    """Best run first; what is left of others that overlap it in time waits for its turn."""
    free_a, free_b = np.ones(len(times_a), bool), np.ones(len(times_b), bool)
    waiting: list[tuple[float, int, np.ndarray]] = []

    def wait(positions: np.ndarray) -> None:
        for run in matches.runs(positions):
            heapq.heappush(waiting, (-float(matches.scores[run].sum()), int(run[0]), run))

    wait(np.arange(len(matches.a)))
    segments = []
    while waiting:
        _, _, run = heapq.heappop(waiting)
        left = free_a[matches.a[run]] & free_b[matches.b[run]]
        if of_one_video:  # the first half of what a video repeats at once must end where the second begins
            left &= times_a[matches.a[run], 1] <= times_b[matches.b[run[0]], 0] + _TOUCH_S
        if not left.all():
            wait(run[left])
            if of_one_video:
                wait(run[~left & free_a[matches.a[run]] & free_b[matches.b[run]]])
            continue
        segment = _segment(times_a, times_b, matches, run)
        segments.append(segment)
        free_a &= ~_overlaps(times_a, segment.start_a_s, segment.end_a_s)
        free_b &= ~_overlaps(times_b, segment.start_b_s, segment.end_b_s)
    return segments


def _segment(times_a: np.ndarray, times_b: np.ndarray, matches: _Matches, run: np.ndarray) -> Segment:
    a, b = matches.a[run], matches.b[run]
    return Segment(
        similarity=float(matches.scores[run].mean()),
        start_a_s=float(times_a[a[0], 0]),
        end_a_s=float(times_a[a, 1].max()),
        start_b_s=float(times_b[b[0], 0]),
        end_b_s=float(times_b[b, 1].max()),
        n_clips=len(run),
    )


def _overlaps(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    mask: np.ndarray = (times_s[:, 0] < end_s - _TOUCH_S) & (times_s[:, 1] > start_s + _TOUCH_S)
    return mask
