"""Decoding with torchcodec, for files that kill PyAV's decoder, and for comparison. It needs FFmpeg's own libraries.

PyAV's demuxer opens the file first and gives times, facts and damage, so nothing that it refuses reaches torchcodec.
From torchcodec come pictures alone, by number, and each with its own time: a picture whose time is not that of the
frame asked for makes the file refused. Containers in which its times or its seeks are known to be wrong are refused.

It reads through a file object, never by name: FFmpeg then opens no other file, whatever the content says.

What can't be decoded it conceals. That shows only in the errors that FFmpeg logs inside it, which are counted here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import resource
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import av
import numpy as np

from vidx.decoders import ShownFrame
from vidx.decoders._foreign import MOST_PX, ForeignVideo
from vidx.decoders._log import Complaints
from vidx.decoders._picture import PyAVPicture
from vidx.errors import NotTrusted, VidxError

_CONTAINERS = {"mov", "matroska", "flv", "asf", "ogg"}  # that it reads right
_FRAMES_PER_SIGN_OF_LIFE = 16
_ADDRESS_BYTES = 8 * 2**30  # that torch and torchcodec may map before any file is opened; with CUDA it is about 4.9 GB
_ERRORS = (RuntimeError, IndexError, ValueError, StopIteration)


def _versions() -> dict[str, str]:
    try:
        return {"torchcodec": version("torchcodec"), "av": av.__version__}
    except PackageNotFoundError:  # listing the choices must do without it
        return {}


VERSIONS = _versions()  # with that of FFmpeg as soon as it is loaded


def check() -> None:
    """Raise VidxError where torchcodec or FFmpeg is missing."""
    _library()


def open_video(
    path_bytes: bytes, *, threads: int = 1, mode: str = "exact", alive: Callable[[], None] = lambda: None
) -> TorchcodecVideo:
    """Open a file and read its packet table; `alive` is called while work goes on. Any mode is decoded exactly.

    One thread decodes, whatever `threads` says: FFmpeg's log is listened to, and what it says from threads of its own
    would have to wait for Python. Raises NotVideo, Unreadable, NotTrusted for what torchcodec may get wrong, and
    VidxError where it or FFmpeg is not installed.
    """
    return TorchcodecVideo(path_bytes, alive)


class TorchcodecVideo(ForeignVideo):
    """See `vidx.decoders.OpenVideo`. `_next` is the number of the frame that needs no seek."""

    def __init__(self, path_bytes: bytes, alive: Callable[[], None]) -> None:
        self._torchcodec, self._complaints = _library()
        super().__init__(path_bytes, "torchcodec", _CONTAINERS, alive)
        self._reader: Any = None
        self._source = _Source(path_bytes, alive)
        try:
            self._open_reader()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._reader = None
        self._source.close()

    def frames_at(self, ticks: Iterable[int]) -> Iterator[tuple[int, ShownFrame]]:
        """See `vidx.decoders.OpenVideo.frames_at`. Raises NotTrusted where torchcodec fails or gives another frame."""
        for tick in ticks:
            number = self._number_at(tick)
            if number != self._next - 1:
                self._go_to(number)
            yield tick, self._latest

    def _open_reader(self) -> None:
        """Raises NotTrusted where torchcodec does not see the frames that there are."""
        facts, shown = self.facts, len(self.timeline.ticks)
        height, width = (facts.width, facts.height) if facts.rotation % 180 else (facts.height, facts.width)
        shrink = min(height, width) / MOST_PX
        transforms = []
        if shrink > 1 and self._keeps_its_size:  # it would stretch other sizes
            size = max(1, round(height / shrink)), max(1, round(width / shrink))
            transforms.append(self._torchcodec.transforms.Resize(size))
        self._reader = self._asked(
            "can't open it",
            lambda: self._torchcodec.decoders.VideoDecoder(
                self._source,
                stream_index=facts.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device="cpu",
                seek_mode="exact",
                transforms=transforms,
            ),
        )
        if len(self._reader) != shown:
            raise NotTrusted(f"torchcodec counts {len(self._reader)} frames where {shown} are shown")
        if round(self._reader.metadata.rotation or 0) % 360 != facts.rotation:
            raise NotTrusted("torchcodec can't be trusted to turn its pictures upright")
        self._next, self._heard = 0, self._complaints.count

    def _go_to(self, number: int) -> None:
        """Decode frame `number`, and some on the way to it. Raises NotTrusted."""
        key, first, stride = self._key_before(number), self._next, _FRAMES_PER_SIGN_OF_LIFE
        if number < first or key > first:
            first = key
            self._step_to(key)
            if key > 0 and self._complaints.count > self._heard:
                # Frames shown before a key frame may lean on pictures that were not decoded (open GOP), which is no
                # damage. So they are decoded once more, with those.
                self._step_to(self._key_before(key - 1))
                self._heard, first, stride = self._complaints.count, self._next, 1
        while self._next <= number:
            self._step_to(min(self._next + stride - 1, number))
            self._note_logged(first)
            first = self._next
        self._note_logged(number)

    def _key_before(self, number: int) -> int:
        """The number of the last key frame up to a frame; where none is, the first frame."""
        line = self.timeline
        at = int(np.searchsorted(line.key_ticks, line.ticks[number], side="right")) - 1
        return int(np.searchsorted(line.ticks, line.key_ticks[at])) if at >= 0 else 0

    def _step_to(self, number: int) -> None:
        self._latest = self._decoded(number)
        self._next = number + 1
        self._alive()

    def _decoded(self, number: int) -> PyAVPicture:
        """Frame `number`. Raises NotTrusted where torchcodec gives none, or another."""
        frame = self._asked(f"fails at frame {number}", lambda: self._reader.get_frame_at(number))
        tick, base = int(self.timeline.ticks[number]), self.timeline.time_base
        if round(frame.pts_seconds / base.numerator * base.denominator) != tick:
            raise NotTrusted(f"torchcodec gives a frame of {frame.pts_seconds:.3f} s for frame {number}")
        return self._as_coded(frame.data.numpy(), number)

    def _asked(self, failure: str, call: Callable[[], Any]) -> Any:
        """What a call of torchcodec returns. Raises NotTrusted, or OSError as the disk does."""
        try:
            return call()
        except _ERRORS as error:
            raise NotTrusted(f"torchcodec {failure}: {_first_line(error)}") from error
        finally:
            if self._source.error is not None:
                raise self._source.error

    def _note_logged(self, number: int) -> None:
        """Note what was logged since frame `number`."""
        if self._complaints.count > self._heard:
            self._heard = self._complaints.count
            self._note_damage(number)


class _Source:
    """The file as torchcodec reads it. Nothing may be raised through FFmpeg: the error is kept, and the file ends."""

    def __init__(self, path_bytes: bytes, alive: Callable[[], None]) -> None:
        self._file, self._alive = open(path_bytes, "rb", buffering=0), alive  # noqa: SIM115
        self.error: BaseException | None = None
        self.close = self._file.close

    def read(self, size: int) -> bytes:
        try:
            self._alive()
            return b"" if self.error else self._file.read(size)
        except BaseException as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # of a place before the start, which damaged files ask for
            return -1


@functools.cache
def _library() -> tuple[ModuleType, Complaints]:
    if not VERSIONS:
        raise VidxError("torchcodec is not installed", hint="`pip install vidx[torchcodec]`, or take the decoder pyav")
    _make_room()
    try:
        library = importlib.import_module("torchcodec")
    except (ImportError, OSError, RuntimeError) as error:
        raise VidxError(
            f"torchcodec can't be loaded: {_first_line(error)}",
            hint="install the version that fits the installed torch, or take the decoder pyav",
        ) from error
    if library.ffmpeg_major_version is None:
        raise VidxError(
            "torchcodec needs FFmpeg's libraries: none of the versions it knows can be loaded",
            hint="install FFmpeg 4 to 9 with its shared libraries (`apt install ffmpeg`), or take the decoder pyav",
        )
    VERSIONS["ffmpeg"] = str(library.ffmpeg_major_version)
    return library, Complaints([ctypes.CDLL(library.core_library_path)])  # in which what it is linked with is found too


def _make_room() -> None:
    """Add what the libraries map to the address space that this process may have: torch ends it where it finds none.

    Raises MemoryError where that is not allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return
    if hard == resource.RLIM_INFINITY or soft + _ADDRESS_BYTES <= hard:
        resource.setrlimit(resource.RLIMIT_AS, (soft + _ADDRESS_BYTES, hard))
    elif soft < _ADDRESS_BYTES:
        raise MemoryError("the libraries of torch and torchcodec don't fit into the address space allowed")


def _first_line(error: BaseException) -> str:
    """torchcodec's messages begin with a place in its source."""
    first = (str(error).strip().splitlines() or ["no more frames"])[0]
    return re.sub(r"^.*\.(cpp|h):\d+, ", "", first)[:100]
