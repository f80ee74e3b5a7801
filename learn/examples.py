"""Moments that people mark: read from files, and found again among the clips of a store.

Matched by video and time: ids of clips change when a video is indexed again, the times of what it shows do not.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidx.errors import InputError
from vidx.schema.live import Clips
from vidx.schema.snapshot import Snapshot
from vidx.search.collection import Collection
from vidx.search.paths import videos_at

_ROUNDED_S = 1e-3  # times in answers have three decimals
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": True}


@dataclass(frozen=True)
class Moment:
    """A span of a video that shows the label, or does not. `source` is the file that says so, and where in it."""

    source: str
    video_id: str | None
    path: str | None
    start_s: float
    end_s: float  # infinite: to the end
    positive: bool

    def __str__(self) -> str:
        span = "" if self.end_s == math.inf else f", {self.start_s:g} to {self.end_s:g} s"
        return f"{self.path or self.video_id}{span}"


def read_moments(path: Path, *, all_negative: bool = False) -> list[Moment]:
    """The moments of a file: hits as `vidx search --format json` prints them, or a CSV with such columns.

    A CSV has `path` or `video_id`, and may have `start_s`, `end_s` and `relevant`. Raises InputError, naming the line
    or the hit.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", hint="give JSON of `vidx search`, or CSV") from error
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}", hint="name a file of moments") from error
    is_json = path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "[")
    rows = _json_rows(path, text) if is_json else _csv_rows(path, text)
    return [_moment(source, row, all_negative) for source, row in rows]


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        hits = json.loads(text)["hits"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path} is no JSON with hits", hint="`vidx search TEXT --format json -o hits.json` writes one"
        ) from error
    if not isinstance(hits, list):
        raise InputError(f"{path}: its hits are no list", hint="give them as `vidx search --format json` does")
    for number, hit in enumerate(hits, 1):
        if not isinstance(hit, dict):
            raise InputError(f"{path}, hit {number}: no object", hint="give it as `vidx search --format json` does")
        yield f"{path}, hit {number}", hit


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if not {"path", "video_id"} & set(reader.fieldnames or ()):
            raise InputError(
                f"{path} is neither JSON nor a CSV with a column path or video_id",
                hint="columns: path, start_s, end_s, and relevant where some are not",
            )
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {reader.line_num}: not as many fields as columns", hint="mend the line")
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}", hint="mend the line") from error


def _moment(source: str, row: dict[str, Any], all_negative: bool) -> Moment:
    video_id, path = (_text(source, row, name) for name in ("video_id", "path"))
    if video_id is None and path is None:
        raise InputError(f"{source}: neither path nor video_id", hint="say which video it is of")
    start_s, end_s = _seconds(source, row, "start_s", 0.0), _seconds(source, row, "end_s", math.inf)
    if not start_s < end_s:
        raise InputError(f"{source}: it ends at {end_s:g} s and starts at {start_s:g} s", hint="mend the times")
    relevant = row.get("relevant", True)
    relevant = _TRUTH.get(str("" if relevant is None else relevant).strip().lower())
    if relevant is None:
        raise InputError(f"{source}: relevant is {row['relevant']!r}", hint="give true or false")
    return Moment(source, video_id, path, start_s, end_s, relevant and not all_negative)


def _text(source: str, row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{source}: {name} is no text", hint="give it as `vidx search --format json` does")
    return value or None


def _seconds(source: str, row: dict[str, Any], name: str, otherwise: float) -> float:
    value = row.get(name)
    if value is None or value == "":
        return otherwise
    try:
        if isinstance(value, bool):
            raise ValueError
        seconds = float(value)
    except (ValueError, TypeError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{source}: {name} is {value!r}", hint="give seconds")
    return seconds


def matched(
    snapshot: Snapshot, collection: Collection, moments: Sequence[Moment]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Ids of the positive and of the negative clips, int64, ascending, and a line for each moment that matched none.

    A clip matches that is at least half inside the moment, or that the moment is at least half inside. Raises
    InputError where no moment matches, none is positive, or one clip is given as both.
    """
    videos = _videos(snapshot, collection, moments)
    seen: dict[int, Clips] = {}
    chosen: dict[bool, dict[int, Moment]] = {True: {}, False: {}}
    unmatched = []
    for moment, video in zip(moments, videos, strict=True):
        if isinstance(video, str):
            unmatched.append(f"{moment.source}: {moment}: {video}")
            continue
        if video not in seen:
            seen[video] = collection.of_video(video)
        clips = seen[video]
        rows = np.flatnonzero(_shared(clips.times_s, moment))
        if len(rows) == 0:
            unmatched.append(f"{moment.source}: {moment}: the video has no clip there")
        for row in rows:
            clip_id = int(clips.ids[row])
            chosen[moment.positive].setdefault(clip_id, moment)
            if other := chosen[not moment.positive].get(clip_id):
                start_s, end_s = clips.times_s[row]
                raise InputError(
                    f"{moment.path or moment.video_id}, {start_s:g} to {end_s:g} s, is given both as positive and as"
                    f" negative ({other.source}; {moment.source})",
                    hint="leave it out of one",
                )
    if not chosen[True] and not chosen[False]:
        first = unmatched[0] if unmatched else "the files name no moment"
        raise InputError(f"nothing to learn from: {first}", hint="give moments of videos that are indexed")
    if not chosen[True]:
        raise InputError("no example shows the label", hint="--from takes those that do")
    positive, negative = (np.array(sorted(chosen[kind]), np.int64) for kind in (True, False))
    return positive, negative, unmatched


def _shared(times_s: np.ndarray, moment: Moment) -> np.ndarray:
    """Mask bool (n,) of the clips, of times (n, 2), that share half of themselves or of the moment with it."""
    starts_s, ends_s = times_s[:, 0], times_s[:, 1]
    common_s = np.minimum(ends_s, moment.end_s) - np.maximum(starts_s, moment.start_s)
    shorter_s = np.minimum(ends_s - starts_s, moment.end_s - moment.start_s)
    mask: np.ndarray = (common_s > 0) & (common_s + _ROUNDED_S >= shorter_s / 2)
    return mask


def _videos(snapshot: Snapshot, collection: Collection, moments: Sequence[Moment]) -> list[int | str]:
    """The live range of each moment's video, or why there is none. A content that is gone is looked for by its path."""
    ranges = {video_id: number for number, video_id in enumerate(collection.video_ids.to_pylist())}
    paths = {moment.path for moment in moments if moment.video_id not in ranges and moment.path is not None}
    found = videos_at(snapshot, paths, ranges)
    return [_video(moment, ranges, found) for moment in moments]


def _video(moment: Moment, ranges: dict[str, int], found: dict[str, set[str]]) -> int | str:
    if moment.video_id in ranges:
        return ranges[moment.video_id]
    fitting = found[moment.path] if moment.path is not None else set()
    if len(fitting) > 1:
        return f"{len(fitting)} videos have such a path"
    return ranges[next(iter(fitting))] if fitting else "no such video is indexed"
