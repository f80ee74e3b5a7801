"""What the formats for editors and players need to know of the files behind an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import quote

import pyarrow as pa

from vidx.schema.records import Hit
from vidx.schema.snapshot import Snapshot

_NTSC = Fraction(1000, 1001)
_SAME_RATE = 2e-4  # relative; 30 and 29.97 are five times as far apart
_SPARE_FRAMES = 1.0  # the last frame's length is the least certain number of a file
_OFF_GRID = 0.25  # of a frame; times in milliseconds are at most 0.06 off at 120 frames a second


@dataclass(frozen=True, kw_only=True)
class TimelineOptions:
    """How hits become a timeline."""

    handles_s: float = 0.0  # more of the video before and after each hit, as far as the file has it
    markers: bool = True  # one at the peak of each hit


@dataclass(frozen=True)
class Media:
    """One content and the files that have it. Times in `*_s` are player time, as in `vidx.schema.records.Video`."""

    paths: Mapping[str, bytes]  # printable to exact
    frame_rate: Fraction | None  # frames per second; None where frames don't come at a constant rate
    n_frames: int
    first_s: float
    duration_s: float  # end of the last frame
    has_audio: bool
    codec: str
    size_bytes: int
    timecode: str | None  # of the first frame, as the file has it

    def path_of(self, hit: Hit) -> bytes:
        """The exact path of a hit."""
        return self.paths.get(hit.path, os.fsencode(hit.path))

    def url_of(self, hit: Hit) -> str:
        """The hit's file as an absolute URL (RFC 8089); every byte but plain letters and the like is escaped."""
        return "file://" + quote(self.path_of(hit))

    def span_s(self, hit: Hit, handles_s: float) -> tuple[float, float]:
        """A hit's start and end with handles, inside the video."""
        start_s = min(max(hit.start_s - handles_s, self.first_s), self.duration_s)
        return start_s, max(min(hit.end_s + handles_s, self.duration_s), start_s)


def media_of(snapshot: Snapshot, video_ids: Iterable[str]) -> dict[str, Media]:
    """What the store knows of these contents, by video_id."""
    snapshot.with_rows("wanted_videos", pa.table({"video_id": pa.array(sorted(set(video_ids)), pa.string())}))
    paths: dict[str, dict[str, bytes]] = {}
    for video_id, path, path_bytes in snapshot.rows("SELECT video_id, path, path_bytes FROM files " + _WANTED):
        paths.setdefault(video_id, {})[path] = path_bytes
    facts = {row[0]: row[1:] for row in snapshot.rows(f"SELECT {_COLUMNS} FROM videos " + _WANTED)}
    rates = {
        video_id: rate_of(average, n_frames, duration_s - first_s)
        for video_id, (average, n_frames, first_s, duration_s, *_) in facts.items()
    }
    uneven = _uneven(snapshot, {video_id: rate for video_id, rate in rates.items() if rate is not None})
    return {
        video_id: Media(paths.get(video_id, {}), None if video_id in uneven else rates[video_id], *row[1:])
        for video_id, row in facts.items()
    }


def rate_of(average: float, n_frames: int, length_s: float) -> Fraction | None:
    """The exact rate behind an average: whole, half, or NTSC's 1000/1001 of a whole number. None where it is no such.

    Nor is it constant where so many frames don't fill the time.
    """
    if average <= 0:
        return None
    whole, half = Fraction(round(average)), Fraction(round(2 * average), 2)
    rates = [rate for rate in (whole, Fraction(round(average / _NTSC)) * _NTSC, half) if rate]
    rate = min(rates, key=lambda rate: abs(rate - average), default=None)
    if rate is None or abs(average / rate - 1) > _SAME_RATE or abs(rate * length_s - n_frames) > _SPARE_FRAMES:
        return None
    return rate


def _uneven(snapshot: Snapshot, rates: Mapping[str, Fraction]) -> set[str]:
    """The videos of which a frame that was indexed does not lie where a constant rate would have it."""
    table = {"video_id": pa.array(rates, pa.string()), "rate": pa.array(map(float, rates.values()), pa.float64())}
    snapshot.with_rows("wanted_rates", pa.table(table))
    return {video_id for (video_id,) in snapshot.rows(_OFF_THE_GRID.format(clips=snapshot.clips_of_all_spaces()))}


_WANTED = "WHERE video_id IN (SELECT video_id FROM wanted_videos)"
_COLUMNS = """video_id, frame_rate, n_frames, first_s, duration_s, has_audio, codec, size_bytes,
    timecode"""
_OFF_THE_GRID = f"""
SELECT video_id FROM (
    SELECT video_id, (unnest(frame_pts_s) - first_s) * rate AS place
    FROM ({{clips}}) JOIN wanted_rates USING (video_id) JOIN videos USING (video_id)
) GROUP BY video_id HAVING max(abs(place - round(place))) > {_OFF_GRID}
"""
