"""CMX 3600 edit decision lists: one event a hit, in the order of the hits, one after another from 01:00:00:00.

docs/explanation/exports.md has the rules for rates, timecodes and reels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from fractions import Fraction

from vidx.errors import InputError
from vidx.export import shown
from vidx.export._media import Media, TimelineOptions
from vidx.export._timecode import Timecode, frames_of, has_timecode, rate_text, start_of
from vidx.schema.records import Answer, Hit

_MOST_EVENTS = 999  # three digits
_REEL = 8  # characters, of A to Z and 0 to 9
_RESERVED = {"AX", "BL", "BLACK", "BARS"}  # reels that stand for no source
_RECORD_START = "01:00:00:00"
_OTHER_WAY = "--format otio knows no such limit"


def to_timeline(answer: Answer, media: Mapping[str, Media], options: TimelineOptions) -> bytes:
    """The list in UTF-8. Raises InputError for hits of several or variable frame rates, and for more than 999."""
    if len(answer.hits) > _MOST_EVENTS:
        raise InputError(f"an EDL has at most {_MOST_EVENTS} events, not {len(answer.hits)}", hint=_OTHER_WAY)
    rate = _one_rate(answer.hits, media)
    starts = {hit.video_id: start_of(media[hit.video_id].timecode, rate) for hit in answer.hits}
    record = Timecode(rate, drop=bool(starts) and all(counting.drop for counting, _ in starts.values()))
    lines = [f"TITLE: {shown(answer.query)}", _frame_code(record), ""]
    reels, place, mode = _reels(answer.hits), record.frame(_RECORD_START), record.drop
    for event, hit in enumerate(answer.hits, start=1):
        facts, (counting, start) = media[hit.video_id], starts[hit.video_id]
        begin_s, end_s = facts.span_s(hit, options.handles_s)
        first, stop = frames_of(begin_s - facts.first_s, end_s - facts.first_s, rate, facts.n_frames)
        peak, _ = frames_of(hit.peak_s - facts.first_s, hit.peak_s - facts.first_s, rate, facts.n_frames)
        times = [counting.text(start + number) for number in (first, stop)]
        times += [record.text(number) for number in (place, place + stop - first)]
        if counting.drop != mode:
            lines.append(_frame_code(counting))
        lines.append(
            f"{event:03d}  {reels[hit.path]:<8} {'B' if facts.has_audio else 'V':<5} C        {' '.join(times)}"
        )
        lines += _comments(hit, facts, counting.text(start))
        if options.markers:
            at = record.text(place + min(max(peak, first), stop - 1) - first)
            lines.append(f"* LOC: {at} RED     {hit.rank} {hit.score:.3f} {shown(answer.query)}")
        place, mode = place + stop - first, counting.drop
    if place >= record.day:
        raise InputError("the events of an EDL have to end before 24 hours", hint=_OTHER_WAY)
    return "\r\n".join([*lines, ""]).encode()


def _one_rate(hits: list[Hit], media: Mapping[str, Media]) -> Fraction:
    """The frame rate that all hits have. Raises InputError where there is none."""
    found: dict[Fraction, str] = {}
    for hit in hits:
        rate = media[hit.video_id].frame_rate
        if rate is None:
            raise InputError(f"{hit.path} has a variable frame rate, and an EDL counts frames", hint=_OTHER_WAY)
        if not has_timecode(rate):
            raise InputError(f"{hit.path} has {rate_text(rate)} frames a second: no timecode", hint=_OTHER_WAY)
        found.setdefault(rate, hit.path)
    if len(found) > 1:
        (one, path), (other, other_path), *_ = found.items()
        raise InputError(
            f"an EDL has one frame rate: {path} has {rate_text(one)}, {other_path} has {rate_text(other)}",
            hint=f"{_OTHER_WAY}; --where takes the hits of one rate only",
        )
    return next(iter(found), Fraction(25))


def _frame_code(counting: Timecode) -> str:
    return f"FCM: {'DROP FRAME' if counting.drop else 'NON-DROP FRAME'}"


def _comments(hit: Hit, facts: Media, start: str) -> Iterator[str]:
    yield f"* FROM CLIP NAME: {shown(hit.path.rsplit('/', 1)[-1])}"
    yield f"* SOURCE FILE: {shown(hit.path)}"
    if facts.timecode is not None and facts.timecode != start:
        yield f"* COMMENT: {shown(facts.timecode)} IS NO TIMECODE AT THIS RATE, COUNTED FROM {start}"


def _reels(hits: list[Hit]) -> dict[str, str]:
    """A reel for each path: the start of its name in plain letters and digits, numbered where two would agree."""
    reels: dict[str, str] = {}
    taken = set(_RESERVED)
    for path in (hit.path for hit in hits if hit.path not in reels):
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        plain = re.sub("[^A-Z0-9]", "", unicodedata.normalize("NFKD", stem).upper()) or "REEL"
        reel, number = plain[:_REEL], 1
        while reel in taken:
            number += 1
            reel = f"{plain[: _REEL - len(str(number))]}{number}"
        taken.add(reel)
        reels[path] = reel
    return reels
