"""Decoding with PyAV (FFmpeg's libraries): packet table, seek, decode forward.

Times are taken from packets and frames only. FFmpeg's seek does not know key frames in MPEG-TS and MPEG-PS and lands
late there, so every seek is judged by the first frame it gives and repeated further back until it is early enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import av
import numpy as np

from vidx.decoders import ShownFrame
from vidx.decoders._packets import first_video, open_container, raise_what_is_not_the_content, read_timeline
from vidx.decoders._picture import PyAVPicture
from vidx.errors import Unreadable
from vidx.schema.records import Video

VERSIONS = {"av": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}

_FIRST_STEP_BACK_S = 0.5
_PACKETS_PER_SIGN_OF_LIFE = 16

av.logging.set_level(None)


def open_video(path_bytes: bytes, *, threads: int = 1, alive: Callable[[], None] = lambda: None) -> PyAVVideo:
    """Open a file and read its packet table. Raises NotVideo or Unreadable; `alive` is called while work goes on."""
    return PyAVVideo(path_bytes, threads, alive)


class PyAVVideo:
    """See `vidx.decoders.OpenVideo`. A cursor over decoded frames: `_shown`, and `_ahead` the one after it."""

    def __init__(self, path_bytes: bytes, threads: int, alive: Callable[[], None]) -> None:
        self._path, self._threads, self._alive = path_bytes, threads, alive
        self.damage: str | None = None
        self.first_bad_s: float | None = None
        self._open()
        try:
            self.timeline, cut = read_timeline(self._container, self._stream, alive)
            if cut:
                self._damaged(cut.reason, cut.at_s)
            self._shown: PyAVPicture | None = None
            self._ahead: PyAVPicture | None = None
            self._move_to(int(self.timeline.ticks[0]))
            if self._ahead is None:
                raise Unreadable(f"none of its {len(self.timeline.ticks)} frames can be decoded (damaged or encrypted)")
            self.facts = self._facts(self._ahead.frame)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def frames_at(self, ticks: Iterable[int]) -> Iterator[tuple[int, ShownFrame]]:
        """See `vidx.decoders.OpenVideo.frames_at`."""
        for tick in ticks:
            if self._seeking_pays(tick):
                self._move_to(self._key_before(tick))
            while self._ahead is not None and self._ahead.tick <= tick:
                self._shown, self._ahead = self._ahead, next(self._frames, None)
            picture = self._shown if self._shown is not None else self._ahead
            if picture is not None:
                yield tick, picture

    def _seeking_pays(self, tick: int) -> bool:
        """Whether a key frame lies between the cursor and the tick, or the tick lies behind the cursor."""
        if self._shown is not None and tick < self._shown.tick:
            return True
        here = self._ahead if self._ahead is not None else self._shown
        return here is not None and self._key_before(tick) > here.tick

    def _key_before(self, tick: int) -> int:
        keys = self.timeline.key_ticks
        at = int(np.searchsorted(keys, tick, side="right")) - 1
        return int(keys[at]) if at >= 0 else int(self.timeline.ticks[0])

    def _move_to(self, key: int) -> None:
        """Put the cursor before the first frame presented at or after `key`.

        Key frames that an edit list hides decode into nothing, so the first visible tick is early enough too.
        """
        wanted = max(key, int(self.timeline.ticks[0]))
        step_back = 0
        while True:
            target = key - step_back
            if target <= self.timeline.ticks[0]:
                self._restart()
            else:
                self._container.seek(target, stream=self._stream, backward=True)
            self._frames = self._decode()
            self._ahead = next(self._frames, None)
            if target <= self.timeline.ticks[0] or (self._ahead is not None and self._ahead.tick <= wanted):
                break
            step_back = step_back * 2 or max(1, int(_FIRST_STEP_BACK_S / self.timeline.time_base))
        # Frames before the key frame may lean on pictures that were not decoded (open GOP).
        while self._ahead is not None and self._ahead.tick < wanted:
            self._ahead = next(self._frames, None)
        if self._shown is not None and self._shown.tick >= wanted:
            self._shown = None

    def _decode(self) -> Iterator[PyAVPicture]:
        """Frames in presentation order from where the container stands; damage is noted and passed over."""
        latest: int | None = None
        for frame in self._decoded_packets():
            if frame.pts is None or frame.pts < self.timeline.ticks[0] or (latest is not None and frame.pts <= latest):
                continue
            if frame.pts > self.timeline.ticks[-1]:  # behind a discontinuity
                return
            latest = frame.pts
            if frame.is_corrupt:
                self._damaged("damaged picture data", self._seconds(latest))
            yield PyAVPicture(frame, latest, self._sar)

    def _decoded_packets(self) -> Iterator[av.VideoFrame]:
        """Whatever the decoder makes of each packet; an error costs one packet, not the rest of the file."""
        packets, n_packets, position = self._container.demux(self._stream), 0, None
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:  # the container itself can't go on
                raise_what_is_not_the_content(error, self._path, self._alive)
                if not isinstance(error, av.error.EOFError):
                    self._damaged(f"reading: {error.strerror}", position)
                return
            position = position if packet.pts is None else self._seconds(packet.pts)
            n_packets += 1
            if n_packets % _PACKETS_PER_SIGN_OF_LIFE == 0:
                self._alive()
            try:
                yield from packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                raise_what_is_not_the_content(error, self._path, self._alive)
                self._damaged(f"decoding: {error.strerror}", position)

    def _damaged(self, what: str, at_s: float | None) -> None:
        """Note damage; the first reason met is kept, and the earliest time."""
        self.damage = self.damage or what
        at_s = 0.0 if at_s is None else at_s
        self.first_bad_s = at_s if self.first_bad_s is None else min(at_s, self.first_bad_s)

    def _seconds(self, tick: int) -> float:
        return float(self.timeline.seconds(tick))

    def _open(self) -> None:
        self._container = open_container(self._path)
        try:
            self._stream = first_video(self._container)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = self._threads
        self._sar = float(self._stream.sample_aspect_ratio or 1)

    def _restart(self) -> None:
        """Stand at the very first packet, which no seek guarantees in every container."""
        self._container.close()
        self._open()

    def _facts(self, first: av.VideoFrame) -> Video:
        container, stream, line = self._container, self._stream, self.timeline
        sar = stream.sample_aspect_ratio
        return Video(
            video_id="",
            size_bytes=os.stat(self._path).st_size,
            container=container.format.name.split(",")[0],
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.format.name,
            width=first.width,
            height=first.height,
            rotation=round(first.rotation / 90) * 90 % 360,
            sar_num=sar.numerator if sar else 1,
            sar_den=sar.denominator if sar else 1,
            frame_rate=float(stream.average_rate or 0.0),
            n_frames=len(line.ticks),
            duration_s=self._seconds(line.end_tick),
            first_s=self._seconds(int(line.ticks[0])),
            time_origin_s=line.origin_s,
            time_base_num=line.time_base.numerator,
            time_base_den=line.time_base.denominator,
            stream_index=stream.index,
            has_audio=bool(container.streams.audio),
            timecode=stream.metadata.get("timecode") or container.metadata.get("timecode"),
            created_at=container.metadata.get("creation_time"),
        )
