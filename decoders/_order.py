"""Which time each decoded frame has. A decoder gives frames in the order they are shown; their labels may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
import numpy as np

_DOUBTS = 3  # frames that must speak against the very first one

Timed = tuple[int | None, av.VideoFrame]


def timed_by_label(frames: Iterable[av.VideoFrame]) -> Iterator[Timed]:
    """Frames with the times they carry."""
    return ((frame.pts, frame) for frame in frames)


def timed_by_count(frames: Iterable[av.VideoFrame], ticks: np.ndarray, start_tick: int) -> Iterator[Timed]:
    """Frames of a container that numbers packets in the order of decoding, though they are shown in another (AVI).

    Each frame takes the tick after that of the frame before; a key frame makes up for frames that were lost.
    """
    index = int(np.searchsorted(ticks, start_tick)) - 1
    for frame in frames:
        index += 1
        if frame.key_frame and frame.pts is not None:
            index = max(index, int(np.searchsorted(ticks, frame.pts)))
        if index < len(ticks):
            yield int(ticks[index]), frame


def in_order(frames: Iterable[Timed], ticks: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames whose time is among `ticks`, with its place there; always ascending.

    Of two frames whose times contradict their order, the one that does not fit the frames around is left out.
    """
    latest, doubts = -1, 0
    held: tuple[int, av.VideoFrame] | None = None
    for tick, frame in frames:
        if tick is None:
            continue
        place = int(np.searchsorted(ticks, tick))
        if place == len(ticks) or ticks[place] != tick or place <= latest:
            continue
        if held is None:
            held = place, frame
        elif place > held[0]:
            yield held
            latest, held, doubts = held[0], (place, frame), 0
        elif place < held[0]:
            doubts += 1
            if latest >= 0 or doubts == _DOUBTS:
                held, doubts = (place, frame), 0
    if held is not None:
        yield held
