"""Which windows of a video become clips, and which frames represent each. Pure: times in, times out."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from vidx.errors import Unreadable
from vidx.schema.records import PlannedClip, Timeline

_TOLERANCE_S = 1e-6  # a frame due at the very instant asked for counts as shown


@dataclass(frozen=True)
class Windows:
    """Windows of `clip_s` every `stride_s`, T `frames` each; or shots of at most `clip_s`."""

    clip_s: float
    stride_s: float
    frames: int
    segment: str = "windows"  # | shots
    skip_still: bool = False  # see `vidx.indexer.still`; part of the plan, as it decides what vectors stand for

    def to_json(self) -> str:
        """The plan as the indexed table records it."""
        names = ["segment", "clip_s", *(["stride_s"] if self.segment == "windows" else []), "frames"]
        plan: dict[str, object] = {name: getattr(self, name) for name in names}
        return json.dumps({**plan, "skip_still": True} if self.skip_still else plan)


def plan(line: Timeline, windows: Windows) -> list[PlannedClip]:
    """Cut a video into clips, counting from its first frame.

    The last window is kept if it has at least half a window, else joined to the one before; a shorter video is one
    clip; windows in which no frame starts are not made, so that work follows frames and not seconds. Frames are those
    on screen at the centres of T equal segments; repeats are allowed.
    """
    times_s = line.seconds(line.ticks)
    first_s, end_s = float(times_s[0]), float(line.seconds(line.end_tick))
    return [
        PlannedClip(start_s, stop_s, representatives(line.ticks, times_s, start_s, stop_s, windows.frames))
        for start_s, stop_s in _spans(times_s - first_s, end_s - first_s, windows, first_s)
    ]


def window_at(line: Timeline, at_s: float | None, clip_s: float, frames: int) -> PlannedClip:
    """The window of `clip_s` around an instant in player time, moved inside the video; the whole video for None.

    Raises Unreadable where the video does not last until `at_s`.
    """
    times_s = line.seconds(line.ticks)
    first_s, end_s = float(times_s[0]), float(line.seconds(line.end_tick))
    if at_s is None:
        start_s, stop_s = first_s, end_s
    elif at_s > end_s:
        raise Unreadable(f"it ends at {end_s:.1f} s, before {at_s:g} s")
    else:
        start_s = max(first_s, min(at_s - clip_s / 2, end_s - clip_s))
        stop_s = min(start_s + clip_s, end_s)
    return PlannedClip(start_s, stop_s, representatives(line.ticks, times_s, start_s, stop_s, frames))


def _spans(since_s: np.ndarray, length_s: float, windows: Windows, first_s: float) -> list[tuple[float, float]]:
    """Windows that hold at least one frame start, as (start, end) in player time."""
    clip_s, stride_s = windows.clip_s, windows.stride_s
    last = max(0, int(np.ceil((length_s - clip_s) / stride_s - _TOLERANCE_S)))  # the first window to reach the end
    newest = np.minimum(np.floor((since_s + _TOLERANCE_S) / stride_s).astype(np.int64), last)
    oldest = np.maximum(np.floor((since_s + _TOLERANCE_S - clip_s) / stride_s).astype(np.int64) + 1, 0)
    overlap = min(int(np.ceil(clip_s / stride_s)), last + 1)
    numbers = newest - np.arange(overlap)[:, None]  # all windows each frame may start in
    held = np.unique(numbers[numbers >= oldest])
    spans = [(int(i) * stride_s, min(int(i) * stride_s + clip_s, length_s)) for i in held]
    joins = stride_s <= clip_s and len(held) > 1 and held[-1] - held[-2] == 1
    if joins and spans[-1][1] - spans[-1][0] < clip_s / 2 - _TOLERANCE_S:
        spans[-2:] = [(spans[-2][0], length_s)]
    return [(first_s + start, first_s + stop) for start, stop in spans]


def representatives(
    ticks: np.ndarray, times_s: np.ndarray, start_s: float, stop_s: float, frames: int
) -> tuple[int, ...]:
    """Ticks of the frames on screen at the centres of `frames` equal segments of a clip."""
    centres = start_s + (np.arange(frames) + 0.5) * (stop_s - start_s) / frames
    at = np.searchsorted(times_s, centres + _TOLERANCE_S, side="right") - 1
    return tuple(int(tick) for tick in ticks[np.maximum(at, 0)])
