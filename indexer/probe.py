"""What the store already knows of each file found: unchanged, a copy of known content, or a job for the decoders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from vidx.decoders import MODES
from vidx.indexer.fingerprint import WHOLE_BYTES, fingerprint
from vidx.indexer.jobs import Duplicate, Found, Job, Known, Part, Resume, UnreadableFile
from vidx.indexer.walk import Skipped
from vidx.schema.records import FoundFile
from vidx.schema.snapshot import Snapshot
from vidx.schema.unfinished import Unfinished

_BATCH = 10_000  # files compared with the files table at once
_SAME_DURATION_S = 0.5  # versions of a demuxer estimate a little differently
STATES = ("ok", "partial", "not_video", "failed")  # of contents, the worst last

Announced = tuple[float, int]  # duration in seconds and number of frames as a header has them


@dataclass(frozen=True)
class Wanted:
    """What a run is to make of every content."""

    plans: dict[str, str]  # JSON by the name of the space; at least one
    plan_is_asked: bool  # else content that is planned otherwise stays as it is
    least_mode: str | None  # content that was decoded less exactly is decoded anew; None: it stays as it is
    retry_failed: bool
    resumable: Callable[[Unfinished], bool]  # whether this run would make the clips of an attempt just the same
    announced: Callable[[bytes], Announced | None]  # of a file; None where its header can't be read


def probe(
    walked: Iterable[FoundFile | Skipped], snapshot: Snapshot, wanted: Wanted, unfinished: list[Unfinished]
) -> Iterator[Found]:
    """Tell apart what `snapshot` knows and what has to be decoded."""
    triage = _Triage(snapshot, wanted, unfinished)
    entries = iter(walked)
    while batch := list(islice(entries, _BATCH)):
        yield from (entry for entry in batch if isinstance(entry, Skipped))
        yield from triage.found([entry for entry in batch if isinstance(entry, FoundFile)])


class _Outcome(NamedTuple):  # as is _Row: made for every file, and dataclasses are slow to make
    """What became of a content in one space."""

    state: str
    reason: str | None
    plan: str | None
    mode: str | None


_Outcomes = list[_Outcome | None]  # of a content, in the order of Wanted.plans


class _Row(NamedTuple):
    """The files row of a path that has a content; `same` if its size and modification time are as they were."""

    video_id: str
    same: bool
    up_to_date: bool
    outcomes: _Outcomes


class _Triage:
    def __init__(self, snapshot: Snapshot, wanted: Wanted, unfinished: list[Unfinished]) -> None:
        self._snapshot, self._wanted = snapshot, wanted
        self._unfinished = {attempt.key: attempt for attempt in unfinished}
        self._jobs: dict[str, bytes] = {}  # path by content

    def found(self, files: list[FoundFile]) -> Iterator[Found]:
        """What each file is, in order."""
        self._look_at(files)
        unchanged = self._unchanged(len(files))
        rows = {} if unchanged.all() else self._rows()
        for number, (file, is_unchanged) in enumerate(zip(files, unchanged.tolist(), strict=True)):
            if is_unchanged:  # in one query for all of them, as they may be millions
                yield Known(file, None, "ok", None, unchanged=True, up_to_date=True)
            else:
                yield self._judge(file, rows.get(number))

    def _look_at(self, files: list[FoundFile]) -> None:
        """Make files known to queries, as the table `batch`."""
        batch = pa.table(
            {
                "number": pa.array(range(len(files)), pa.int64()),
                "path_bytes": pa.array([file.path_bytes for file in files], pa.binary()),
                "size": pa.array([file.size_bytes for file in files], pa.int64()),
                "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
                "device": pa.array([file.device for file in files], pa.int64()),
            }
        )
        self._snapshot.with_rows("batch", batch)

    def _unchanged(self, n: int) -> np.ndarray:
        """Which of the n files have nothing new about them in any space: bool (n,)."""
        wanted, times = self._wanted, np.zeros(n, np.int64)
        modes = list(MODES[: MODES.index(wanted.least_mode) + 1] if wanted.least_mode else MODES)
        for space, plan in wanted.plans.items():
            asked = {"space": space, "plan": plan, "any_plan": not wanted.plan_is_asked, "modes": modes}
            times[self._snapshot.arrow(_FOUND + _UNCHANGED, asked)["number"].to_numpy()] += 1
        is_in_all: np.ndarray = times == len(wanted.plans)
        return is_in_all

    def _rows(self) -> dict[int, _Row]:
        """Rows of those files of the batch, by position, that the store has under their path."""
        rows: dict[int, _Row] = {}
        for at, space in enumerate(self._wanted.plans):
            for number, same, current, video_id, *outcome in self._snapshot.rows(_FOUND + _ROWS, {"space": space}):
                if at == 0:
                    rows[number] = _Row(video_id, same, same and current, [None] * len(self._wanted.plans))
                if outcome[0] is not None:
                    rows[number].outcomes[at] = _Outcome(*outcome)
        return rows

    def _judge(self, file: FoundFile, row: _Row | None) -> Found:
        """Job, Known, Duplicate or UnreadableFile; `row` is None where the path is new."""
        if row is not None and row.same:
            video_id, outcomes = row.video_id, row.outcomes
        else:
            try:
                video_id = self._identity(file)
            except OSError as error:
                return UnreadableFile(file, f"can't be read: {error.strerror}")
            outcomes = self._outcomes(video_id)
        if video_id in self._jobs:
            return Duplicate(file, video_id)
        settled = [
            outcome
            for outcome, plan in zip(outcomes, self._wanted.plans.values(), strict=True)
            if outcome is not None and self._is_settled(outcome, plan)
        ]
        if len(settled) == len(outcomes):
            known = max(settled, key=lambda outcome: STATES.index(outcome.state))
            unchanged = row is not None and row.video_id == video_id
            up_to_date = row is not None and row.up_to_date
            return Known(file, video_id, known.state, known.reason, unchanged, up_to_date)
        self._jobs[video_id] = file.path_bytes
        return self._job(file, video_id, outcomes)

    def _is_settled(self, outcome: _Outcome, plan: str) -> bool:
        if outcome.state == "failed":
            return not self._wanted.retry_failed
        if outcome.state in ("ok", "partial"):
            is_planned = outcome.plan == plan or not self._wanted.plan_is_asked
            return is_planned and self._is_exact_enough(outcome)
        return True

    def _is_exact_enough(self, outcome: _Outcome) -> bool:
        least = self._wanted.least_mode
        return least is None or MODES.index(outcome.mode or "exact") <= MODES.index(least)

    def _identity(self, file: FoundFile) -> str:
        """The video_id of a file. Two large files of one fingerprint are told apart by what their headers announce."""
        video_id = fingerprint(file.path_bytes)
        if file.size_bytes <= WHOLE_BYTES or (other := self._announced_of(video_id)) is None:
            return video_id
        own = self._wanted.announced(file.path_bytes)
        if own is None or (abs(own[0] - other[0]) <= _SAME_DURATION_S and own[1] == other[1]):
            return video_id
        return f"{video_id}-{hashlib.blake2b(f'{own[0]:.1f} {own[1]}'.encode(), digest_size=4).hexdigest()}"

    def _announced_of(self, video_id: str) -> Announced | None:
        """Of a content that the store or this run has already."""
        if (path := self._jobs.get(video_id)) is not None:
            return self._wanted.announced(path)
        query = "SELECT announced_s, announced_frames FROM videos WHERE video_id = $id AND announced_s IS NOT NULL"
        for duration_s, frames in self._snapshot.rows(query, {"id": video_id}):
            return duration_s, frames
        return None

    def _outcomes(self, video_id: str) -> _Outcomes:
        query = "SELECT space, state, reason, plan, decode_mode FROM newest WHERE video_id = $id"
        known = {space: _Outcome(*outcome) for space, *outcome in self._snapshot.rows(query, {"id": video_id})}
        return [known.get(space) for space in self._wanted.plans]

    def _job(self, file: FoundFile, video_id: str, outcomes: _Outcomes) -> Job:
        """A job for the spaces that the content is not settled in."""
        in_videos = bool(self._snapshot.rows("SELECT 1 FROM videos WHERE video_id = $id LIMIT 1", {"id": video_id}))
        parts, pictures = [], []
        for (space, plan), outcome in zip(self._wanted.plans.items(), outcomes, strict=True):
            if outcome is None or not self._is_settled(outcome, plan):
                replaces = outcome is not None and outcome.state in ("ok", "partial")
                parts.append(Part(space, replaces, self._resume(self._unfinished.get((video_id, space)))))
        if in_videos or any((video_id, part.space) in self._unfinished for part in parts):  # others can't have any yet
            pictures = self._snapshot.rows("SELECT frame_pts FROM thumbnails WHERE video_id = $id", {"id": video_id})
        return Job(file, video_id, tuple(parts), in_videos, frozenset(tick for (tick,) in pictures))

    def _resume(self, attempt: Unfinished | None) -> Resume | None:
        """Clips are committed in order, so what is there of an attempt is its beginning."""
        if attempt is None or not self._wanted.resumable(attempt):
            return None
        [(n_done, last, end_s)] = self._snapshot.rows(
            f"SELECT count(*), max(clip_id), max(end_s) FROM {self._snapshot.all_clips(attempt.space)}"
            " WHERE clip_id >= $first AND clip_id < $stop",
            {"first": attempt.first_clip_id, "stop": attempt.first_clip_id + attempt.n_planned},
        )
        return Resume(attempt, n_done, end_s) if n_done and last == attempt.first_clip_id + n_done - 1 else None


_FOUND = """
WITH found AS (
    SELECT batch.number, files.size = batch.size AND files.mtime_ns = batch.mtime_ns AS same,
        files.state = 'present' AND files.device = batch.device AS current, files.video_id
    FROM batch JOIN files USING (path_bytes)
    WHERE files.state IN ('present', 'missing') AND files.video_id IS NOT NULL
), outcome AS (  -- as in the view `newest`, which would sort the contents of all files for each batch
    SELECT video_id, state, reason, plan, decode_mode FROM indexed
    WHERE space = $space AND video_id IN (SELECT video_id FROM found)
    QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY first_clip_id DESC) = 1
)
"""
_ROWS = """
SELECT number, same, current, found.video_id, state, reason, plan, decode_mode
FROM found LEFT JOIN outcome USING (video_id)
"""
_UNCHANGED = """
SELECT number FROM found JOIN outcome USING (video_id)
WHERE same AND current AND state = 'ok' AND (plan = $plan OR $any_plan)
    AND list_contains($modes, coalesce(decode_mode, 'exact'))
"""
