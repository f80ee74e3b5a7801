"""`vidx eval moments`: whether a search finds labelled segments, and how well their times fit."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.config import SearchOptions
from vidx.encoders._label_sets import as_words
from vidx.errors import InputError
from vidx.learn.metrics import Span, detection_ap, overlap
from vidx.learn.report import Report, Table
from vidx.schema.files import read_text
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.collection import open_collection
from vidx.search.paths import videos_at
from vidx.search.query import settled_space
from vidx.search.run import search

if TYPE_CHECKING:
    import pyarrow as pa

IOUS = (0.1, 0.3, 0.5, 0.7)
_MOST_HITS = 10_000
_COLUMNS = ("path", "start_s", "end_s", "label")


@dataclass(frozen=True)
class Segment:
    """A stretch of a video that shows what its label says."""

    path: str
    start_s: float
    end_s: float
    label: str


def read_segments(path: Path) -> list[Segment]:
    """Of a CSV with the columns path, start_s, end_s and label. Raises InputError, naming the line."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
        raise InputError(f"{path} has no column {missing[0]}", hint=f"columns: {', '.join(_COLUMNS)}")
    try:
        segments = [_segment(path, reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}", hint="mend the line") from error
    if not segments:
        raise InputError(f"{path} has no segments", hint="write one on each line")
    return segments


def _segment(path: Path, line: int, row: dict[str, str | None]) -> Segment:
    video, label = row["path"], " ".join((row["label"] or "").split())
    try:
        start_s, end_s = float(row["start_s"] or "nan"), float(row["end_s"] or "nan")
    except ValueError:
        start_s = end_s = math.nan
    if not video or not label or not 0 <= start_s < end_s < math.inf:
        raise InputError(f"{path}, line {line}: no path, label, start_s and a later end_s", hint="mend the line")
    return Segment(video, start_s, end_s, label)


def detect(
    store_path: Path, segments_path: Path, *, encoder: str | None = None, template: str = "{}"
) -> tuple[Report, list[str]]:
    """A report, and a line for each segment whose video is not indexed. Raises VidxError."""
    store = Store.open(store_path)
    space = settled_space(store, encoder)
    segments = read_segments(segments_path)
    videos, left_out = _videos(store, space.name, segments)
    known = [segment for segment in segments if segment.path in videos]
    if not known:
        raise InputError(
            f"no video of {segments_path} is indexed in {store.path}", hint="run `vidx index FOLDER` on them first"
        )
    among = "video_id IN ({})".format(", ".join(f"'{video_id}'" for video_id in sorted(set(videos.values()))))
    found: dict[str, list[Span]] = {}
    for label in dict.fromkeys(segment.label for segment in known):
        options = SearchOptions(k=_MOST_HITS, encoder=space.name, where=among)
        answer = search(store, [template.replace("{}", as_words(label))], options)
        found[label] = [Span(hit.video_id, hit.start_s, hit.end_s, hit.score) for hit in answer.hits]
    truths: dict[str, list[Span]] = {label: [] for label in found}
    for segment in known:
        truths[segment.label].append(Span(videos[segment.path], segment.start_s, segment.end_s))
    of_labels = {label: _of_label(found[label], truths[label]) for label in found}
    facts = {"segments": str(segments_path), "store": str(store.path), "space": space.name, "template": template}
    report = Report(
        title=f"Moments of {segments_path.name}",
        facts=facts | {"videos": len(set(videos.values())), "labels": len(found), "segments used": len(known)},
        tables=(_summary(of_labels), _labels(of_labels)),
        figures={"mean": _mean(of_labels), "labels": of_labels},
        items=_items(found, truths),
    )
    return report, left_out


def _videos(store: Store, space: str, segments: Sequence[Segment]) -> tuple[dict[str, str], list[str]]:
    """The content at each path, and why there is none for others."""
    snapshot = Snapshot(store)
    among = set(open_collection(snapshot, store.space(space)).video_ids.to_pylist())
    found = videos_at(snapshot, {segment.path for segment in segments}, among)
    left_out = [
        f"{path}: {'several videos have such a path' if ids else 'no such video is indexed'}"
        for path, ids in sorted(found.items())
        if len(ids) != 1
    ]
    return {path: next(iter(ids)) for path, ids in found.items() if len(ids) == 1}, left_out


def _of_label(found: list[Span], truths: list[Span]) -> dict[str, Any]:
    """Average precision at each IoU, and how the first hit fits."""
    overlaps = [overlap(found[0], truth) for truth in truths] if found else []
    first = max(overlaps, default=0.0)
    aps = {f"ap_{iou:g}": detection_ap(found, truths, iou) for iou in IOUS}
    return aps | {"first_hit_iou": first, "first_hit_touches": bool(first > 0), "segments": len(truths)}


def _mean(of_labels: dict[str, dict[str, Any]]) -> dict[str, float]:
    names = next(iter(of_labels.values()))
    means = {name: float(np.mean([of[name] for of in of_labels.values()])) for name in names if name != "segments"}
    return {name.replace("ap_", "map_"): value for name, value in means.items()}


def _summary(of_labels: dict[str, dict[str, Any]]) -> Table:
    mean = _mean(of_labels)
    rows = [(f"mAP at IoU {iou:g}, %", 100 * mean[f"map_{iou:g}"]) for iou in IOUS]
    rows += [
        ("labels whose first hit touches a segment, %", 100 * mean["first_hit_touches"]),
        ("mean IoU of the first hit", mean["first_hit_iou"]),
    ]
    note = "Average precision as ActivityNet's evaluation of detections has it, mean over labels."
    return Table("All labels", ("", "value"), tuple(rows), note)


def _labels(of_labels: dict[str, dict[str, Any]]) -> Table:
    columns = ("label", "segments", *(f"AP {iou:g} %" for iou in IOUS), "IoU of first hit")
    rows = tuple(
        (label, of["segments"], *(100 * of[f"ap_{iou:g}"] for iou in IOUS), of["first_hit_iou"])
        for label, of in sorted(of_labels.items())
    )
    return Table("Labels", columns, rows)


def _items(found: dict[str, list[Span]], truths: dict[str, list[Span]]) -> pa.Table:
    """Every hit, with the largest overlap with a segment of its label."""
    import pyarrow as pa

    rows = [
        {"label": label, "rank": rank, "video_id": span.video, "start_s": span.start_s, "end_s": span.end_s}
        | {"score": span.score, "iou": max(overlap(span, truth) for truth in truths[label])}
        for label, spans in found.items()
        for rank, span in enumerate(spans, 1)
    ]
    return pa.Table.from_pylist(rows)
