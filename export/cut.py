"""Each hit as a file of its own: exactly its frames, encoded again, or as a copy from the key frame before."""

from __future__ import annotations

import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidx.errors import InputError
from vidx.export._cut_process import run_job
from vidx.export._media import Media
from vidx.schema.records import Answer, Hit

_STEM_BYTES = 100  # of the name of the source; file systems allow 255 for all
_MOST_THREADS = 8  # of one cut; each holds pictures
# Where copies of what a camera or an editor writes are understood; the rest goes to Matroska.
_SUFFIXES = dict.fromkeys(("h264", "hevc", "av1", "vp9", "mpeg4"), "mp4") | dict.fromkeys(("prores", "dnxhd"), "mov")


@dataclass(frozen=True)
class CutResult:
    """What became of one hit."""

    hit: Hit
    path: Path
    start_s: float | None = None  # of the first frame in the file, player time of the source; a copy may begin earlier
    end_s: float | None = None
    damage: str | None = None  # met in the source up to its end; the file may lack frames or show them broken
    reason: str | None = None  # why there is no file


def cut(
    answer: Answer, media: Mapping[str, Media], folder: Path, *, copy: bool = False, handles_s: float = 0.0
) -> list[CutResult]:
    """Write one file a hit, several at once; a hit that fails says why and stops no other.

    Raises InputError, before anything is written, where the folder can't be made or a file of such a name is there.
    """
    pieces = [(hit, folder / _name(hit, media[hit.video_id], copy, handles_s)) for hit in answer.hits]
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"can't write to {folder}: {error.strerror}", hint="--cut takes a folder") from error
    for _, path in pieces:
        if os.path.lexists(path):
            raise InputError(f"{path} is there already", hint="remove it, or name another folder")
    n_cores = os.cpu_count() or 1
    n_workers = max(1, min(n_cores, len(pieces)))
    stop = threading.Event()

    def cut_one(hit: Hit, path: Path) -> CutResult:
        facts = media[hit.video_id]
        start_s, end_s = facts.span_s(hit, handles_s)
        job = {"start_s": start_s, "end_s": end_s, "copy": copy, "threads": min(n_cores // n_workers, _MOST_THREADS)}
        return _cut_one(hit, facts, path, job, stop)

    with ThreadPoolExecutor(n_workers) as pool:
        results = [pool.submit(cut_one, *piece) for piece in pieces]
        try:
            return [result.result() for result in results]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _cut_one(hit: Hit, facts: Media, path: Path, job: dict[str, Any], stop: threading.Event) -> CutResult:
    source = facts.path_of(hit)
    try:
        if os.stat(source).st_size != facts.size_bytes:
            return CutResult(hit, path, reason="it has changed since it was indexed")
    except OSError as error:
        return CutResult(hit, path, reason=f"it can't be read now: {error.strerror}")
    aside = path.with_name(f".vidx-{secrets.token_hex(8)}{path.suffix}")
    job |= {"path_hex": source.hex(), "out_hex": os.fsencode(aside).hex()}
    try:
        answer = run_job(job, facts.duration_s, stop)
        if "reason" in answer:
            return CutResult(hit, path, reason=answer["reason"])
        with open(path, "xb"):  # the name is ours from here on, or somebody else's
            os.replace(aside, path)
        return CutResult(hit, path, answer["start_s"], answer["end_s"], answer["damage"])
    except OSError as error:
        return CutResult(hit, path, reason=f"{path} can't be written: {error.strerror}")
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def _name(hit: Hit, facts: Media, copy: bool, handles_s: float) -> str:
    """`RANK_STEM_START-END.mp4`, safe in every file system; times as HHMMSS.mmm."""
    stem = unicodedata.normalize("NFC", hit.path.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    plain = re.sub(r"[^\w.-]+", "_", stem).encode()[:_STEM_BYTES].decode(errors="ignore")
    start, end = (_stamp(seconds) for seconds in facts.span_s(hit, handles_s))
    suffix = f"copy.{_SUFFIXES.get(facts.codec, 'mkv')}" if copy else "mp4"
    return f"{hit.rank:03d}_{plain}_{start}-{end}.{suffix}"


def _stamp(seconds: float) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}{minutes % 60:02d}{rest // 1000:02d}.{rest % 1000:03d}"
