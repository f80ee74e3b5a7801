"""Opening a container safely, and one pass over its packets without decoding them."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator

import av
from av.stream import Disposition

from vidx.decoders._cut import Flaw, Inspector
from vidx.decoders._runs import ClockRules, Run
from vidx.errors import NotVideo, Unreadable

# Real containers only: playlists, scripts, pictures and whatever names another file or a network address are left out.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,rm,gxf,wtv,nut,ivf"
_PACKETS_PER_SIGN_OF_LIFE = 512
_DISK_BLOCK_BYTES = 16 * 2**20
_MAGIC = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"RIFF"),
    (0, b"FLV"),
    (0, b"0&\xb2u"),
    (0, b"OggS"),
    (0, b"\0\0\1\xba"),
)
STREAMED = ("mpegts", "mpeg")  # containers that were made for broadcast: no index, joined and lost packets
_GAP = 1.5  # usual distances between packets; where the demuxer misses some, more than that is a loss
_SUSPECT_PACKETS = 4  # behind a mark, as far as reordering may carry what it stands for
_VP8_DECODERS = ("vp8", "libvpx")
_VP8_SHOWN = 0x10  # bit of the first byte of a frame (RFC 6386, 9.1)


def open_container(path_bytes: bytes, *, edit_list: bool = True) -> av.container.InputContainer:
    """Open a local file as one of the known containers. Raises NotVideo, Unreadable, or OSError as the disk does."""
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    if not edit_list:
        options["ignore_editlist"] = "1"
    try:
        # "file:" keeps names with a colon from being read as a protocol.
        return av.open("file:" + os.fsdecode(path_bytes), options=options, metadata_errors="replace")
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        with open(path_bytes, "rb") as file:
            head = file.read(16)
        if not head:
            raise NotVideo("empty file") from error
        if any(head[at : at + len(magic)] == magic for at, magic in _MAGIC):
            raise Unreadable("the container can't be read: its index is missing or damaged") from error
        raise NotVideo("not a video container") from error
    except av.error.FFmpegError as error:
        raise_what_is_not_the_content(error, path_bytes, lambda: None)
        raise Unreadable(f"can't be opened: {error.strerror or error}") from error


def raise_what_is_not_the_content(error: av.error.FFmpegError, path_bytes: bytes, alive: Callable[[], None]) -> None:
    """Raise MemoryError where FFmpeg ran out of it, and OSError where the disk refuses; return where neither is so.

    FFmpeg says "Input/output error" of some cut files too, so the disk itself is asked: by reading the file.
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


def announced(path_bytes: bytes) -> tuple[float, int]:
    """What a container says of itself: duration in seconds, and frames of its first real video stream; 0 for unknown.

    Packets are not read. Raises NotVideo, Unreadable, or OSError as the disk does.
    """
    with open_container(path_bytes) as container:
        return max(0.0, (container.duration or 0) / av.time_base), max(0, first_video(container).frames)


def family_of(container: av.container.InputContainer) -> str:
    """FFmpeg's name of a container without its cousins: `mov` for `mov,mp4,m4a,3gp,3g2,mj2`."""
    return container.format.name.split(",")[0]


def packets_of(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of one stream, and an empty one at the end. Raises FFmpegError where the container can't go on."""
    # A stream that the header did not announce makes PyAV 18 fail so behind the last packet.
    with contextlib.suppress(IndexError):
        yield from container.demux(stream)


class Packets:
    """One pass over the packets of a stream; all times in ticks. Raises OSError as the disk does."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        path_bytes: bytes,
        rules: ClockRules,
        alive: Callable[[], None],
    ) -> None:
        self.ticks = array("q")  # when shown packets are presented, in the order of decoding
        self.key_ticks = array("q")  # of key frames; hidden ones included: frames behind them need them
        self.runs: list[Run] = []
        self.count = self.empty = self.without_pts = 0
        self.in_order = True  # whether packets are presented in the order of decoding
        self.broken_at: int | None = None  # the latest tick before a break inside the container
        self.lost_at: int | None = None  # the latest tick before packets that the demuxer misses
        self.incomplete_at: int | None = None  # the tick of a packet whose end is missing
        self.error: str | None = None  # why the container could not be read to its end
        self.flaw: Flaw | None = None
        self.family, self._rules = family_of(container), rules
        self._can_hide = stream.codec_context.name in _VP8_DECODERS
        self._usual_step = 0
        self._corrupt_at: int | None = None  # the tick of the latest packet that the demuxer marked
        self._suspicion = 0  # for so many packets more a gap is its work
        inspector = Inspector(path_bytes, self.family, alive)
        try:
            for packet in packets_of(container, stream):
                self._take(packet, inspector)
                if self.count % _PACKETS_PER_SIGN_OF_LIFE == 0:
                    alive()
            self.flaw = inspector.finish()
            if self.lost_at is None and inspector.frames_passed() > self.count + self.empty and self.runs:
                self.lost_at = self.runs[-1].top_tick
        except av.error.FFmpegError as error:
            if not isinstance(error, MemoryError):  # which a damaged size brings about: no packet is that large
                raise_what_is_not_the_content(error, path_bytes, alive)
            self.error = error.strerror
        finally:
            inspector.close()

    def _take(self, packet: av.Packet, inspector: Inspector) -> None:
        if packet.size == 0:
            self.empty += 1
            return
        self.count += 1
        if packet.pos is not None:
            is_broken = inspector.reach(packet.pos)
            before = self.runs[-1].top_tick if self.runs else packet.pts
            if is_broken and self.broken_at is None:
                self.broken_at = before
            if self.lost_at is None and inspector.frames_passed() > self.count + self.empty:
                self.lost_at = before
        if packet.pts is None:
            self.without_pts += 1
            return
        hidden = packet.is_discard or (self._can_hide and not memoryview(packet)[0] & _VP8_SHOWN)
        if not hidden:
            self._note_losses(packet)
            self._note_run(packet.pts, packet.dts)
            self._show(packet.pts, packet.duration or 0)
        if packet.is_keyframe:
            self.key_ticks.append(packet.pts)

    def _note_losses(self, packet: av.Packet) -> None:
        """Note packets that the demuxer marks as incomplete.

        In streams it marks joints as well, where another part begins with a key frame. A joint with a gap is a loss.
        """
        if self.family not in STREAMED:
            if packet.is_corrupt and self.incomplete_at is None:
                self.incomplete_at = packet.pts
            return
        last_dts = self.runs[-1].last_dts if self.runs else None
        step = packet.dts - last_dts if packet.dts is not None and last_dts is not None else 0
        if self._suspicion:
            self._suspicion -= 1
            is_gap = 0 < _GAP * self._usual_step < step <= self._rules.leap
            if is_gap or (self._suspicion == 0 and not packet.is_keyframe):
                self.lost_at = self._corrupt_at if self.lost_at is None else self.lost_at
            if is_gap or packet.is_keyframe:
                self._suspicion = 0
        elif step > 0:
            self._usual_step = step
        if packet.is_corrupt:
            self._corrupt_at, self._suspicion = packet.pts, _SUSPECT_PACKETS

    def ticks_of(self, number: int) -> slice:
        """Where the ticks of a run lie."""
        is_last = number + 1 == len(self.runs)
        return slice(self.runs[number].ticks_from, None if is_last else self.runs[number + 1].ticks_from)

    def keys_of(self, number: int) -> slice:
        """Where the key ticks of a run lie; those before the first shown frame belong to the first run."""
        is_last = number + 1 == len(self.runs)
        return slice(self.runs[number].keys_from if number else 0, None if is_last else self.runs[number + 1].keys_from)

    def take_times(self, ticks: Iterable[int]) -> None:
        """Use these ticks instead of those of the packets."""
        self.ticks, self.runs = array("q", ticks), [Run(0, 0)]

    def _note_run(self, pts: int, dts: int | None) -> None:
        """Begin a new run where the clock does not go on."""
        self.in_order = self.in_order and (not self.ticks or pts >= self.ticks[-1])
        run = self.runs[-1] if self.runs else None
        step = None if run is None or dts is None or run.last_dts is None else dts - run.last_dts
        if run is None or (step is not None and self._rules.begins_run(step)):
            self.runs.append(Run(len(self.ticks), len(self.key_ticks), dts, dts))
        elif dts is not None:
            run.first_dts = dts if run.first_dts is None else run.first_dts
            run.last_dts = dts

    def _show(self, tick: int, duration: int) -> None:
        run = self.runs[-1]
        run.packets += 1
        self.ticks.append(tick)
        if tick >= run.top_tick:
            run.top_tick, run.top_duration = tick, duration
