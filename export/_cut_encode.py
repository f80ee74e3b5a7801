"""A cut whose first and last frame are exactly those asked for: decoded, and encoded again as H.264 and AAC."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from vidx.errors import Unreadable
from vidx.export._cut_sound import Sound
from vidx.export._cut_source import Source

# No B-frames: then times start at 0 without an edit list. 17 is hard to tell from the original.
_X264 = {"crf": "17", "preset": "veryfast", "bf": "0"}
_TURNS = {90: [("transpose", "dir=cclock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "dir=clock")]}


def encode_frames(source: Source, out: str) -> tuple[float, float]:
    """Write the cut; its true start and end, player time. Raises Unreadable where no frame can be decoded."""
    line = source.video.timeline
    frames = _upright_frames(source)
    if (head := next(frames, None)) is None:
        raise Unreadable("none of its frames there can be decoded")
    zero, first = head
    zero_s, stop_s = float(line.seconds(zero)), float(line.seconds(source.stop_tick(int(source.ticks[-1]))))
    with (
        av.open(out, "w", format="mp4", options={"movflags": "faststart"}) as container,
        source.packets_from(zero_s, "audio") as (sounds, packets),
    ):
        timed = _timed(source, zero, chain([(zero, first)], frames))
        tracks = [_encoded(_picture_stream(container, source, first), timed)]
        for sound in (Sound(stream, source, zero_s, stop_s) for stream in sounds):
            tracks.append(_encoded(sound.stream_in(container), sound.frames(packets)))
        for packet in heapq.merge(*tracks, key=_due):
            container.mux(packet)
            source.alive()
    return zero_s, stop_s


def _upright_frames(source: Source) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames that can be decoded, turned upright, of even and all of the same size."""
    layout = size = None
    shown: Any  # the frame itself is no part of `ShownFrame`
    for tick, shown in source.video.frames_at(source.ticks.tolist()):
        if shown.tick != tick:  # the one before again: this one is damaged
            continue
        frame = shown.frame
        if layout != (frame.width, frame.height, frame.format.name):
            layout = (frame.width, frame.height, frame.format.name)
            graph = _graph(source, frame, size)
        graph.vpush(frame)
        upright = graph.vpull()
        size = size or (upright.width, upright.height)
        yield tick, upright


def _graph(source: Source, frame: av.VideoFrame, size: tuple[int, int] | None) -> av.filter.Graph:
    """A chain of filters for frames like this one. Colours are kept for every other pixel only, so sizes are even."""
    graph = av.filter.Graph()
    time_base = source.video.timeline.time_base
    nodes = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base),
        graph.add("crop", "w=trunc(iw/2)*2:h=trunc(ih/2)*2:x=0:y=0"),
        *(graph.add(*turn) for turn in _TURNS.get(source.video.facts.rotation, [])),
        *([graph.add("scale", f"{size[0]}:{size[1]}")] if size else []),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph


def _picture_stream(container: av.container.OutputContainer, source: Source, first: av.VideoFrame) -> Any:
    facts = source.video.facts
    rate = Fraction(facts.frame_rate).limit_denominator(1001) or Fraction(25)
    stream: Any = container.add_stream("libx264", rate=rate, options=_X264)
    context = stream.codec_context
    stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
    sar = Fraction(facts.sar_num, facts.sar_den)
    context.sample_aspect_ratio = 1 / sar if facts.rotation % 180 else sar
    context.time_base = source.video.timeline.time_base
    context.thread_count = source.threads
    context.color_range, context.colorspace = first.color_range, first.colorspace
    context.color_trc, context.color_primaries = first.color_trc, first.color_primaries
    context.flags |= Flags.frame_duration  # else the last frame stays as long as the one before
    if first.interlaced_frame and not facts.rotation:
        context.flags |= Flags.interlaced_dct
    return stream


def _timed(source: Source, zero: int, frames: Iterable[tuple[int, av.VideoFrame]]) -> Iterator[av.VideoFrame]:
    """Frames with times that count from the first."""
    for tick, frame in frames:
        frame.pts, frame.time_base = tick - zero, source.video.timeline.time_base
        frame.duration = source.stop_tick(tick) - tick
        frame.pict_type = PictureType.NONE  # the encoder would take it for an order
        yield frame


def _due(packet: Any) -> Fraction:
    return packet.dts * packet.time_base


def _encoded(stream: Any, frames: Iterable[Any]) -> Iterator[av.Packet]:
    for frame in frames:
        yield from stream.encode(frame)
    yield from stream.encode(None)
