"""A labelled sample of the archive, for calibration: what some of its videos show, and when.

The sample is complete for the videos it names: a clip of theirs that no row says to show a label does not show it.
Where a row covers less than half of a clip, the clip says nothing about that label.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidx.config import TagOptions
from vidx.errors import InputError
from vidx.schema.live import Ranges, live_ranges
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.search._reliability import write_reliability
from vidx.search._tag_blocks import whole_videos
from vidx.search._tag_rows import Block
from vidx.search._tag_scores import Scored
from vidx.search.calibration import Calibration, fit, top_label
from vidx.search.labels import LabelSet
from vidx.search.paths import videos_at

_BLOCK_CLIPS = 4096
_TOLD = 3  # of a list that could be long
_HINT = "columns: path, label and, if wanted, start_s and end_s"

Score = Callable[[Block], tuple[Block, Scored]]


@dataclass(frozen=True)
class Learnt:
    """A calibration, and what of the sample could not be used."""

    calibration: Calibration
    notes: list[str]


class _Row(NamedTuple):
    path: str
    label: str  # empty: the stretch shows none
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Truth:
    """Clips of the sample: `shows` and `known` bool (n, L), `videos` int64 (n,), raw probabilities float32 (n, L)."""

    raw: np.ndarray
    shows: np.ndarray
    known: np.ndarray
    videos: np.ndarray


def learn(snapshot: Snapshot, space: Space, score: Score, label_set: LabelSet, options: TagOptions) -> Learnt:
    """Fit probabilities and thresholds to the sample of `options.calibrate`. Raises InputError."""
    assert options.calibrate is not None
    truth, notes = sampled(snapshot, space, score, label_set, options.calibrate)
    calibration, left_out = fit(
        truth.raw,
        truth.shows,
        truth.known,
        truth.videos,
        label_set.names,
        method=options.method,
        precision=options.precision,
    )
    if options.reliability is not None:
        before, after = (top_label(values, truth.shows, truth.known) for values in (truth.raw, left_out))
        write_reliability(options.reliability, before, after, f"{label_set.name}, {options.calibrate.name}")
    return Learnt(calibration, notes)


def sampled(
    snapshot: Snapshot, space: Space, score: Score, label_set: LabelSet, sample: Path
) -> tuple[Truth, list[str]]:
    """What the file of a sample says of the clips of its videos, and what of it can't be used. Raises InputError."""
    rows = _read(sample)
    live, video_ids = live_ranges(snapshot, space)
    place = {video_id: number for number, video_id in enumerate(video_ids.to_pylist())}
    videos = _videos(snapshot, sample, {row.path for row in rows}, set(place))
    notes = _notes(sample, rows, videos, label_set)
    shown: dict[int, list[_Row]] = {place[video_id]: [] for video_id in videos.values()}
    for row in sorted(rows, key=lambda row: (row.label, row.start_s)):
        if row.path not in videos:
            continue
        of_video = shown[place[videos[row.path]]]
        if of_video and of_video[-1].label == row.label:  # what is said twice counts once
            row = row._replace(start_s=max(row.start_s, of_video[-1].end_s))
        if row.start_s < row.end_s:
            of_video.append(row)
    return _truth(snapshot, space, score, label_set, live, shown), notes


def _read(path: Path) -> list[_Row]:
    """Raises InputError, naming file and line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            if len(set(lines.fieldnames or ())) < len(lines.fieldnames or ()):
                raise InputError(f"sample {path}: a column is there twice", hint=_HINT)
            if missing := [name for name in ("path", "label") if name not in (lines.fieldnames or ())]:
                raise InputError(f"sample {path}: it has no column `{missing[0]}`", hint=_HINT)
            rows = [_row(path, lines.line_num, cells) for cells in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"sample {path} can't be read: {what}", hint=_HINT) from error
    if not rows:
        raise InputError(f"sample {path} is empty", hint=_HINT)
    return rows


def _row(path: Path, line: int, cells: dict[str, str | None]) -> _Row:
    times_s = []
    for name, otherwise in (("start_s", 0.0), ("end_s", math.inf)):
        given = (cells.get(name) or "").strip()
        try:
            times_s.append(float(given) if given else otherwise)
        except ValueError:
            times_s.append(math.nan)
    start_s, end_s = times_s
    if not start_s < end_s:
        raise InputError(f"sample {path}, line {line}: no stretch of time from start_s to end_s", hint=_HINT)
    if not (named := (cells["path"] or "").strip()):
        raise InputError(f"sample {path}, line {line}: it has no path", hint=_HINT)
    return _Row(named, " ".join((cells["label"] or "").split()), start_s, end_s)


def _videos(snapshot: Snapshot, sample: Path, paths: set[str], indexed: set[str]) -> dict[str, str]:
    """The content at each path that is indexed. Raises InputError where it is the end of several."""
    found = {}
    for path, fitting in videos_at(snapshot, paths, indexed).items():
        if len(fitting) > 1:
            raise InputError(f"sample {sample}: several indexed videos end in {path}", hint="give absolute paths")
        if fitting:
            [found[path]] = fitting
    return found


def _notes(sample: Path, rows: Sequence[_Row], videos: dict[str, str], label_set: LabelSet) -> list[str]:
    """What can't be used, told. Raises InputError where nothing can."""
    without = sorted({row.path for row in rows} - set(videos))
    if not videos:
        raise InputError(f"sample {sample}: none of its videos is indexed, as {without[0]}", hint="index them first")
    strange = sorted({row.label for row in rows if row.label} - set(label_set.names))
    notes = []
    if without:
        notes.append(f"sample {sample}: {len(without)} videos are not indexed: {_some(without)}")
    if strange:
        notes.append(f"sample {sample}: {len(strange)} labels are not among {label_set.name}: {_some(strange)}")
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:_TOLD]) + (" ..." if len(names) > _TOLD else "")


def _truth(
    snapshot: Snapshot, space: Space, score: Score, label_set: LabelSet, live: Ranges, shown: dict[int, list[_Row]]
) -> Truth:
    """`shown` are the rows of each video of the sample, by its live range."""
    column = {name: at for at, name in enumerate(label_set.names)}
    of_sample = sorted(shown)
    parts = []
    for block in whole_videos(snapshot, space, live.at(np.array(of_sample)), _BLOCK_CLIPS):
        kept, scored = score(block)
        shown_s = np.zeros((len(kept.ids), len(column)))
        starts_s, ends_s = kept.times_s.T
        for video in np.unique(kept.videos).tolist():
            of_video = kept.videos == video
            for row in shown[of_sample[video]]:
                if row.label in column:
                    overlap_s = np.minimum(ends_s, row.end_s) - np.maximum(starts_s, row.start_s)
                    shown_s[of_video, column[row.label]] += np.maximum(overlap_s, 0)[of_video]
        share = shown_s / (ends_s - starts_s)[:, None]
        parts.append((scored.probabilities[:, : len(column)], share >= 0.5, (share == 0) | (share >= 0.5), kept.videos))
    return Truth(*(np.concatenate(part) for part in zip(*parts, strict=True)))
