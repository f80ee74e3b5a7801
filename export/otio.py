"""OpenTimelineIO (https://opentimeline.io): a timeline of the hits, one after another, each at its file's own rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidx.errors import InputError
from vidx.export._media import Media, TimelineOptions
from vidx.export._timecode import Timecode, frames_of, has_timecode, start_of
from vidx.schema.records import Answer, Hit

if TYPE_CHECKING:
    from opentimelineio.opentime import TimeRange
    from opentimelineio.schema import Clip

_MILLISECONDS = Fraction(1000)  # what counts where frames don't come at a constant rate
_RECORD_START = "01:00:00:00"


def to_timeline(answer: Answer, media: Mapping[str, Media], options: TimelineOptions) -> bytes:
    """The timeline as JSON. Raises InputError where opentimelineio is not installed."""
    try:
        from opentimelineio import opentime, schema
    except ImportError as error:
        raise InputError("--format otio needs opentimelineio", hint="pip install 'vidx[edit]'") from error
    timeline = schema.Timeline(name=answer.query, metadata=_as_metadata(query=answer.query, space=answer.space))
    pictures = schema.Track(name="V1", kind=schema.TrackKind.Video)
    sound = schema.Track(name="A1", kind=schema.TrackKind.Audio)
    for hit in answer.hits:
        facts = media[hit.video_id]
        clip = _clip(answer, hit, facts, options)
        pictures.append(clip)
        if facts.has_audio:
            heard = clip.deepcopy()
            heard.markers.clear()
            sound.append(heard)
        else:
            sound.append(schema.Gap(source_range=opentime.TimeRange(duration=clip.source_range.duration)))
    timeline.tracks.append(pictures)
    if any(media[hit.video_id].has_audio for hit in answer.hits):
        timeline.tracks.append(sound)
    if answer.hits:
        rate, _ = _counting(media[answer.hits[0].video_id])
        hour = Timecode(rate).frame(_RECORD_START) if has_timecode(rate) else 3600 * rate
        timeline.global_start_time = opentime.RationalTime(float(hour), float(rate))
    return timeline.to_json_string(indent=2).encode()


def _clip(answer: Answer, hit: Hit, facts: Media, options: TimelineOptions) -> Clip:
    from opentimelineio import schema

    rate, start = _counting(facts)
    n_units = facts.n_frames if facts.frame_rate else round((facts.duration_s - facts.first_s) * _MILLISECONDS)
    begin_s, end_s = facts.span_s(hit, options.handles_s)
    first, stop = frames_of(begin_s - facts.first_s, end_s - facts.first_s, rate, n_units)
    reference = schema.ExternalReference(
        target_url=facts.url_of(hit),
        available_range=_range(start, start + n_units, rate),
        metadata=_as_metadata(timecode=facts.timecode, variable_frame_rate=facts.frame_rate is None),
    )
    reference.name = hit.path.rsplit("/", 1)[-1]
    details = {name: value for name, value in asdict(hit).items() if name not in ("path", "paths", "online")}
    clip = schema.Clip(
        name=reference.name,
        media_reference=reference,
        source_range=_range(start + first, start + stop, rate),
        metadata=_as_metadata(**details),
    )
    if options.markers:
        peak, _ = frames_of(hit.peak_s - facts.first_s, hit.peak_s - facts.first_s, rate, n_units)
        at = start + min(max(peak, first), stop - 1)
        marker = schema.Marker(
            name=answer.query,
            marked_range=_range(at, at + 1, rate),
            color=schema.MarkerColor.RED,
            metadata=_as_metadata(query=answer.query, score=hit.score, rank=hit.rank),
        )
        clip.markers.append(marker)
    return clip


def _counting(facts: Media) -> tuple[Fraction, int]:
    """What a file's times are counted in, units a second, and the number of the first."""
    if facts.frame_rate is None:
        return _MILLISECONDS, 0
    if not has_timecode(facts.frame_rate):
        return facts.frame_rate, 0
    return facts.frame_rate, start_of(facts.timecode, facts.frame_rate)[1]


def _range(first: int, stop: int, rate: Fraction) -> TimeRange:
    from opentimelineio.opentime import RationalTime, TimeRange

    return TimeRange(RationalTime(first, float(rate)), RationalTime(stop - first, float(rate)))


def _as_metadata(**facts: Any) -> dict[str, Any]:
    return {"vidx": facts}
