"""What the videos table keeps of a container, whichever library decodes it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import av

from vidx.decoders._packets import family_of
from vidx.schema.records import Timeline, Video


@dataclass(frozen=True)
class Picture:
    """A frame as it is coded; `rotation` in degrees counterclockwise brings it upright."""

    pixel_format: str
    width: int
    height: int
    rotation: int


def picture_of(frame: av.VideoFrame) -> Picture:
    return Picture(frame.format.name, frame.width, frame.height, round(frame.rotation / 90) * 90 % 360)


def facts_of(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    line: Timeline,
    first: Picture,
    path_bytes: bytes,
) -> Video:
    """Facts of an open file; `first` is its first frame, which knows what the header may not."""
    sar = stream.sample_aspect_ratio
    return Video(
        video_id="",
        size_bytes=os.stat(path_bytes).st_size,
        container=family_of(container),
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first.pixel_format,
        width=first.width,
        height=first.height,
        rotation=first.rotation,
        sar_num=sar.numerator if sar else 1,
        sar_den=sar.denominator if sar else 1,
        frame_rate=float(stream.average_rate or 0.0),
        n_frames=len(line.ticks),
        duration_s=float(line.seconds(line.end_tick)),
        first_s=float(line.seconds(int(line.ticks[0]))),
        time_origin_s=line.origin_s,
        time_base_num=line.time_base.numerator,
        time_base_den=line.time_base.denominator,
        stream_index=stream.index,
        has_audio=bool(container.streams.audio),
        timecode=stream.metadata.get("timecode") or container.metadata.get("timecode"),
        created_at=container.metadata.get("creation_time"),
    )
