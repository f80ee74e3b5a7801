"""A cut without loss and without work: packets as they are, from the key frame before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from vidx.errors import Unreadable
from vidx.export._cut_source import Source

_OTHER_WAY = "cut it without --cut-copy"
_LATE_SOUND_S = 5.0  # sound may lie so far behind its pictures


def copy_packets(source: Source, out: str) -> tuple[float, float]:
    """Write the cut; its true start and end, player time. Raises Unreadable where that can't be.

    It begins with the last key frame at or before the first frame wanted. It ends with the last packet that is wanted,
    and so may show up to a few frames more, which that packet needs.
    """
    line = source.video.timeline
    place = int(np.searchsorted(line.key_ticks, source.ticks[0], side="right")) - 1
    if place < 0:
        raise Unreadable(f"no key frame comes before it; {_OTHER_WAY}")
    key = int(line.key_ticks[place])
    key_s, stop_s = float(line.seconds(key)), float(line.seconds(source.stop_tick(int(source.ticks[-1]))))
    with (
        source.packets_from(max(key_s, 0.0), "video", "audio") as (streams, packets),
        av.open(out, "w") as container,
    ):
        copies = {stream.index: _copy_of(stream, container) for stream in streams}
        for packet in _wanted(source, packets, streams, key, stop_s):
            offset = round((key_s + line.origin_s) / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = copies[packet.stream_index]
            container.mux(packet)
    return key_s, stop_s


def _copy_of(stream: Any, container: av.container.OutputContainer) -> Any:
    """A stream to hold the packets of another. Raises Unreadable where the container knows no such codec."""
    try:
        return container.add_stream_from_template(stream, opaque=True)  # else an encoder would have to be there
    except ValueError as error:
        raise Unreadable(f"{error}; {_OTHER_WAY}") from error


def _wanted(source: Source, packets: Iterator[av.Packet], streams: list[Any], key: int, stop_s: float) -> Iterator[Any]:
    """Packets from the key frame on, in the order of the file."""
    key_s, last = float(source.video.timeline.seconds(key)), int(source.ticks[-1])
    is_on = is_done = False
    held: list[av.Packet] = []  # wanted only if a later one is
    for packet in _dated(packets):
        if packet.stream_index != streams[0].index:
            if key_s <= source.time_s(packet) < stop_s:
                yield packet
            continue
        if is_done and (len(streams) == 1 or source.time_s(packet) > stop_s + _LATE_SOUND_S):
            return
        is_on = is_on or (packet.is_keyframe and packet.pts == key)
        is_done = is_done or (is_on and packet.dts > last)
        if is_on and not is_done and packet.pts >= key:  # those before lean on frames before the key frame
            held.append(packet)
            if packet.pts <= last:
                yield from held
                held = []
    if not is_on:
        raise Unreadable(f"its key frame can't be found again; {_OTHER_WAY}")


def _dated(packets: Iterator[av.Packet]) -> Iterator[Any]:
    """Packets with a time to decode them. FFmpeg knows none of the first ones in Matroska; it lies before the next."""
    waiting: list[Any] = []
    packet: Any
    for packet in packets:
        if packet.pts is None:
            raise Unreadable(f"its packets don't say when they are due; {_OTHER_WAY}")
        if packet.dts is None:
            waiting.append(packet)
            continue
        early = [other for other in waiting if other.stream_index == packet.stream_index]
        for place, other in enumerate(early):
            other.dts = packet.dts - (len(early) - place) * max(1, packet.duration or 1)
        yield from early
        waiting = [other for other in waiting if other.stream_index != packet.stream_index]
        yield packet
    if waiting:
        raise Unreadable(f"its packets don't say when they are due; {_OTHER_WAY}")
