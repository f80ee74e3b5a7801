"""Decoding with decord, for files that kill PyAV's decoder, and for comparison. It numbers frames and knows no times.

PyAV's demuxer opens the file first and gives times, facts and damage, so nothing that it refuses reaches decord. From
decord come pictures alone, and only where frame number i is proved to be the i-th packet in order of presentation:
frames are read in order, because its seeks and skips give wrong ones in many files, and to the very last, so that a
frame left out on the way shows in their count. A file for which that can't hold, or does not, is refused.

What can't be decoded it conceals. That shows only in the errors that FFmpeg logs inside it, which are counted here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from glob import glob
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import av

from vidx.decoders import ShownFrame
from vidx.decoders._foreign import MOST_PX, ForeignVideo
from vidx.decoders._log import Complaints
from vidx.decoders._picture import PyAVPicture
from vidx.errors import NotTrusted, VidxError

# Containers that it reads right, and how they begin: no text does so, which decord might take for a playlist.
_BEGINNINGS = {"mov": b"\0", "matroska": b"\x1aE\xdf\xa3", "flv": b"FLV"}
_NO_FAULT = "0.000000001"  # share of frames that may be replaced by the one before; 0 would mean any


def _versions() -> dict[str, str]:
    try:
        return {"decord": version("decord"), "av": av.__version__}
    except PackageNotFoundError:  # listing the choices must do without it
        return {}


VERSIONS = _versions()


def open_video(
    path_bytes: bytes, *, threads: int = 1, mode: str = "exact", alive: Callable[[], None] = lambda: None
) -> DecordVideo:
    """Open a file and read its packet table; `alive` is called while work goes on. Any mode is decoded exactly.

    Raises NotVideo, Unreadable, NotTrusted for what decord may get wrong, and VidxError where it is not installed.
    """
    return DecordVideo(path_bytes, threads, alive)


class DecordVideo(ForeignVideo):
    """See `vidx.decoders.OpenVideo`. A cursor: `_next` is the number of the frame that decord gives next."""

    def __init__(self, path_bytes: bytes, threads: int, alive: Callable[[], None]) -> None:
        self._decord, self._complaints = _library()
        self._errors = (self._decord.DECORDError, self._decord.DECORDLimitReachedError)
        super().__init__(path_bytes, "decord", _BEGINNINGS, alive)
        self._threads, self._proved = threads, False
        self._reader: Any = None
        self._file = open(path_bytes, "rb")  # noqa: SIM115
        try:
            self._check_trust()
            self._open_reader()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._reader = None
        self._file.close()

    def frames_at(self, ticks: Iterable[int]) -> Iterator[tuple[int, ShownFrame]]:
        """See `vidx.decoders.OpenVideo.frames_at`. Raises NotTrusted where decord fails or its count proves wrong.

        The count shows at the end of the file, so before the last frame is given the rest is read.
        """
        wanted = list(ticks)
        for number, tick in enumerate(wanted, start=1):
            picture = self._picture(self._number_at(tick))
            if number == len(wanted) and not self._proved:
                self._picture(len(self.timeline.ticks) - 1)
            yield tick, picture

    def _check_trust(self) -> None:
        """Raises NotTrusted for what decord may get wrong."""
        if not self._file.read(8).startswith(_BEGINNINGS[self._family]):
            raise NotTrusted(f"decord can't be trusted with a container of this kind ({self._family})")
        if self._n_streams > 1:
            raise NotTrusted("decord can't be trusted to take the right one of its video streams")
        if self._n_packets != (shown := len(self.timeline.ticks)):
            raise NotTrusted(f"decord would count {self._n_packets} frames where {shown} are shown")
        if not self._keeps_its_size:
            raise NotTrusted("decord can't be trusted with pictures whose size may change")

    def _open_reader(self) -> None:
        """Stand before the first frame. Raises NotTrusted."""
        width, height = self.facts.width, self.facts.height
        if self.facts.rotation % 180:
            width, height = height, width
        shrink = max(1.0, min(width, height) / MOST_PX)
        self._width, self._height = max(1, round(width / shrink)), max(1, round(height / shrink))
        try:
            self._reader = self._decord.VideoReader(
                _name_of(self._file.fileno(), self._path),
                width=self._width,
                height=self._height,
                num_threads=self._threads,
                fault_tol=_NO_FAULT,
            )
        except (*self._errors, RuntimeError, AssertionError) as error:
            raise NotTrusted(f"decord can't open it: {_first_line(error)}") from error
        if len(self._reader) != len(self.timeline.ticks):
            raise NotTrusted(f"decord counts {len(self._reader)} frames where {len(self.timeline.ticks)} are shown")
        self._next, self._heard = 0, self._complaints.count

    def _picture(self, number: int) -> PyAVPicture:
        """Frame `number`; those before it are read and dropped. Raises NotTrusted."""
        if number < self._next - 1:
            self._open_reader()
        while self._next <= number:
            try:
                rgb = self._reader.next().asnumpy()
            except (*self._errors, StopIteration) as error:
                raise NotTrusted(f"decord fails at frame {self._next}: {_first_line(error)}") from error
            if self._complaints.count > self._heard:
                self._note_damage(self._next)
                self._heard = self._complaints.count
            self._next += 1
            self._alive()
            self._latest = rgb
        self._proved = self._proved or self._next == len(self.timeline.ticks)
        # Rows of some widths are padded, which decord takes for more colours.
        rows = self._latest.reshape(self._height, -1)[:, : 3 * self._width]
        return self._as_coded(rows.reshape(self._height, self._width, 3), number)


@functools.cache
def _library() -> tuple[ModuleType, Complaints]:
    if not VERSIONS:
        raise VidxError("decord is not installed", hint="`pip install decord`, or take the decoder pyav")
    library = importlib.import_module("decord")
    library.logging.set_level(library.logging.QUIET)
    beside = os.path.join(os.path.dirname(str(library.__file__)), os.pardir, "decord.libs")
    return library, Complaints(ctypes.CDLL(name) for name in glob(os.path.join(beside, "libavutil*")))


def _name_of(descriptor: int, path_bytes: bytes) -> str:
    """A name under which decord finds the open file and no other. Raises NotTrusted."""
    if sys.platform == "linux":
        return f"/proc/self/fd/{descriptor}"  # of names it takes UTF-8 only
    try:
        return os.path.abspath(path_bytes).decode()
    except UnicodeDecodeError as error:
        raise NotTrusted("decord opens no file whose name is not UTF-8") from error


def _first_line(error: BaseException) -> str:
    """decord's messages begin with a place in its source and go on with a trace."""
    first = (str(error).strip().splitlines() or ["no more frames"])[0]
    return re.sub(r"^.*\.cc:\d+: |\[/proc/self/fd/\d+\] ?", "", first)[:100]
