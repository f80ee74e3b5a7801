"""The small frozen records that pass between stages. Times in `*_s` are player time (docs/explanation/time.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np


def printable(path_bytes: bytes) -> str:
    """The text shown for a path: itself where it is UTF-8, with \\xNN escapes where it is not."""
    return path_bytes.decode("utf-8", "backslashreplace")


def can_be_shown(text: str) -> bool:
    """Whether a text is of characters for people alone; joiners, as in Persian and in emoji, are."""
    return text.replace("\u200c", "").replace("\u200d", "").isprintable()


@dataclass(frozen=True)
class FoundFile:
    """One regular file met by the walk. `path_bytes` is absolute and the key of the files table."""

    root: str
    path_bytes: bytes
    size_bytes: int
    mtime_ns: int
    device: int

    @property
    def path(self) -> str:
        return printable(self.path_bytes)


@dataclass(frozen=True)
class Preprocess:
    """How a decoder brings a frame to an encoder's input: upright, square pixels, resized, centre crop, RGB uint8.

    The source is shrunk by the colour converter to at most `shrink_to` times the target first (0: never), then by the
    named filter: `bicubic` or `bilinear` by PIL, with torchvision's rounding, or `opencv`, bilinear without
    antialiasing, with mmcv's; `squash-` before the name makes the whole picture square (see `vidx.pixels`). With three
    `crops`, which evaluations take, a frame becomes (3, crop_px, crop_px, 3).
    """

    short_side_px: int
    crop_px: int
    filter: str = "bicubic"
    shrink_to: int = 2
    crops: int = 1


@dataclass(frozen=True)
class Video:
    """Container facts of one content; the columns of the videos table."""

    video_id: str
    size_bytes: int
    container: str
    codec: str
    pixel_format: str
    width: int  # as coded, before rotation
    height: int
    rotation: int  # degrees counterclockwise that bring the coded picture upright
    sar_num: int  # sample (pixel) aspect ratio, 1:1 where the file says nothing
    sar_den: int
    frame_rate: float  # average, for display; never used for times
    n_frames: int
    duration_s: float  # end of the last frame
    first_s: float
    time_origin_s: float
    time_base_num: int
    time_base_den: int
    stream_index: int
    has_audio: bool
    timecode: str | None
    created_at: str | None  # as the container has it, ISO 8601
    announced_s: float | None = None  # duration and number of frames as the header has them, of files whose
    announced_frames: int | None = None  # fingerprint is a sample; 0 where the header says nothing


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video stream is presented, read from packets without decoding.

    `ticks` int64 (n,), sorted, unique; `key_ticks` the key frames among them; a tick t is shown at
    t * time_base - origin_s.
    """

    ticks: np.ndarray
    key_ticks: np.ndarray
    end_tick: int
    time_base: Fraction
    origin_s: float

    def seconds(self, ticks: np.ndarray | int) -> np.ndarray:
        """Player time of ticks, float64 seconds."""
        return np.asarray(ticks, np.float64) * self.time_base.numerator / self.time_base.denominator - self.origin_s


@dataclass(frozen=True)
class PlannedClip:
    """A window of a video and the presentation ticks of the frames that represent it (ascending, repeats allowed)."""

    start_s: float
    end_s: float
    ticks: tuple[int, ...]


@dataclass(frozen=True)
class DecodedClip:
    """A planned clip with its pixels: uint8 (T, height, width, 3), RGB."""

    start_s: float
    end_s: float
    frame_pts: tuple[int, ...]
    frame_pts_s: tuple[float, ...]
    pixels: np.ndarray
    thumbnail: bytes | None  # JPEG of the middle frame
    thumbnail_pts: int


@dataclass(frozen=True)
class Outcome:
    """How one attempt at one content ended: ok | partial | failed | not_video.

    Or `unreadable`, which says something of the file and nothing of its content, and is not held against that.
    """

    state: str
    reason: str | None = None
    first_bad_s: float | None = None
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries that decoded it


@dataclass(frozen=True)
class Trouble:
    """A recorded file that can't be used, or only in part."""

    path: str
    state: str  # failed | partial
    reason: str
    first_bad_s: float | None  # player time of the first damage; None where the file could not even be read


@dataclass(frozen=True)
class Hit:
    """One answer of a search; the fields and their order are those of every export format."""

    rank: int
    score: float  # cosine of the best clip
    calibrated: float | None  # standard deviations above the mean of all clips for this query
    video_id: str
    path: str
    paths: list[str]
    online: bool
    start_s: float
    end_s: float
    peak_s: float  # middle of the best clip
    clip_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What a search found and how; what every export format writes."""

    store: str
    query: str
    space: str
    load_ms: float  # encoder loaded and query encoded
    took_ms: float  # the rest: store opened, filter resolved, hits found
    total: int | None  # how many hits there are, where a filter leaves fewer than were asked for
    hits: list[Hit]
    thumbnails: list[bytes | None] = field(default_factory=list)  # JPEG of each hit's best clip, if asked for
    notes: list[str] = field(default_factory=list)  # lines on what could not be done as it was asked for
