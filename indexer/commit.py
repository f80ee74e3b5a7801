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
from vidx.indexer.answers import Ended, Opened
from vidx.indexer.attempts import Attempt, Work
from vidx.indexer.encode import EncodedClip
from vidx.indexer.jobs import Duplicate, Job, Known, Settled, UnreadableFile
from vidx.indexer.probe import STATES
from vidx.indexer.vanished import Vanished
from vidx.indexer.walk import Skipped
from vidx.schema.records import FoundFile, Outcome
from vidx.schema.unfinished import Unfinished
from vidx.schema.writer import Commit, StoreWriter

COUNTED = ("indexed", "linked", "unchanged", "failed", "partial", "not_video")  # disjoint; together: files


@dataclass(frozen=True)
class FileDone:
    """One file accounted for. `state` is one of COUNTED, `skipped` or `missing`."""

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
        """As in the `done` event: `files` is the sum of COUNTED; `skipped` and `missing` stand beside it."""
        states = {state: self.states[state] for state in COUNTED}
        beside = {state: self.states[state] for state in ("skipped", "missing")}
        return {"files": sum(states.values()), **states, **beside, "clips": self.clips}


class Committer:
    """Takes what the stages before it yield, in any mixture of jobs, and reports each file when it is accounted for."""

    def __init__(self, writer: StoreWriter, options: IndexOptions, provenance: Callable[[str], dict[str, Any]]) -> None:
        """`provenance` gives the columns of `indexed` that are the same for a whole run, by the name of the space."""
        self._writer, self._options, self._provenance = writer, options, provenance
        self._pending = Commit()
        self._last_commit = time.monotonic()
        self._work: dict[str, dict[str, Work]] = {}  # by video_id, then by the name of the space
        self._ended: dict[str, str] = {}  # contents of this run that duplicates may still ask for
        self._waiting: dict[str, list[FoundFile]] = defaultdict(list)
        self.counts = Counts()

    def take(self, item: Opened | EncodedClip | Ended | Settled | Vanished) -> list[FileDone]:
        """Account for one item; commits when enough has come together. Raises StoreError."""
        done = self._account(item)
        for file in done:
            self.counts.states[file.state] += 1
        due = time.monotonic() - self._last_commit >= self._options.commit_s
        if due or self._pending.n_clips >= self._options.commit_clips:
            self.flush()
        return done

    def flush(self) -> None:
        """Commit what is there. Clips of unfinished jobs go along: nobody sees them until their `indexed` row comes."""
        for work in (work for works in self._work.values() for work in works.values()):
            if work.attempts and work.attempts[-1].n_clips:
                self._note_unfinished(work, work.attempts[-1], resumable=not work.attempts[-1].damaged)
        pending, self._pending = self._pending, Commit()  # whatever happens, nothing is written twice
        if pending:
            with _uninterrupted():
                self._writer.commit(pending)
        self._last_commit = time.monotonic()

    def _account(self, item: Opened | EncodedClip | Ended | Settled | Vanished) -> list[FileDone]:
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
            case Vanished():
                return self._vanished(item)
            case Opened():
                self._open(item)
            case EncodedClip():
                self._clip(item)
            case Ended():
                return self._end(item)
        return []

    def _known(self, known: Known) -> FileDone:
        if not known.up_to_date:
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

    def _vanished(self, gone: Vanished) -> list[FileDone]:
        if gone.forget or gone.is_news:
            self._file_row(gone.file, gone.video_id, "forgotten" if gone.forget else "missing")
        return [] if gone.forget else [FileDone(gone.file.path, "missing", "not there now; still searchable")]

    def _open(self, opened: Opened) -> None:
        job = opened.job
        for work in self._work.setdefault(job.video_id, Work.of(job)).values():
            work.open(opened, self._writer.reserve_clip_ids)

    def _clip(self, clip: EncodedClip) -> None:
        """Keep a clip; those of a video go to the store in order, so that what is there of it is its beginning."""
        work = self._work[clip.job.video_id][clip.space]
        attempt = work.attempts[-1]
        if clip.number >= attempt.n_planned:
            raise IdsExhausted(f"{clip.job.file.path} gave more than the {attempt.n_planned} clips it was planned for")
        if clip.number >= attempt.n_clips:  # else an earlier run committed it, but not for another space
            attempt.ahead[clip.number] = clip
        while (ready := attempt.ahead.pop(attempt.n_clips, None)) is not None:
            self._store(work, attempt, ready)

    def _store(self, work: Work, attempt: Attempt, clip: EncodedClip) -> None:
        self._pending.clips.setdefault(clip.space, []).append(
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
        attempt.end_s, attempt.damaged = clip.end_s, attempt.damaged or clip.damaged
        if clip.thumbnail is not None and clip.thumbnail_pts not in work.pictures:
            work.pictures.add(clip.thumbnail_pts)
            key = {"video_id": clip.job.video_id, "frame_pts": clip.thumbnail_pts}
            self._pending.thumbnails.append({**key, "image": clip.thumbnail})

    def _end(self, ended: Ended) -> list[FileDone]:
        job = ended.job
        works = self._work.pop(job.video_id, None) or Work.of(job)
        settled = [(work, *work.settle(ended.outcome)) for work in works.values()]
        copies = self._waiting.pop(job.video_id, [])
        for work, outcome, attempt in settled:
            if attempt is not None and attempt.n_clips:
                resumable = outcome.state != "unreadable" and not attempt.damaged
                self._note_unfinished(work, attempt, resumable=resumable)
        if ended.outcome.state == "unreadable":  # the copies keep their rows: the next run takes one of them
            self._ended[job.video_id] = "unreadable"
            self._file_row(job.file, None, "unreadable", ended.outcome.reason)
            return [FileDone(file.path, "failed", ended.outcome.reason) for file in (job.file, *copies)]
        self._file_row(job.file, job.video_id, "present")
        hours = self._outcome_rows(job, settled)
        _, worst, _ = max(settled, key=lambda part: STATES.index(part[1].state))
        self._ended[job.video_id] = worst.state
        state = "indexed" if worst.state == "ok" else worst.state
        done = FileDone(job.file.path, state, worst.reason, hours)
        return [done, *(_copy_of(file, worst.state) for file in copies)]

    def _outcome_rows(self, job: Job, settled: list[tuple[Work, Outcome, Attempt | None]]) -> float:
        """The rows of a content that has come to an end; returns the hours of video in it that are newly indexed."""
        hours, facts = 0.0, None
        for work, outcome, attempt in settled:
            usable = attempt if outcome.state in ("ok", "partial") else None
            if usable is not None or not work.part.replaces:
                facts = attempt.video if attempt is not None else facts
                self._indexed_row(work, outcome, attempt, usable)
            if usable is not None:
                self.counts.clips += usable.n_clips
                hours = usable.video.duration_s / 3600
        if facts is not None and not job.in_videos:
            self._pending.videos.append(asdict(facts))
        return hours

    def _indexed_row(self, work: Work, outcome: Outcome, attempt: Attempt | None, usable: Attempt | None) -> None:
        self._pending.indexed.append(
            {
                **self._provenance(work.part.space),
                "video_id": work.job.video_id,
                "space": work.part.space,
                "state": outcome.state,
                "reason": outcome.reason,
                "first_bad_s": outcome.first_bad_s,
                "decoder": self._options.decoder if attempt is None else attempt.decoder,
                "decode_mode": self._options.decode_mode if attempt is None else attempt.mode,
                "versions": json.dumps(outcome.versions),
                "first_clip_id": self._writer.reserve_clip_ids(1) if attempt is None else attempt.first_clip_id,
                "n_clips": usable.n_clips if usable is not None else 0,
                "indexed_at": datetime.now(UTC),
            }
        )

    def _note_unfinished(self, work: Work, attempt: Attempt, *, resumable: bool) -> None:
        provenance = self._provenance(work.part.space)
        self._pending.unfinished.append(
            Unfinished(
                video_id=work.job.video_id,
                space=work.part.space,
                plan=provenance["plan"],
                decoder=attempt.decoder,
                decode_mode=attempt.mode,
                versions=attempt.versions,
                device=provenance["device"],
                precision=provenance["precision"],
                first_clip_id=attempt.first_clip_id,
                n_planned=attempt.n_planned,
                resumable=resumable,
            )
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
    """Hold Ctrl-C and SIGTERM back until the body is done: the tables it writes one after another belong together."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    asked: list[int] = []
    held = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _frame: asked.append(number)) for number in held]
    try:
        yield
    finally:
        for number, handler in zip(held, before, strict=True):
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
