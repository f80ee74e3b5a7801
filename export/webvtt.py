"""WebVTT files (https://www.w3.org/TR/webvtt1/): the labels of each video as cues, which players show beside it.

A file has the name of its video, with `.vtt` in place of the suffix. Videos whose files would have the same name, in
whatever case, all get their video_id into it: `NAME.VIDEO_ID.vtt`.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from vidx.errors import InputError
from vidx.export import written

_BATCH_ROWS = 65_536
_VIDEOS_ROWS = 500_000  # rows whose cues are made at once; a video is never split
_TOUCH_MS = 50  # clips this close in time touch
_NAME_BYTES = 255  # what file systems allow
_HEAD = "WEBVTT\n\nNOTE made by vidx\n"
_TIME_BITS = 42  # milliseconds of a video take fewer

# What is known of a video before its cues are made, and how that of several row groups becomes one.
_FACTS = [
    *(("path", "min"), ("first", "min"), ("last", "max")),  # path, and its first and last row group
    *(("n_segments", "sum"), ("n_segment_labels", "sum"), ("n_clip_labels", "sum")),  # rows
]
_CUE_COLUMNS = ["label", "start_s", "end_s", "probability"]
_SOURCE_COLUMNS = ["encoder", "tag_set", "run_id"]


def to_folder(files: Sequence[Path], folder: Path) -> int:
    """Write a WebVTT file for each video that has a label, and return how many.

    `files` are Parquet files with the columns of `vidx.schema.tables.TAGS`, their rows in any order. The cues are the
    segments of a video or, where it has no segment rows, its clips; clips of one label that touch are one cue, with the
    largest of their probabilities. Earlier files of ours are replaced. Raises InputError, before anything is written,
    where the folder can't be made or holds a file of such a name that is not of ours.
    """
    rows = _Rows(files)
    videos = _videos(rows)
    names = _names(videos["path"].to_pylist(), videos["video_id"].to_pylist())
    try:
        folder.mkdir(exist_ok=True)
        strange = next((name for name in names if not _may_be_written(folder / name)), None)
    except OSError as error:
        raise InputError(f"can't write to {folder}: {error.strerror}", hint="name another folder") from error
    if strange is not None:
        raise InputError(f"{folder / strange} is there already and not of vidx", hint="name another folder")
    n_rows = videos["n_rows"].to_numpy()
    starts = np.flatnonzero(np.diff((np.cumsum(n_rows) - n_rows) // _VIDEOS_ROWS, prepend=-1)).tolist()
    for start, stop in pairwise([*starts, len(names)]):
        _write(rows, videos.slice(start, stop - start), [folder / name for name in names[start:stop]])
    return len(names)


class _Rows:
    """The rows of Parquet files, by the number of their row group over all files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._places = [(file, n) for file in files for n in range(parquet.read_metadata(file).num_row_groups)]
        self.groups = range(len(self._places))

    def batches(self, groups: range, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches, each with the number of its group."""
        for file, places in groupby(groups, lambda group: self._places[group][0]):
            with parquet.ParquetFile(file) as source:
                for group in places:
                    numbers = [self._places[group][1]]
                    for batch in source.iter_batches(_BATCH_ROWS, row_groups=numbers, columns=columns):
                        yield group, batch


def _videos(rows: _Rows) -> pa.Table:
    """One row for each video that has a label, with _FACTS and `n_rows` that become cues.

    Videos whose rows lie together come first, in the order of their rows, so that neighbours are read at once.
    """
    parts, n_parts, n_known = [_no_videos()], 0, 0
    for group, batch in rows.batches(rows.groups, ["video_id", "level", "path", "label"]):
        parts.append(_of_batch(group, batch))
        n_parts += len(parts[-1])
        if n_parts > n_known + 1_000_000:
            parts = [_by_video(pa.concat_tables(parts))]
            n_parts = n_known = len(parts[0])
    videos = _by_video(pa.concat_tables(parts))
    has_segments = pc.greater(videos["n_segments"], 0)
    videos = videos.append_column(
        "n_rows", pc.if_else(has_segments, videos["n_segment_labels"], videos["n_clip_labels"])
    )
    videos = videos.append_column("scattered", pc.greater(pc.subtract(videos["last"], videos["first"]), 1))
    return videos.filter(pc.field("n_rows") > 0).sort_by(
        [("scattered", "ascending"), ("first", "ascending"), ("video_id", "ascending")]
    )


def _no_videos() -> pa.Table:
    kinds = {"video_id": pa.string(), "path": pa.string()}
    return pa.schema([(name, kinds.get(name, pa.int64())) for name in ("video_id", *dict(_FACTS))]).empty_table()


def _of_batch(group: int, batch: pa.RecordBatch) -> pa.Table:
    """The facts that rows of one row group tell."""
    is_segment, is_clip = (pc.equal(batch["level"], level) for level in ("segment", "clip"))
    has_label = pc.is_valid(batch["label"])
    number = pa.repeat(group, len(batch))
    columns = [batch["video_id"], batch["path"], number, number]
    columns += [
        mask.cast(pa.int64()) for mask in (is_segment, pc.and_(is_segment, has_label), pc.and_(is_clip, has_label))
    ]
    return _by_video(pa.table(columns, schema=_no_videos().schema).filter(pc.or_(is_segment, is_clip)))


def _by_video(table: pa.Table) -> pa.Table:
    found = table.group_by("video_id", use_threads=False).aggregate(_FACTS)
    return pa.table({"video_id": found["video_id"], **{name: found[f"{name}_{how}"] for name, how in _FACTS}})


def _names(paths: Iterable[str | None], video_ids: Sequence[str]) -> list[str]:
    """A file name for each video, no two the same in any file system, whatever the order of the videos."""
    stems = [_stem(path or video_id) for path, video_id in zip(paths, video_ids, strict=True)]
    plain = [_cut(stem, ".vtt") for stem in stems]
    often = Counter(map(_alike, plain))
    taken = {name for name, n in often.items() if n == 1}
    names = dict(enumerate(plain))
    for video in sorted((n for n, name in enumerate(plain) if often[_alike(name)] > 1), key=lambda n: video_ids[n]):
        mark, number = re.sub(r"[^\w.-]", "_", video_ids[video]), 1
        names[video] = _cut(stems[video], f".{mark}.vtt")
        while _alike(names[video]) in taken:  # another video is called so by nature
            number += 1
            names[video] = _cut(stems[video], f".{mark}-{number}.vtt")
        taken.add(_alike(names[video]))
    return list(names.values())


def _stem(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name.rpartition(".")[0] or name


def _cut(stem: str, ending: str) -> str:
    return stem.encode()[: _NAME_BYTES - len(ending.encode())].decode(errors="ignore") + ending


def _alike(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _may_be_written(path: Path) -> bool:
    """Whether there is no such file, or an earlier one of ours."""
    if not os.path.lexists(path):
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as earlier:
        return earlier.read(len(_HEAD)) == _HEAD.encode()


def _write(rows: _Rows, videos: pa.Table, paths: list[Path]) -> None:
    """Write the files of some videos."""
    video_ids, has_segments = videos["video_id"].combine_chunks(), pc.greater(videos["n_segments"], 0).combine_chunks()
    groups = range(pc.min(videos["first"]).as_py(), pc.max(videos["last"]).as_py() + 1)
    cues, sources = [], []
    for _, batch in rows.batches(groups, ["video_id", "level", *_CUE_COLUMNS, *_SOURCE_COLUMNS]):
        video = pc.index_in(batch["video_id"], video_ids)
        level = pc.if_else(has_segments.take(video), "segment", "clip")
        wanted = pc.and_(pc.equal(batch["level"], level), pc.is_valid(batch["label"]))  # null where the video is
        found = pa.Table.from_batches([batch]).append_column("video", video).filter(wanted)
        cues.append(found.select(["video", *_CUE_COLUMNS]))
        sources.append(found.group_by(["video", *_SOURCE_COLUMNS], use_threads=False).aggregate([]))
    notes = _notes(pa.concat_tables(sources), len(paths))
    for path, of, note, made in zip(
        paths, videos["path"].to_pylist(), notes, _cues(pa.concat_tables(cues), has_segments), strict=True
    ):
        with written(path) as out:
            blocks = (f"\n{number}\n{cue}\n" for number, cue in enumerate(made, 1))
            out.write("".join([_HEAD, _note("file", of), *note, *blocks]).encode())


def _notes(sources: pa.Table, n_videos: int) -> list[list[str]]:
    """Where the labels of each video come from, as lines; most often from one run of one encoder."""
    found: list[set[tuple[str, ...]]] = [set() for _ in range(n_videos)]
    for video, *row in zip(*(sources[name].to_pylist() for name in ("video", *_SOURCE_COLUMNS)), strict=True):
        found[video].add(tuple(value or "" for value in row))
    names = ("encoder", "tag set", "run")
    return [
        [_note(name, value) for row in sorted(rows) for name, value in zip(names, row, strict=True)] for rows in found
    ]


def _cues(rows: pa.Table, has_segments: pa.Array) -> Iterator[list[str]]:
    """The cues of each video, by start; the most probable first where several start together."""
    labels = rows["label"].combine_chunks().dictionary_encode()
    names = labels.dictionary.to_pylist()
    label = np.argsort(np.argsort(np.array(names)))[labels.indices.to_numpy()]  # in the order of their names
    names.sort()
    video = rows["video"].to_numpy()
    start, end = (np.rint(rows[name].to_numpy() * 1000).astype(np.int64) for name in ("start_s", "end_s"))
    order = np.lexsort((end, start, label, video))
    video, label, start, end = (column[order] for column in (video, label, start, end))
    probability = rows["probability"].to_numpy()[order]
    first = np.flatnonzero(_begins(video, label, start, end, has_segments.to_numpy(zero_copy_only=False)[video]))
    video, label, start = video[first], label[first], start[first]
    end, probability = np.maximum.reduceat(end, first), np.fmax.reduceat(probability, first)
    order = np.lexsort((label, -probability, start, video))
    columns = [column[order] for column in (start, np.maximum(end, start + 1), label, probability)]
    names = [_escaped(name) for name in names]
    for begin, stop in pairwise(np.searchsorted(video, np.arange(len(has_segments) + 1)).tolist()):
        yield [
            f"{_time(from_ms)} --> {_time(to_ms)}\n{names[number]}" + ("" if math.isnan(value) else f" ({value:.2f})")
            for from_ms, to_ms, number, value in zip(*(column[begin:stop].tolist() for column in columns), strict=True)
        ]


def _begins(video: np.ndarray, label: np.ndarray, start: np.ndarray, end: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Which rows begin a cue, given in the order of video, label and start; only equal rows are one where `exact`."""
    other = np.ones(len(video), bool)
    other[1:] = (video[1:] != video[:-1]) | (label[1:] != label[:-1])
    group = np.cumsum(other) << _TIME_BITS
    end_so_far = np.maximum.accumulate(end + group) - group
    apart = np.ones(len(video), bool)
    apart[1:] = np.where(
        exact[1:], (start[1:] != start[:-1]) | (end[1:] != end[:-1]), start[1:] > end_so_far[:-1] + _TOUCH_MS
    )
    return other | apart


def _note(name: str, value: str | None) -> str:
    return f"{name}: {_escaped(value or '')}\n"


@lru_cache(_BATCH_ROWS)
def _time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"


def _escaped(text: str) -> str:
    """Text on one line, of which nothing is markup or the arrow of a timing."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
