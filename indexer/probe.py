"""What the store already knows of each file found: unchanged, a copy of known content, or a job for the decoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from vidx.indexer.fingerprint import fingerprint
from vidx.indexer.walk import Skipped
from vidx.schema.records import FoundFile
from vidx.schema.snapshot import Snapshot

_BATCH = 10_000  # files compared with the files table at once


@dataclass(frozen=True)
class Job:
    """One content to decode, at one of its paths."""

    file: FoundFile
    video_id: str
    replaces: bool = False  # usable clips of another plan, which a failed attempt must not take away


@dataclass(frozen=True)
class Known:
    """A file whose content has an outcome in this space; `unchanged` if the path is known with it as well."""

    file: FoundFile
    video_id: str
    state: str  # ok | partial | failed | not_video
    reason: str | None
    unchanged: bool


@dataclass(frozen=True)
class Duplicate:
    """A file with the same content as a job of this very run."""

    file: FoundFile
    video_id: str


@dataclass(frozen=True)
class UnreadableFile:
    """A file that could not even be read to tell its content."""

    file: FoundFile
    reason: str


Settled = Known | Duplicate | UnreadableFile | Skipped  # needs no decoding
Found = Job | Settled


def probe(
    walked: Iterable[FoundFile | Skipped], snapshot: Snapshot, space: str, asked_plan: str | None
) -> Iterator[Found]:
    """Tell apart what `snapshot` knows and what has to be decoded for `space`.

    `asked_plan` is the JSON of a plan the user asked for: content planned otherwise becomes a job again. With None any
    plan will do.
    """
    triage = _Triage(snapshot, space, asked_plan)
    entries = iter(walked)
    while batch := list(islice(entries, _BATCH)):
        yield from (entry for entry in batch if isinstance(entry, Skipped))
        files = [entry for entry in batch if isinstance(entry, FoundFile)]
        recorded = triage.recorded(files)
        yield from (triage.judge(file, recorded.get(number)) for number, file in enumerate(files))


@dataclass(frozen=True)
class _Record:
    """What the store holds of a content; `state` is None where this space has no outcome of it."""

    video_id: str
    state: str | None
    reason: str | None
    plan: str | None


class _Triage:
    def __init__(self, snapshot: Snapshot, space: str, asked_plan: str | None) -> None:
        self._snapshot, self._space, self._asked_plan = snapshot, space, asked_plan
        self._jobs: set[str] = set()

    def recorded(self, files: list[FoundFile]) -> dict[int, _Record]:
        """Records of those files (by position) whose path, size and modification time are as the store has them."""
        batch = pa.table(
            {
                "number": pa.array(range(len(files)), pa.int64()),
                "path_bytes": pa.array([file.path_bytes for file in files], pa.binary()),
                "size": pa.array([file.size_bytes for file in files], pa.int64()),
                "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
            }
        )
        self._snapshot.with_rows("batch", batch)
        rows = self._snapshot.rows(_RECORDED, {"space": self._space})
        return {number: _Record(*record) for number, *record in rows}

    def judge(self, file: FoundFile, record: _Record | None) -> Found:
        """Job, Known, Duplicate or UnreadableFile; `record` is None where the path is new or changed."""
        unchanged = record is not None
        if record is None:
            try:
                record = self._of_content(fingerprint(file.path_bytes))
            except OSError as error:
                return UnreadableFile(file, f"can't be read: {error.strerror}")
        if record.video_id in self._jobs:
            return Duplicate(file, record.video_id)
        usable = record.state in ("ok", "partial")
        if record.state is not None and (not usable or self._asked_plan in (None, record.plan)):
            return Known(file, record.video_id, record.state, record.reason, unchanged)
        self._jobs.add(record.video_id)
        return Job(file, record.video_id, replaces=usable)

    def _of_content(self, video_id: str) -> _Record:
        query = "SELECT state, reason, plan FROM newest WHERE video_id = $id AND space = $space"
        for row in self._snapshot.rows(query, {"id": video_id, "space": self._space}):
            return _Record(video_id, *row)
        return _Record(video_id, None, None, None)


_RECORDED = """
SELECT batch.number, files.video_id, newest.state, newest.reason, newest.plan
FROM batch JOIN files USING (path_bytes, size, mtime_ns)
LEFT JOIN newest ON newest.video_id = files.video_id AND newest.space = $space
WHERE files.state = 'present'
"""
