"""The file that a cut is made from: which frames belong to it, and its packets from some point on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import av
import numpy as np

from vidx.decoders import OpenVideo
from vidx.decoders._packets import first_video, open_container

_LONG_S = 1.0
_STEP_BACK_S = 2.0  # sound may lie as far before the pictures it belongs to


@dataclass(frozen=True)
class Source:
    """An open video and the range of player time that is wanted of it."""

    path: bytes
    video: OpenVideo
    start_s: float
    end_s: float
    threads: int
    alive: Callable[[], None]

    @property
    def ticks(self) -> np.ndarray:
        """Of the frames that are first shown at or after the start and before the end."""
        line = self.video.timeline
        seconds = line.seconds(line.ticks)
        return line.ticks[(seconds >= self.start_s) & (seconds < self.end_s)]

    def stop_tick(self, tick: int) -> int:
        """When the frame that is shown from `tick` on makes way for the next.

        Of a frame that stays for long, only what belongs to the range.
        """
        line = self.video.timeline
        place = int(np.searchsorted(line.ticks, tick, side="right"))
        stop = int(line.ticks[place]) if place < len(line.ticks) else line.end_tick
        wanted = max(tick + 1, int((self.end_s + line.origin_s) / line.time_base))
        return stop if (stop - tick) * line.time_base <= _LONG_S else min(stop, wanted)

    @contextmanager
    def packets_from(self, wanted_s: float, *kinds: str) -> Iterator[tuple[list[Any], Iterator[av.Packet]]]:
        """The streams of the kinds `video` and `audio` that there are, and their packets from before `wanted_s` on.

        A seek may land late, so it is judged by the first packet it gives and repeated further back.
        """
        step_back_s = _STEP_BACK_S
        while True:
            with open_container(self.path) as container:
                streams = [stream for kind in kinds for stream in _first(container, kind)]
                if not streams:
                    yield [], iter(())
                    return
                is_start = wanted_s <= step_back_s or not self._sought(container, streams[0], wanted_s - step_back_s)
                packets = self._living(container, streams)
                head = [] if is_start else self._head(packets, streams[0])
                if is_start or (head and self.time_s(head[-1]) <= wanted_s - _STEP_BACK_S / 2):
                    yield streams, chain(head, packets)
                    return
            step_back_s *= 2

    def time_s(self, packet: Any) -> float:
        """Player time of a packet that has one."""
        return float(packet.pts * packet.time_base) - self.video.timeline.origin_s

    def _sought(self, container: av.container.InputContainer, stream: Any, at_s: float) -> bool:
        try:
            container.seek(int((at_s + self.video.timeline.origin_s) / stream.time_base), stream=stream, backward=True)
        except av.error.FFmpegError:  # of a damaged index
            return False
        return True

    def _living(self, container: av.container.InputContainer, streams: list[Any]) -> Iterator[av.Packet]:
        for packet in container.demux(*streams):
            self.alive()
            if packet.size:
                yield packet

    def _head(self, packets: Iterator[av.Packet], stream: Any) -> list[av.Packet]:
        """Packets up to the first of a stream that has a time; none where there is no such."""
        head = []
        for packet in packets:
            head.append(packet)
            if packet.stream_index == stream.index and packet.pts is not None:
                return head
        return []


def _first(container: av.container.InputContainer, kind: str) -> list[Any]:
    if kind == "video":
        return [first_video(container)]
    return [stream for stream in container.streams.audio if stream.codec_context is not None][:1]
