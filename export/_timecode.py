"""Timecode as SMPTE ST 12-1 counts it: from frame numbers to HH:MM:SS:FF and back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

_SHAPE = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)[:;](\d\d)")
_DROPPED = {Fraction(30000, 1001): 2, Fraction(60000, 1001): 4}  # frame numbers that a minute begins without
_MOST = 100  # frames a second that two digits can count
_SNAP = Fraction(1, 1000)  # of a frame: less than this past an edge between frames is on it


@dataclass(frozen=True)
class Timecode:
    """A way of counting frames.

    `drop`: at 29.97 and 59.94 frames a second the first numbers of each minute but every tenth are left out, so that
    the count keeps up with the clock.
    """

    rate: Fraction
    drop: bool = False

    def __post_init__(self) -> None:
        if not has_timecode(self.rate) or (self.drop and self.rate not in _DROPPED):
            raise ValueError(f"no such timecode at {rate_text(self.rate)} frames a second")

    @property
    def base(self) -> int:
        """How many frames a second of timecode has."""
        return math.ceil(self.rate)

    @property
    def day(self) -> int:
        """How many frames 24 hours have."""
        return 24 * 3600 * self.base - (24 * 54 * self._dropped if self.drop else 0)

    def text(self, frame: int) -> str:
        """The timecode of a frame number; it starts anew after 24 hours."""
        number = frame % self.day
        if self.drop:
            minute = 60 * self.base - self._dropped
            tens, rest = divmod(number, 10 * minute + self._dropped)
            # Only the first of ten minutes is whole.
            number += self._dropped * (9 * tens + max(0, (rest - self._dropped) // minute))
        seconds, frames = divmod(number, self.base)
        separator = ";" if self.drop else ":"
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{frames:02d}"

    def frame(self, text: str) -> int:
        """The frame number of a timecode. Raises ValueError for one that does not exist."""
        match = _SHAPE.fullmatch(text)
        hours, minutes, seconds, frames = (int(match[place]) for place in (1, 2, 3, 4)) if match else (24, 0, 0, 0)
        is_left_out = self.drop and seconds == 0 and minutes % 10 and frames < self._dropped
        if hours >= 24 or frames >= self.base or is_left_out:
            raise ValueError(f"{text} is no timecode at {rate_text(self.rate)} frames a second")
        whole_minutes = 60 * hours + minutes
        left_out = self._dropped * (whole_minutes - whole_minutes // 10) if self.drop else 0
        return (60 * whole_minutes + seconds) * self.base + frames - left_out

    @property
    def _dropped(self) -> int:
        return _DROPPED[self.rate]


def has_timecode(rate: Fraction) -> bool:
    """Whether frames at that rate can be counted: a whole number a second, or 1000/1001 of one, up to 100."""
    base = math.ceil(rate)
    return rate in (base, Fraction(base * 1000, 1001)) and base <= _MOST


def start_of(timecode: str | None, rate: Fraction) -> tuple[Timecode, int]:
    """How a file counts, and the number of its first frame; from zero where its timecode is none at that rate."""
    counting = Timecode(rate, drop=timecode is not None and ";" in timecode and rate in _DROPPED)
    try:
        return counting, 0 if timecode is None else counting.frame(timecode)
    except ValueError:
        return counting, 0


def frames_of(start_s: float, end_s: float, rate: Fraction, n_frames: int) -> tuple[int, int]:
    """The frames on screen from start to end, seconds from the first frame: in, and out, which is not among them.

    The range covers the whole time and has at least one frame; it stays among the `n_frames` there are.
    """
    first = math.floor(Fraction(start_s) * rate + _SNAP)
    stop = math.ceil(Fraction(end_s) * rate - _SNAP)
    first = min(max(first, 0), max(n_frames - 1, 0))
    return first, max(min(stop, n_frames), first + 1)


def rate_text(rate: Fraction) -> str:
    """A rate as people write it: 25, 29.97, 23.976."""
    return f"{round(float(rate), 3):g}"
