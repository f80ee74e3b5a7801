"""Opening a container safely and reading when its frames are presented, without decoding them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

from vidx.errors import NotVideo, Unreadable
from vidx.schema.records import Timeline

# Real containers only: playlists, scripts, pictures and whatever names another file or a network address are left out.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,rm,gxf,wtv,nut,ivf"
_RESETTABLE_CLOCKS = {"mpegts", "mpeg"}  # containers whose clock may start anew inside a file
_BACK_S = 1.0  # a decode time that falls back by more than this is a new clock
_LEAP_S = 3600.0  # so is a leap forward by more than this; a shorter one is a gap
_PACKETS_PER_SIGN_OF_LIFE = 512
_DISK_BLOCK_BYTES = 16 * 2**20
_MISSING_END_S = 1.0  # a Matroska file that ends this much before its stated duration was cut
_MAGIC = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"RIFF"),
    (0, b"FLV"),
    (0, b"0&\xb2u"),
    (0, b"OggS"),
    (0, b"\0\0\1\xba"),
)


@dataclass(frozen=True)
class Cut:
    """Where and why the usable part of a file ends before the file does."""

    reason: str
    at_s: float


def open_container(path_bytes: bytes) -> av.container.InputContainer:
    """Open a local file as one of the known containers. Raises NotVideo, Unreadable, or OSError as the disk does."""
    try:
        # "file:" keeps names with a colon from being read as a protocol.
        return av.open(
            "file:" + os.fsdecode(path_bytes),
            options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        with open(path_bytes, "rb") as file:
            head = file.read(16)
        if not head:
            raise NotVideo("empty file") from error
        if any(head[at : at + len(magic)] == magic for at, magic in _MAGIC):
            raise Unreadable("the container can't be read: its index is missing or damaged") from error
        raise NotVideo("not a video container") from error
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # the disk's trouble, not the content's
            raise
        raise Unreadable(f"can't be opened: {error.strerror or error}") from error


def raise_what_is_not_the_content(error: av.error.FFmpegError, path_bytes: bytes, alive: Callable[[], None]) -> None:
    """Raise MemoryError where FFmpeg ran out of it, and OSError where the disk refuses; return where neither is so.

    FFmpeg reports "Input/output error" for some cut files too, so the disk itself is asked: by reading the file.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and not isinstance(error, av.error.EOFError):
        with open(path_bytes, "rb", buffering=0) as file:
            while file.read(_DISK_BLOCK_BYTES):
                alive()


def first_video(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not an attached picture. Raises NotVideo, or Unreadable for an unknown codec."""
    for stream in container.streams.video:
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            if stream.codec_context is None:
                raise Unreadable("its video codec is unknown or its header damaged")
            return stream
    raise NotVideo(f"no video stream (found {len(container.streams.audio)} of sound)")


def read_timeline(
    container: av.container.InputContainer, stream: av.VideoStream, alive: Callable[[], None]
) -> tuple[Timeline, Cut | None]:
    """Presentation ticks from the packets, and where the file is cut short if it is. Raises Unreadable."""
    packets = _Packets(container, stream, alive)
    if packets.without_pts:
        packets.ticks = _ticks_by_decoding(container, stream, alive)
    if not packets.ticks:
        raise Unreadable("no frame of its video stream is there to be shown")
    ticks = np.unique(np.asarray(packets.ticks, np.int64))
    time_base = stream.time_base or Fraction(1, av.time_base)
    line = Timeline(
        ticks=ticks,
        key_ticks=np.unique(np.asarray(packets.key_ticks, np.int64)),
        end_tick=int(ticks[-1]) + _last_duration(packets, ticks, stream, time_base),
        time_base=time_base,
        origin_s=_origin_s(container),
    )
    return line, _find_cut(container, stream, packets, line)


def _origin_s(container: av.container.InputContainer) -> float:
    """The container's start: the smallest over its streams, after edit lists.

    FFmpeg rounds it to microseconds; the stream it came from knows it exactly.
    """
    rounded_s = (container.start_time or 0) / av.time_base
    for stream in container.streams:
        if stream.start_time is not None and stream.time_base is not None:
            exact_s = float(stream.start_time * stream.time_base)
            if abs(exact_s - rounded_s) <= 1 / av.time_base:
                return exact_s
    return rounded_s


class _Packets:
    """One pass over the packets of a stream."""

    def __init__(
        self, container: av.container.InputContainer, stream: av.VideoStream, alive: Callable[[], None]
    ) -> None:
        self.ticks: list[int] = []
        self.key_ticks: list[int] = []  # hidden ones included: frames behind them need them
        self.durations: dict[int, int] = {}  # of the latest ticks only
        self.count, self.without_pts, self.clock_reset = 0, 0, False
        resettable = container.format.name in _RESETTABLE_CLOCKS
        ticks_per_s = 1 / (stream.time_base or Fraction(1, av.time_base))
        last_dts = None
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if resettable and packet.dts is not None:
                    if (
                        last_dts is not None
                        and not -_BACK_S * ticks_per_s < packet.dts - last_dts < _LEAP_S * ticks_per_s
                    ):
                        self.clock_reset = True
                        return
                    last_dts = packet.dts
                self._add(packet)
                if self.count % _PACKETS_PER_SIGN_OF_LIFE == 0:
                    alive()
        except av.error.FFmpegError as error:  # the container ends here; what is missing shows in the counts
            raise_what_is_not_the_content(error, os.fsencode(container.name.removeprefix("file:")), alive)

    def _add(self, packet: av.Packet) -> None:
        self.count += 1
        if packet.pts is None:
            self.without_pts += 1
            return
        if packet.is_keyframe:
            self.key_ticks.append(packet.pts)
        if not packet.is_discard:
            self.ticks.append(packet.pts)
            self.durations[packet.pts] = packet.duration or 0
            if len(self.durations) > 64:
                del self.durations[min(self.durations)]


def _ticks_by_decoding(
    container: av.container.InputContainer, stream: av.VideoStream, alive: Callable[[], None]
) -> list[int]:
    """Where packets carry no presentation times, the decoder derives them; nothing is trusted that it can't."""
    container.seek(0)
    ticks: list[int] = []
    for packet in container.demux(stream):
        try:
            ticks += [frame.pts for frame in packet.decode() if frame.pts is not None]
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            continue
        alive()
    return ticks


def _last_duration(packets: _Packets, ticks: np.ndarray, stream: av.VideoStream, time_base: Fraction) -> int:
    """Ticks the last frame stays on screen: as its packet says, else as the one before, else by the average rate."""
    if stated := packets.durations.get(int(ticks[-1]), 0):
        return stated
    if len(ticks) > 1:
        return int(ticks[-1] - ticks[-2])
    return max(1, round(1 / ((stream.average_rate or 25) * time_base)))


def _find_cut(
    container: av.container.InputContainer, stream: av.VideoStream, packets: _Packets, line: Timeline
) -> Cut | None:
    end_s = float(line.seconds(line.end_tick))
    family = container.format.name.split(",")[0]
    if packets.clock_reset:
        return Cut("the clock starts anew here; only the part before is used", end_s)
    if family == "mov" and stream.frames > packets.count:
        return Cut(f"the file is cut: it announces {stream.frames} frames and holds {packets.count}", end_s)
    announced_s = (container.duration or 0) / av.time_base - line.origin_s
    only_video = not container.streams.audio and not container.streams.subtitles  # others may rightly last longer
    if family == "matroska" and only_video and announced_s > end_s + _MISSING_END_S:
        return Cut(f"the file is cut: it announces {announced_s:.1f} s", end_s)
    return None
