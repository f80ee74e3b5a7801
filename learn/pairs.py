"""Videos and texts that describe them, for measuring retrieval: files of MSR-VTT, MSVD, DiDeMo, and plain tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidx.errors import InputError
from vidx.learn._video_files import VideoFiles, check_found, lines_of
from vidx.schema.files import read_text

# The first that a file has counts. MSR-VTT's test has `vid_key` too, but `video_id` is what files are called.
_VIDEO = ("path", "video", "video_id", "videoid", "filename", "file_name", "file", "vid_key")
_TEXT = ("text", "sentence", "caption", "description")
_COLUMNS = f"a video as one of {', '.join(_VIDEO)}, and one of {', '.join(_TEXT)}"


@dataclass(frozen=True)
class Pairs:
    """Videos, texts, and which video each text describes."""

    names: tuple[str, ...]  # of the videos, as the file has them
    paths: tuple[Path | None, ...]  # None: there is no such file below the root
    texts: tuple[str, ...]
    video_of_text: np.ndarray  # int64 (n_texts,), into names


class _Row(NamedTuple):
    where: str
    video: str
    text: str
    split: str | None = None


def read_pairs(path: Path, root: Path, *, split: str | None = None, paragraphs: bool = False) -> Pairs:
    """Pairs of a file, with the videos below `root`: CSV or TSV with a header, JSON, JSON lines, or MSVD's text file.

    Columns and keys, in any case: path, video, video_id, VideoID, filename, file_name, file or vid_key; text, sentence,
    caption or description; split, if `split` is to choose. `paragraphs` joins all texts of a video, in order, with
    blanks, as is usual for DiDeMo. Raises InputError, naming file and line.
    """
    rows = list(_rows(path))
    if split is not None:
        rows = _of_split(path, rows, split)
    texts_of: dict[str, list[str]] = {}
    for row in rows:
        if not (text := " ".join(row.text.split())):
            raise InputError(f"{row.where}: no text", hint="write what the video shows, or leave it out")
        if not row.video:
            raise InputError(f"{row.where}: no video", hint="name the video")
        texts_of.setdefault(row.video, []).append(text)
    if paragraphs:
        texts_of = {name: [" ".join(texts)] for name, texts in texts_of.items()}
        rows = [_Row("", name, texts[0]) for name, texts in texts_of.items()]
    files = VideoFiles(root)
    names = tuple(texts_of)
    paths = tuple(files.find(name) for name in names)
    check_found(names, paths, root)
    number = {name: n for n, name in enumerate(names)}
    video_of_text = np.array([number[row.video] for row in rows], np.int64)
    return Pairs(names, paths, tuple(" ".join(row.text.split()) for row in rows), video_of_text)


def _of_split(path: Path, rows: list[_Row], split: str) -> list[_Row]:
    known = sorted({row.split for row in rows if row.split is not None})
    if not known:
        raise InputError(f"{path} says of no video which split it is in", hint="leave the split out")
    if split not in known:
        raise InputError(f"{path} has no split {split!r}", hint=f"one of {', '.join(known)}")
    return [row for row in rows if row.split == split]


def _rows(path: Path) -> Iterator[_Row]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _described_lines(path)
    if suffix not in (".csv", ".tsv") and read_text(path).lstrip()[:1] in ("{", "["):
        return _json_rows(path)
    return _table_rows(path)


def _described_lines(path: Path) -> Iterator[_Row]:
    """`id words ...`, as in MSVD's AllVideoDescriptions.txt; lines with # are comments."""
    for where, line in lines_of(path):
        if not line.startswith("#"):
            name, _, text = line.partition(" ")
            yield _Row(where, name, text)


def _table_rows(path: Path) -> Iterator[_Row]:
    text = read_text(path)
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = table.fieldnames or ()
        msvd = {"VideoID", "Start", "End", "Description"} <= set(columns)
        _named(path, columns)
        for row in table:
            where = f"{path}, line {table.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: not as many fields as columns", hint="mend the line")
            if msvd and row.get("Language", "English") != "English":
                continue
            for pair in _pairs_of(where, row):
                yield pair._replace(video="_".join(row[name] for name in ("VideoID", "Start", "End"))) if msvd else pair
    except csv.Error as error:
        raise InputError(f"{path}, line {table.reader.line_num}: {error}", hint="mend the line") from error


def _json_rows(path: Path) -> Iterator[_Row]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        yield from _json_lines(path)
        return
    if isinstance(content, dict) and "sentences" in content:
        yield from _msrvtt_rows(path, content)
        return
    for number, entry in enumerate(content if isinstance(content, list) else [content], 1):
        yield from _pairs_of(f"{path}, entry {number}", entry)


def _json_lines(path: Path) -> Iterator[_Row]:
    for where, line in lines_of(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: no JSON, and the file is none as a whole", hint="mend the line") from error
        yield from _pairs_of(where, entry)


def _msrvtt_rows(path: Path, content: dict[str, Any]) -> Iterator[_Row]:
    """`videos` say which split each is in, `sentences` describe them."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for kind in ("videos", "sentences"):
        parts[kind] = content.get(kind, [])
        if not isinstance(parts[kind], list) or not all(isinstance(entry, dict) for entry in parts[kind]):
            raise InputError(f"{path}: its {kind} are no list of objects", hint="give it as MSR-VTT does")
    split_of = {str(video.get("video_id")): video.get("split") for video in parts["videos"]}
    for number, sentence in enumerate(parts["sentences"], 1):
        for row in _pairs_of(f"{path}, sentence {number}", sentence):
            yield row._replace(split=split_of.get(row.video))


def _pairs_of(where: str, entry: Any) -> Iterator[_Row]:
    """The pairs of one object or row of a table; of one video with several texts, one for each."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: no object", hint=f"an object has {_COLUMNS}")
    of_video, of_text = _named(where, entry)
    video, texts, split = entry[of_video], entry[of_text], entry.get("split")
    texts = texts if isinstance(texts, list) else [texts]
    if not texts or not all(isinstance(value, str) for value in (video, *texts)):
        raise InputError(f"{where}: {of_video} or {of_text} is no text", hint="give both as strings")
    for text in texts:
        yield _Row(where, video.strip(), text, None if split is None else str(split))


def _named(where: object, columns: Any) -> tuple[str, str]:
    """Which columns or keys have the video and the text."""
    by_name = {name.lower(): name for name in columns}
    chosen = [next((by_name[name] for name in names if name in by_name), None) for names in (_VIDEO, _TEXT)]
    if chosen[0] is None or chosen[1] is None:
        raise InputError(f"{where}: no column of {'videos' if chosen[0] is None else 'texts'}", hint=_COLUMNS)
    return chosen[0], chosen[1]
