"""Reading a file by its elements: where one begins, and where the next."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

_WINDOW_BYTES = 4096


class ChainBroken(Exception):
    """No element begins here. `another`: because a whole other file does; `inside`: there are more elements behind."""

    def __init__(self, *, another: bool = False, inside: bool = False) -> None:
        super().__init__()
        self.another, self.inside = another, inside


class Bytes:
    """Short reads of a file, most of them close behind the one before; shorter still at its end."""

    def __init__(self, path_bytes: bytes) -> None:
        self._file = open(path_bytes, "rb", buffering=0)  # noqa: SIM115
        self.size = os.fstat(self._file.fileno()).st_size
        self._at, self._window = 0, b""

    def __call__(self, at: int, count: int) -> bytes:
        offset = at - self._at
        if not 0 <= offset <= len(self._window) - count:
            self._file.seek(at)
            self._at, self._window, offset = at, self._file.read(max(count, _WINDOW_BYTES)) or b"", 0
        return self._window[offset : offset + count]

    def number(self, at: int, count: int, order: str) -> int:
        """An unsigned number; 0 behind the end of the file."""
        return int.from_bytes(self(at, count), "big" if order == "big" else "little")

    def close(self) -> None:
        self._file.close()


class Frames:
    """The elements passed that hold a frame, by track; none in containers that don't tell."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.latest_track = -1

    def note(self, track: int) -> None:
        self.counts[track] += 1
        self.latest_track = track


@dataclass(frozen=True)
class Chain:
    """`step` takes the first byte of an element to that of the next, or raises ChainBroken; it notes `frames`."""

    start: int
    step: Callable[[int], int]
    frames: Frames = field(default_factory=Frames)
    stated_end: int | None = None  # where the container says it ends
    coarse: bool = False  # one element holds many packets
