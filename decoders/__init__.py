"""Decoders, one file each. A decoder module has `open_video(path_bytes, mode=...) -> OpenVideo` and `VERSIONS`.

It may have `check()`, which raises VidxError where it can't work here; that is called once, before any file is touched.

A decoder runs in a child process that may be killed at any instant, and is handed files that want to break it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from vidx.schema.records import Preprocess, Timeline, Video

# The built-in ones and the library each needs. A file that kills a process of one, or that one may get wrong, is tried
# once with the next.
FALLBACKS = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}
MODES = ("exact", "fast", "keyframes")  # which frames are decoded, the most exact first


class ShownFrame(Protocol):
    """One decoded frame; `tick` is its own presentation time in stream ticks."""

    tick: int

    def pixels(self, preprocess: Preprocess) -> np.ndarray:
        """The frame as an encoder wants it: uint8 (crop_px, crop_px, 3), RGB, upright."""

    def thumbnail(self) -> bytes:
        """A JPEG of the whole upright picture, at most 4 kB."""


class OpenVideo(Protocol):
    """An open file whose first real video stream is used (cover pictures are not video)."""

    facts: Video  # video_id is empty: the caller knows it
    mode: str  # exact | fast | keyframes | skim: what was asked for, or exact where this decoder knows no other
    timeline: Timeline
    in_parts: bool  # parts of it can be had without decoding what is before or behind them
    first_bad_s: float | None  # player time of the first damage met so far
    damage: str | None  # and what it was

    def frames_at(self, ticks: Iterable[int]) -> Iterator[tuple[int, ShownFrame]]:
        """For each tick of an ascending series: the tick and the frame on screen then.

        That is the last frame presented at or before it. Ticks before the first readable frame get that frame; ticks
        that nothing readable precedes or follows are left out. In other modes than `exact` it is a frame near the tick,
        which may come before or after it; `skim`, for who looks at all frames in turn, jumps over none it decodes.
        """

    def close(self) -> None: ...


def announced(path_bytes: bytes) -> tuple[float, int]:
    """What a container says of itself, read without its packets: duration in seconds and frames, 0 for unknown.

    Of the first real video stream. Raises NotVideo, Unreadable or OSError.
    """
    from vidx.decoders import _packets  # which imports av: listing the choices must not

    return _packets.announced(path_bytes)


def fit(rgb: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """An upright picture, uint8 (h, w, 3), as an encoder wants it: uint8 (crop_px, crop_px, 3)."""
    from vidx import pixels  # which imports PIL: listing the choices must not

    return pixels.fit(rgb, preprocess)
