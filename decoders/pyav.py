"""Decoding with PyAV (FFmpeg's libraries): packet table, seek, decode forward.

Times are taken from packets and frames only. FFmpeg's seek does not know key frames in MPEG-TS and MPEG-PS and lands
late there, so every seek is judged by the first frame it gives and repeated further back until it is early enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import av
import numpy as np

from vidx.decoders import ShownFrame
from vidx.decoders._facts import facts_of, picture_of
from vidx.decoders._keys import NearestKey, decoded_key
from vidx.decoders._order import in_order, timed_by_count, timed_by_label
from vidx.decoders._packets import (
    family_of,
    first_video,
    open_container,
    packets_of,
    raise_what_is_not_the_content,
)
from vidx.decoders._picture import PyAVPicture
from vidx.decoders._skips import Skips
from vidx.decoders._timeline import NothingShown, PacketTable, Trouble, read_packet_table
from vidx.errors import Unreadable

VERSIONS = {"av": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}

_NEAR_S, _FAR_S = 0.25, 5.0  # from its instant a frame may be taken, in the modes fast and keyframes
_FIRST_STEP_BACK_S = 0.5
_PACKETS_PER_SIGN_OF_LIFE = 16
# Codecs of which every packet shows one frame. Others skip frames, and say nothing.
_FRAME_PER_PACKET = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg2video", "mjpeg", "prores", "ffv1"}

av.logging.set_level(None)


def open_video(
    path_bytes: bytes, *, threads: int = 1, mode: str = "exact", alive: Callable[[], None] = lambda: None
) -> PyAVVideo:
    """Open a file and read its packet table. Raises NotVideo or Unreadable; `alive` is called while work goes on."""
    return PyAVVideo(path_bytes, threads, mode, alive)


class PyAVVideo:
    """See `vidx.decoders.OpenVideo`. A cursor over decoded frames: `_shown`, and `_ahead` the one after it."""

    def __init__(self, path_bytes: bytes, threads: int, mode: str, alive: Callable[[], None]) -> None:
        self._path, self._threads, self.mode, self._alive = path_bytes, threads, mode, alive
        self._edit_list = True
        self.damage: str | None = None
        self.first_bad_s: float | None = None
        self._open()
        try:
            table = self._read_table()
            self.timeline, self._seeks = table.line, table.one_clock
            for trouble in table.troubles:
                self._trouble(trouble.reason, trouble.at_s)
            codec = self._stream.codec_context
            near_s = _NEAR_S if mode in ("fast", "keyframes") else 0.0
            self._close_key, self._far_key = (NearestKey(self.timeline, most_s) for most_s in (near_s, _FAR_S))
            self._early = int(near_s / self.timeline.time_base)
            self.in_parts = self._seeks
            self._counts = family_of(self._container) == "avi" and table.in_order and codec.has_b_frames
            self._skips = Skips("exact" if mode == "exact" else "fast", self.timeline.ticks, codec)
            self._expects_all = codec.codec.canonical_name in _FRAME_PER_PACKET and self._skips.is_known
            self._shown: PyAVPicture | None = None
            self._ahead: PyAVPicture | None = None
            self._key: PyAVPicture | None = None
            self._is_astray = False  # the container stands elsewhere than the cursor
            self._move_to(int(self.timeline.ticks[0]))
            if self._ahead is None:
                raise Unreadable(f"none of its {len(self.timeline.ticks)} frames can be decoded (damaged or encrypted)")
            first = picture_of(self._ahead.frame)
            self.facts = facts_of(self._container, self._stream, self.timeline, first, path_bytes)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def frames_at(self, ticks: Iterable[int]) -> Iterator[tuple[int, ShownFrame]]:
        """See `vidx.decoders.OpenVideo.frames_at`."""
        wanted = list(ticks)
        self._is_astray = self._is_astray or self._skips.is_asked  # the decoder may have left out what is asked now
        self._skips.ask_for(wanted)
        for tick in wanted:
            picture = self._key_near(tick) if self.mode == "keyframes" else None
            if picture is None:
                key = None if self.mode == "exact" else self._close_key.to(tick)
                picture = self._on_screen(tick if key is None else key)
            if picture is not None:
                yield tick, picture

    def _on_screen(self, tick: int) -> PyAVPicture | None:
        """The last frame presented at or before the tick; in other modes than exact one near it.

        That is the first one decoded that is early enough, so that less of what lies behind it is decoded.
        """
        goal = max(tick - self._early, min(tick, self._key_before(tick)))
        self._advance(goal)
        if self._met_damage and self._skips.decode_all_here():
            self._is_astray = True
            self._advance(goal)
        if self._shown is None or self._ahead is None or self.mode == "exact":
            return self._shown if self._shown is not None else self._ahead
        return self._shown if tick - self._shown.tick <= self._ahead.tick - tick else self._ahead

    def _advance(self, tick: int) -> None:
        """Move the cursor so that the tick lies between `_shown` and `_ahead`."""
        self._met_damage = False
        if self._seeking_pays(tick):
            self._move_to(self._key_before(tick))
        while self._ahead is not None and self._ahead.tick <= tick:
            self._shown, self._ahead = self._ahead, next(self._frames, None)

    def _key_near(self, tick: int) -> PyAVPicture | None:
        """The nearest key frame; None where there is none near, or it can't be had alone."""
        key = self._far_key.to(tick) if self._seeks and not self._counts else None
        if key is None:
            return None
        if self._key is not None and self._key.tick == key:
            return self._key
        self._is_astray = True
        try:
            frame = decoded_key(self._container, self._stream, key)
        except av.error.FFmpegError as error:
            raise_what_is_not_the_content(error, self._path, self._alive)
            frame = None
        self._alive()
        self._key = PyAVPicture(frame, key, self._sar) if frame is not None and not frame.is_corrupt else None
        return self._key

    def _seeking_pays(self, tick: int) -> bool:
        """Whether a key frame lies between the cursor and the tick, or the tick lies behind the cursor."""
        if self._is_astray or (self._shown is not None and tick < self._shown.tick):
            return True
        here = self._ahead if self._ahead is not None else self._shown
        return self._seeks and here is not None and self._key_before(tick) > here.tick

    def _key_before(self, tick: int) -> int:
        keys = self.timeline.key_ticks
        at = int(np.searchsorted(keys, tick, side="right")) - 1
        return int(keys[at]) if at >= 0 and self._seeks else int(self.timeline.ticks[0])

    def _move_to(self, key: int) -> None:
        """Put the cursor before the first frame presented at or after `key`.

        Key frames that an edit list hides decode into nothing, so the first visible tick is early enough too.
        """
        first = int(self.timeline.ticks[0])
        wanted = max(key, first)
        step_back, self._is_astray = 0, False
        while True:
            target = key - step_back
            if target <= first or not self._sought(target):
                target = first
                self._restart()
            self._frames = self._decode(wanted)
            self._ahead = next(self._frames, None)
            if target <= first or (self._ahead is not None and self._ahead.tick <= wanted):
                break
            step_back = step_back * 2 or max(1, int(_FIRST_STEP_BACK_S / self.timeline.time_base))
        # Frames before the key frame may lean on pictures that were not decoded (open GOP).
        while self._ahead is not None and self._ahead.tick < wanted:
            self._ahead = next(self._frames, None)
        if self._shown is not None and self._shown.tick >= wanted:
            self._shown = None

    def _sought(self, target: int) -> bool:
        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except av.error.FFmpegError:  # of a damaged index
            return False
        return True

    def _decode(self, wanted: int) -> Iterator[PyAVPicture]:
        """Frames in presentation order from where the container stands; damage from `wanted` on is noted."""
        ticks, before, fields = self.timeline.ticks, None, 0
        self._skips.begin(wanted)
        frames = self._decoded_packets(wanted)
        timed = timed_by_count(frames, ticks, wanted) if self._counts else timed_by_label(frames)
        for place, frame in in_order(timed, ticks):
            tick = int(ticks[place])
            if frame.is_corrupt and tick >= wanted:
                self._damaged("damaged picture data", tick)
            self._note_missing(before, place, fields, wanted)
            before, fields = place, int(frame.interlaced_frame)
            yield PyAVPicture(frame, tick, self._sar)
            if place + 1 == len(ticks):  # what follows has another clock
                return
        self._note_missing(before, len(ticks), fields, wanted)

    def _note_missing(self, before: int | None, place: int, fields: int, wanted: int) -> None:
        """Note frames of the packet table that did not come; the second field of a frame may have a tick of its own."""
        if before is None:
            return
        first = max(before + 1 + fields, int(np.searchsorted(self.timeline.ticks, wanted)))
        missing = self._skips.first_missing(first, place)
        if missing is not None and self._expects_all:
            self._damaged("frames are missing: their data are damaged or lost", int(self.timeline.ticks[missing]))

    def _decoded_packets(self, wanted: int) -> Iterator[av.VideoFrame]:
        """Whatever the decoder makes of each packet; an error costs one packet, not the rest of the file."""
        position, n_packets = wanted, 0
        try:
            for packet in packets_of(self._container, self._stream):
                position = position if packet.pts is None else packet.pts
                n_packets += 1
                if n_packets % _PACKETS_PER_SIGN_OF_LIFE == 0:
                    self._alive()
                if not self._counts:
                    self._skips.tell(self._stream.codec_context, packet)
                try:
                    yield from packet.decode()
                except av.error.EOFError:
                    return
                except av.error.FFmpegError as error:
                    raise_what_is_not_the_content(error, self._path, self._alive)
                    if position >= wanted:
                        self._damaged(f"decoding: {error.strerror}", position)
        except av.error.FFmpegError as error:  # the container itself can't go on
            if not isinstance(error, MemoryError):  # of a damaged size
                raise_what_is_not_the_content(error, self._path, self._alive)
            self._damaged(f"reading: {error.strerror}", position)

    def _damaged(self, what: str, tick: int) -> None:
        """Note damage; the first reason met is kept, and the earliest time, which lies inside the video."""
        self._met_damage, line = True, self.timeline
        at_s = float(line.seconds(min(max(tick, int(line.ticks[0])), line.end_tick)))
        self._trouble(what, at_s)

    def _trouble(self, what: str, at_s: float) -> None:
        self.damage = self.damage or what
        self.first_bad_s = at_s if self.first_bad_s is None else min(at_s, self.first_bad_s)

    def _read_table(self) -> PacketTable:
        """The packet table; that of all frames, where an edit list hides every one."""
        try:
            return read_packet_table(self._container, self._stream, self._path, self._alive)
        except NothingShown:
            if family_of(self._container) != "mov":
                raise
        self._edit_list = False
        self._restart()
        table = read_packet_table(self._container, self._stream, self._path, self._alive)
        hides = Trouble(
            "its edit list hides every frame; it is ignored", float(table.line.seconds(table.line.ticks[0]))
        )
        return replace(table, troubles=[hides, *table.troubles])

    def _open(self) -> None:
        self._container = open_container(self._path, edit_list=self._edit_list)
        try:
            self._stream = first_video(self._container)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = self._threads
        if self.mode != "exact":
            self._stream.codec_context.options = {"skip_loop_filter": "all"}
        self._sar = float(self._stream.sample_aspect_ratio or 1)

    def _restart(self) -> None:
        """Stand at the very first packet, which no seek guarantees in every container."""
        self._container.close()
        self._open()
