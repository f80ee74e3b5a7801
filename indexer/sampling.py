"""Which frames of a video a model looks at, as each published code base chooses them.

Of a video of `n` frames; indices count from 0. Every function returns int64 and raises ValueError where there is no
frame, or none is asked for. What is floored is computed in whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidx.schema.records import PlannedClip, Timeline, Video

_DENSE_SPAN = 128  # frames that a dense clip of Text4Vis looks over
_STRIDE = 4  # of the clips of three-dimensional models
_TOLERANCE_S = 1e-6  # a frame due at the very instant asked for counts as shown
_TOLERANCE = 1e-6  # of a frame


def segment_starts(n: int, frames: int) -> np.ndarray:
    """floor(k n / T), shape (T,): Text4Vis in validation and in tests of one clip (datasets/video.py)."""
    _require(n, frames)
    return np.arange(frames) * n // frames


def segment_centres(n: int, frames: int) -> np.ndarray:
    """floor(k n / T + n / 2T), shape (T,): X-CLIP with one view, MMAction2's two-dimensional models in tests."""
    _require(n, frames)
    return (2 * np.arange(frames) + 1) * n // (2 * frames)


def segment_middles(n: int, frames: int) -> np.ndarray:
    """floor(k n / T + (n / T - 1) / 2), shape (T,): ActionCLIP in validation (datasets/datasets.py).

    The middle frame of each segment, mostly one before `segment_centres`. For no more frames than asked for,
    `segment_starts`; of a single segment the frame n // 2.
    """
    _require(n, frames)
    if frames == 1:
        return segment_centres(n, 1)
    if n <= frames:
        return segment_starts(n, frames)
    return ((2 * np.arange(frames) + 1) * n - frames) // (2 * frames)


def shifted_clips(n: int, frames: int, clips: int) -> np.ndarray:
    """Clips whose starts lie evenly in the first segment, shape (C, T): Text4Vis in tests (datasets/video.py).

    start_c is C points evenly from 0 to n / T - 1, floored; the frames are trunc(start_c + k n / T) mod n. Of a video
    shorter than T frames a start may be -1, which is the last frame.
    """
    _require(n, frames, clips)
    starts = np.arange(clips) * (n - frames) // (frames * max(1, clips - 1))
    over = starts[:, None] * frames + np.arange(frames) * n  # of T
    return np.sign(over) * (abs(over) // frames) % n


def dense_clips(n: int, frames: int, clips: int) -> np.ndarray:
    """Clips of 128 frames, evenly over the video, shape (C, T): Text4Vis's dense option (datasets/video.py).

    start_c = c floor(max(0, n - 128) / (C - 1)); the frames are (start_c + k (128 // T)) mod n. The original has no
    start for a single clip; 0 is taken.
    """
    _require(n, frames, clips)
    starts = np.arange(clips) * (max(0, n - _DENSE_SPAN) // max(1, clips - 1))
    return (starts[:, None] + np.arange(frames) * (_DENSE_SPAN // frames)) % n


def strided_clips(n: int, frames: int, clips: int, stride: int = _STRIDE) -> np.ndarray:
    """Clips of frames `stride` apart, evenly over the video, shape (C, T): MMAction2's 3D models in tests (VideoMAE).

    start_c is C points evenly from 0 to n - span, rounded half to even, or the middle for a single clip; frames beyond
    the end count from the start again (mmaction/datasets/transforms/loading.py, SampleFrames).
    """
    _require(n, frames, clips, stride)
    last = max(0, n - (frames - 1) * stride - 1)
    starts = np.round(np.arange(clips) * (last / (clips - 1))) if clips > 1 else np.array([last // 2])
    return (starts.astype(np.int64)[:, None] + np.arange(frames) * stride) % n


def random_in_segments(n: int, frames: int, generator: np.random.Generator) -> np.ndarray:
    """A random frame of each of T equal segments, shape (T,), ascending: Text4Vis and ActionCLIP in training.

    For no more frames than asked for: all of them, and random ones a second time.
    """
    _require(n, frames)
    if n <= frames:
        return np.sort(np.concatenate([np.arange(n), generator.integers(n, size=frames - n)]))
    ends = np.arange(frames + 1) * n // frames
    return generator.integers(ends[:-1], ends[1:])


def random_in_intervals(n: int, frames: int, generator: np.random.Generator) -> np.ndarray:
    """A random frame of each of T intervals of n // T frames, shape (T,): X-CLIP and MMAction2's 2D models in training.

    The n mod T last frames are never chosen. Of fewer than T frames: k n / T, rounded half to even, mod n. Each of
    X-CLIP's four test clips is a draw of this, too (datasets/pipeline.py, SampleFrames).
    """
    _require(n, frames)
    interval = n // frames
    if interval == 0:
        return np.round(np.arange(frames) * (n / frames)).astype(np.int64) % n
    return np.arange(frames) * interval + generator.integers(interval, size=frames)


def random_strided(n: int, frames: int, generator: np.random.Generator, stride: int = _STRIDE) -> np.ndarray:
    """Frames `stride` apart from a random start, shape (T,), counted from 0 again at the end: MMAction2's 3D training.

    The start leaves room for T x stride frames, where there are so many (SampleFrames, clip_len T, one clip).
    """
    _require(n, frames, 1, stride)
    start = generator.integers(max(1, n - frames * stride + 1))
    return (start + np.arange(frames) * stride) % n


def interleaved_clips(n: int, frames: int, clips: int) -> np.ndarray:
    """The C x T frames of `segment_starts` dealt out in turn, shape (C, T): each clip spans the whole video."""
    return segment_starts(n, frames * clips).reshape(frames, clips).T


def _drawn(n: int, frames: int, clips: int) -> np.ndarray:
    """C draws of X-CLIP's training sampler, shape (C, T), always the same for a number of frames.

    Its authors' four test clips are such draws, of a random state that they did not publish.
    """
    generator = np.random.default_rng(n)
    return np.stack([random_in_intervals(n, frames, generator) for _ in range(clips)])


_OF_ONE: dict[str, Callable[[int, int], np.ndarray]] = {
    "starts": segment_starts,
    "centres": segment_centres,
    "middles": segment_middles,
}
_OF_SEVERAL: dict[str, Callable[[int, int, int], np.ndarray]] = {
    "shifted": shifted_clips,
    "dense": dense_clips,
    "strided": strided_clips,
    "interleaved": interleaved_clips,
    "drawn": _drawn,
}
RULES = (*_OF_ONE, *_OF_SEVERAL)


@dataclass(frozen=True)
class Sampling:
    """One of RULES and what it is called with.

    `frames_per_s`: frames count at this rate, as those of data sets that were extracted so; None: as they are shown.
    """

    rule: str
    frames: int
    clips: int = 1
    frames_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES or min(self.frames, self.clips) < 1 or (self.rule in _OF_ONE and self.clips > 1):
            raise ValueError(f"can't sample {self.clips} clips of {self.frames} frames by {self.rule}")

    def indices(self, video: Video) -> np.ndarray:
        """int64 (clips, frames)."""
        n = self._count(video)
        if self.rule in _OF_ONE:
            return _OF_ONE[self.rule](n, self.frames)[None]
        return _OF_SEVERAL[self.rule](n, self.frames, self.clips)

    def indices_around(self, video: Video, at_s: float) -> np.ndarray:
        """int64 (1, frames): a strided clip around an instant in player time, moved inside the video.

        Around the middle of a video it is the clip that `indices` has.
        """
        if self.rule != "strided":
            raise ValueError(f"{self.rule} takes the whole video, not a part around an instant")
        n = self._count(video)
        span = (self.frames - 1) * _STRIDE + 1
        centre = n * (at_s - video.first_s) / (video.duration_s - video.first_s)
        start = min(max(0, int(np.floor(centre - span / 2 + _TOLERANCE))), max(0, n - span))
        return (start + np.arange(self.frames) * _STRIDE)[None] % n

    def _count(self, video: Video) -> int:
        if self.frames_per_s is None:
            return video.n_frames
        return max(1, round((video.duration_s - video.first_s) * self.frames_per_s))

    def planned(self, indices: np.ndarray, video: Video, line: Timeline) -> PlannedClip:
        """A clip of all frames that occur in `indices`, each index once, in their order."""
        distinct = np.unique(indices)
        if self.frames_per_s is None:
            ticks = line.ticks[distinct]
        else:
            wanted = line.seconds(line.ticks[0]) + distinct / self.frames_per_s
            at = np.searchsorted(line.seconds(line.ticks), wanted + _TOLERANCE_S, side="right") - 1
            ticks = line.ticks[np.maximum(at, 0)]
        return PlannedClip(video.first_s, video.duration_s, tuple(int(tick) for tick in ticks))


def _require(n: int, frames: int, clips: int = 1, stride: int = 1) -> None:
    if min(n, frames, clips, stride) < 1:
        raise ValueError(f"can't take {clips} x {frames} frames, {stride} apart, of {n}")
