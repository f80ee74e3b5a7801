"""Checked vectors to the store, in batches by time and size, and the account of every file."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from vidx.config import IndexOptions
from vidx.errors import IdsExhausted
from vidx.indexer.decode import Ended, Opened
from vidx.indexer.encode import EncodedClip
from vidx.indexer.probe import Duplicate, Job, Known, Settled, UnreadableFile
from vidx.indexer.walk import Skipped
from vidx.schema.records import FoundFile, Outcome, Video
from vidx.schema.writer import Commit, StoreWriter

COUNTED = ("indexed", "linked", "unchanged", "failed", "partial", "not_video")  # disjoint; together: files


@dataclass(frozen=True)
class FileDone:
    """One file accounted for. `state` is one of COUNTED or `skipped`."""

    path: str
    state: str
    reason: str | None = None
    hours: float = 0.0  # of video newly indexed


@dataclass
class Counts:
    """Running totals of a run."""

    states: Counter[str] = field(default_factory=Counter)
    clips: int = 0

    def as_dict(self) -> dict[str, int]:
        """As in the `done` event: `files` is the sum of COUNTED, `skipped` stands beside it."""
        states = {state: self.states[state] for state in COUNTED}
        return {"files": sum(states.values()), **states, "skipped": self.states["skipped"], "clips": self.clips}


@dataclass
class _Attempt:
    """A job whose clips are coming in."""

    first_clip_id: int
    n_planned: int
    video: Video | None = None
    n_clips: int = 0


class Committer:
    """Takes what the stages before it yield, in any mixture of jobs, and reports each file when it is accounted for."""

    def __init__(
        self,
        writer: StoreWriter,
        space: str,
        options: IndexOptions,
        provenance: Callable[[], dict[str, Any]],
        known_videos: Callable[[str], bool],
    ) -> None:
        """`provenance` gives the columns of `indexed` that are the same for a whole run, asked for on first use;
        `known_videos` tells whether the videos table already has a content."""
        self._writer, self._space, self._options = writer, space, options
        self._provenance, self._known_videos = provenance, known_videos
        self._pending = Commit()
        self._last_commit = time.monotonic()
        self._attempts: dict[str, _Attempt] = {}
        self._ended: dict[str, str] = {}  # contents of this run that duplicates may still ask for
        self._waiting: dict[str, list[FoundFile]] = defaultdict(list)
        self.counts = Counts()

    def take(self, item: Opened | EncodedClip | Ended | Settled) -> list[FileDone]:
        """Account for one item; commits when enough has come together. Raises StoreError."""
        done = self._account(item)
        for file in done:
            self.counts.states[file.state] += 1
        due = time.monotonic() - self._last_commit >= self._options.commit_s
        if due or len(self._pending.clips) >= self._options.commit_clips:
            self.flush()
        return done

    def flush(self) -> None:
        """Commit what is there. Clips of unfinished jobs go along: nobody sees them until their `indexed` row comes."""
        pending, self._pending = self._pending, Commit()  # whatever happens, nothing is written twice
        if pending:
            with _uninterrupted():
                self._writer.commit(self._space, pending)
        self._last_commit = time.monotonic()

    def _account(self, item: Opened | EncodedClip | Ended | Settled) -> list[FileDone]:
        match item:
            case Skipped():
                return [FileDone(item.path, "skipped", item.reason)]
            case UnreadableFile():
                self._file_row(item.file, None, "unreadable", item.reason)
                return [FileDone(item.file.path, "failed", item.reason)]
            case Known():
                return [self._known(item)]
            case Duplicate():
                return self._duplicate(item)
            case Opened():
                first = self._writer.reserve_clip_ids(item.n_clips)
                self._attempts[item.job.video_id] = _Attempt(first, item.n_clips, item.video)
            case EncodedClip():
                self._clip(item)
            case Ended():
                return self._end(item)
        return []

    def _known(self, known: Known) -> FileDone:
        if not known.unchanged:
            self._file_row(known.file, known.video_id, "present")
        if known.state == "ok":
            return FileDone(known.file.path, "unchanged" if known.unchanged else "linked")
        if known.state == "partial" and not known.unchanged:
            return FileDone(known.file.path, "linked", known.reason)
        return FileDone(known.file.path, known.state, known.reason)

    def _duplicate(self, duplicate: Duplicate) -> list[FileDone]:
        self._file_row(duplicate.file, duplicate.video_id, "present")
        if duplicate.video_id in self._ended:
            return [_copy_of(duplicate.file, self._ended[duplicate.video_id])]
        self._waiting[duplicate.video_id].append(duplicate.file)
        return []

    def _clip(self, clip: EncodedClip) -> None:
        attempt = self._attempts[clip.job.video_id]
        if attempt.n_clips == attempt.n_planned:
            raise IdsExhausted(f"{clip.job.file.path} gave more than the {attempt.n_planned} clips it was planned for")
        self._pending.clips.append(
            {
                "clip_id": attempt.first_clip_id + attempt.n_clips,
                "video_id": clip.job.video_id,
                "start_s": clip.start_s,
                "end_s": clip.end_s,
                "frame_pts": clip.frame_pts,
                "frame_pts_s": clip.frame_pts_s,
                "vector": clip.vector,
            }
        )
        attempt.n_clips += 1
        if clip.thumbnail is not None:
            key = {"video_id": clip.job.video_id, "frame_pts": clip.thumbnail_pts}
            self._pending.thumbnails.append({**key, "image": clip.thumbnail})

    def _end(self, ended: Ended) -> list[FileDone]:
        job, outcome = ended.job, ended.outcome
        attempt = self._attempts.pop(job.video_id, None) or _Attempt(self._writer.reserve_clip_ids(1), 0)
        copies = self._waiting.pop(job.video_id, [])
        self._ended[job.video_id] = outcome.state
        if outcome.state == "unreadable":  # the copies keep their rows: the next run takes one of them
            self._file_row(job.file, None, "unreadable", outcome.reason)
            return [FileDone(file.path, "failed", outcome.reason) for file in (job.file, *copies)]
        self._file_row(job.file, job.video_id, "present")
        usable = outcome.state in ("ok", "partial")
        if usable or not job.replaces:
            self._indexed_row(job, outcome, attempt)
        self.counts.clips += attempt.n_clips if usable else 0
        hours = attempt.video.duration_s / 3600 if usable and attempt.video else 0.0
        state = "indexed" if outcome.state == "ok" else outcome.state
        done = FileDone(job.file.path, state, outcome.reason, hours)
        return [done, *(_copy_of(file, outcome.state) for file in copies)]

    def _indexed_row(self, job: Job, outcome: Outcome, attempt: _Attempt) -> None:
        if attempt.video is not None and not self._known_videos(job.video_id):
            self._pending.videos.append(asdict(attempt.video))
        self._pending.indexed.append(
            {
                **self._provenance(),
                "video_id": job.video_id,
                "space": self._space,
                "state": outcome.state,
                "reason": outcome.reason,
                "first_bad_s": outcome.first_bad_s,
                "versions": json.dumps(outcome.versions),
                "first_clip_id": attempt.first_clip_id,
                "n_clips": attempt.n_clips if outcome.state in ("ok", "partial") else 0,
                "indexed_at": datetime.now(UTC),
            }
        )

    def _file_row(self, file: FoundFile, video_id: str | None, state: str, reason: str | None = None) -> None:
        self._pending.files.append(
            {
                "root": file.root,
                "path": file.path,
                "path_bytes": file.path_bytes,
                "size": file.size_bytes,
                "mtime_ns": file.mtime_ns,
                "device": file.device,
                "video_id": video_id,
                "state": state,
                "reason": reason,
            }
        )


def _copy_of(file: FoundFile, state: str) -> FileDone:
    """A copy of usable content counts as linked, of any other as what the content is."""
    counted = {"ok": "linked", "partial": "linked", "unreadable": "failed"}.get(state, state)
    return FileDone(file.path, counted, "same content as another file")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the body is done: tables are written one after another, and belong together."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
