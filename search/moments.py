"""Clips of one video to moments: scored spans of time.

A moment grows around a peak: starting at the best clip not yet taken, it takes neighbours in time (overlapping or
touching) for as long as they score at least half as far above the background as the peak does. The background is the
mean score of all clips of the archive for the query. Every clip belongs to exactly one moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TOUCH_S = 0.05  # clips this close in time touch


@dataclass(frozen=True)
class Moment:
    """A span of one video; `clips` are positions in the arrays given, in order of time, `peak` the best of them."""

    score: float
    start_s: float
    end_s: float
    peak: int
    clips: tuple[int, ...]


def moments(starts_s: np.ndarray, ends_s: np.ndarray, scores: np.ndarray, background: float) -> list[Moment]:
    """All moments of one video, best first. The arrays (n,) are of its clips, ordered by start.

    Of equal scores the earlier clip is the peak.
    """
    free = np.ones(len(scores), bool)
    found = []
    for peak in np.argsort(-scores, kind="stable"):
        if not free[peak]:
            continue
        floor = min(scores[peak], (scores[peak] + background) / 2)
        first = last = int(peak)
        while first > 0 and free[first - 1] and scores[first - 1] >= floor and _touch(ends_s, starts_s, first - 1):
            first -= 1
        while (
            last + 1 < len(scores) and free[last + 1] and scores[last + 1] >= floor and _touch(ends_s, starts_s, last)
        ):
            last += 1
        free[first : last + 1] = False
        span = slice(first, last + 1)
        found.append(
            Moment(
                float(scores[peak]),
                float(starts_s[first]),
                float(ends_s[span].max()),
                int(peak),
                tuple(range(first, last + 1)),
            )
        )
    return found


def _touch(ends_s: np.ndarray, starts_s: np.ndarray, clip: int) -> bool:
    """Whether the clip after `clip` begins before or where `clip` ends."""
    return bool(starts_s[clip + 1] <= ends_s[clip] + _TOUCH_S)
