"""Decoding in several child processes at a time.

Each child is owned by one thread here, which feeds it jobs and passes its answers into one bounded queue. A full queue
blocks the thread, the pipe fills, the child waits: no stage runs ahead of the next.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, fields
from typing import IO, Any

import numpy as np

from vidx.indexer.plan import Windows
from vidx.indexer.probe import Found, Job, Known, Settled
from vidx.indexer.process import DecodeProcess, Limits, ProcessDied, job_message
from vidx.indexer.split import RANGE_CLIPS, Pool, Split
from vidx.indexer.walk import storable_mtime_ns
from vidx.schema.records import DecodedClip, FoundFile, Outcome, Preprocess, Video

_TOGETHER = 1000  # unchanged files passed from thread to thread at once: one by one, that costs more than all else
_QUEUE_LENGTH = 8  # answers waiting for the encoder; a clip is a few MB


@dataclass(frozen=True)
class DecodeOptions:
    """What every decode process is told. A file that kills a process of one decoder is tried with the next."""

    decoders: tuple[str, ...]
    preprocess: Preprocess
    windows: Windows
    thumbnails: bool
    workers: int
    limits: Limits
    log: IO[bytes]
    mode: str = "exact"  # or fast, or keyframes
    share: bool = True  # long videos between workers; then their clips come in any order


@dataclass(frozen=True)
class Opened:
    """A job's container facts, and how many clips its plan has; the first `skipped` of them are in the store already.

    A second one for the same job means that it is decoded anew, and what came before does not count.
    """

    job: Job
    video: Video
    n_clips: int
    skipped: int
    decoder: str
    versions: dict[str, str]
    mode: str = "exact"  # that it was decoded in
    stop: int | None = None  # the first clip that this answer's clips leave to others; None: they are all


@dataclass(frozen=True)
class Clip:
    """Clip `number` of a job's plan, decoded; `damaged` if damage was met in the video before its end."""

    job: Job
    clip: DecodedClip
    damaged: bool
    number: int


@dataclass(frozen=True)
class Ended:
    """The last answer of a job."""

    job: Job
    outcome: Outcome


Answer = Opened | Clip | Ended


def decode(found: Iterator[Found], options: DecodeOptions) -> Generator[Answer | Settled, None, None]:
    """Answers of all jobs, those of different jobs mixed; all else passes through.

    Each job gives Opened and its Clips where the file can be used, and exactly one Ended in every case, in this order;
    the clips of a long video may come in any order. An exception in
    `found` is raised here. Closing the iterator kills the children.
    """
    answers: queue.Queue[Any] = queue.Queue(_QUEUE_LENGTH)
    stop = threading.Event()
    source, pool = _Source(found), Pool(stop)
    threads = [
        threading.Thread(target=_serve, args=(source, pool, options, answers, stop), daemon=True)
        for _ in range(options.workers)
    ]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            answer = answers.get()
            if answer is None:
                running -= 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                yield from answer
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):  # let blocked threads see `stop`
            with contextlib.suppress(queue.Empty):
                answers.get(timeout=0.05)


class _Source:
    """Lets several threads draw from one iterator."""

    def __init__(self, items: Iterator[Found]) -> None:
        self._items, self._lock = items, threading.Lock()

    def next(self) -> list[Found]:
        """The next items, none when there are no more: files of which nothing was read together, one other at most."""
        taken: list[Found] = []
        with self._lock:
            for item in self._items:
                taken.append(item)
                if len(taken) == _TOGETHER or not (isinstance(item, Known) and item.up_to_date):
                    break
        return taken


def _serve(
    source: _Source, pool: Pool, options: DecodeOptions, answers: queue.Queue[Any], stop: threading.Event
) -> None:
    worker = _Worker(options, pool, stop)
    try:
        while not stop.is_set() and (items := source.next()):
            if settled := [item for item in items if not isinstance(item, Job)]:
                answers.put(settled)
            if isinstance(items[-1], Job):
                for answer in worker.run(items[-1]):
                    answers.put([answer])
        while (claimed := pool.help()) is not None:
            for answer in worker.help(*claimed):
                answers.put([answer])
    except BaseException as error:  # handed to the consumer, which raises it
        answers.put(error)
    finally:
        worker.close()
        answers.put(None)


@dataclass(frozen=True)
class _Part:
    """A range of a job's clips from `first` on; None: from where an earlier run left off."""

    first: int | None


class _Worker:
    """Runs jobs in one child process, and in a new one where that died."""

    def __init__(self, options: DecodeOptions, pool: Pool, stop: threading.Event) -> None:
        self._options, self._pool, self._stop = options, pool, stop
        self._process: DecodeProcess | None = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()

    def run(self, job: Job) -> Iterator[Answer]:
        """Answers of one job. Ends without an Ended only when `stop` is set."""
        self._pool.begin()
        try:
            yield from self._run(job)
        finally:
            self._pool.end()

    def help(self, split: Split, first: int) -> Iterator[Answer]:
        """The clips of one range of a job that another worker runs; they are its own, whatever comes of it."""
        is_right = False
        try:
            for answer in self._answers(split.job, split.decoder, _Part(first)):
                if isinstance(answer, Clip):
                    yield answer
                elif isinstance(answer, Ended):
                    is_right = answer.outcome.state == "ok"
        except ProcessDied:
            pass  # its owner decodes the video anew, and tells
        finally:
            split.done(is_right=is_right)

    def _run(self, job: Job) -> Iterator[Answer]:
        deaths: dict[str, str] = {}
        for decoder in self._options.decoders:
            try:
                if not (yield from self._shared(job, decoder)):
                    yield from self._answers(job, decoder)
                return
            except ProcessDied as death:
                deaths[decoder] = str(death)
        reason = "; ".join(f"{decoder}: {death}" for decoder, death in deaths.items())
        yield Ended(job, _if_still_the_same(job.file, Outcome("failed", reason, 0.0)))

    def _shared(self, job: Job, decoder: str) -> Generator[Answer, None, bool]:
        """Answers of a job that others may help with; False if that went wrong, and it must be begun anew alone.

        Raises ProcessDied where it died over the first range.
        """
        stop: int | None = None
        for answer in self._answers(job, decoder, _Part(None) if self._options.share else None):
            if isinstance(answer, Opened):
                opened, stop = answer, answer.stop
            if isinstance(answer, Ended) and stop is not None:
                break
            yield answer
        else:
            return True
        if answer.outcome.state != "ok":
            return False
        split = Split(job, decoder, opened.n_clips, stop)
        self._pool.share(split)
        while (first := split.claim()) is not None:
            yield from self.help(split, first)
        self._pool.take_back(split)
        if not split.wait():
            return self._stop.is_set()
        yield Ended(job, _if_still_the_same(job.file, answer.outcome))
        return True

    def _answers(self, job: Job, decoder: str, part: _Part | None = None) -> Iterator[Answer]:
        """What one decoder makes of a job, or of a part of it. Raises ProcessDied."""
        if self._process is None or not self._process.usable:
            self._process = DecodeProcess(self._options.limits, self._options.log)
        video: Video | None = None
        for header, payloads in self._process.answers(self._message(job, decoder, part), self._stop):
            try:
                answer = _read(job, decoder, header, payloads, video)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                self._process.kill()
                raise ProcessDied("the decoder talked nonsense") from error
            if isinstance(answer, Opened):
                video = answer.video
            yield answer

    def _message(self, job: Job, decoder: str, part: _Part | None) -> dict[str, Any]:
        options = self._options
        asked: dict[str, Any] = {"kind": "windows", "windows": asdict(options.windows)}
        if part is not None:
            asked["part"] = {"first": part.first, "clips": RANGE_CLIPS}
        if job.resume is not None and job.resume.attempt.decoder == decoder:
            attempt = job.resume.attempt
            asked["resume"] = {
                "n_done": job.resume.n_done,
                "n_planned": attempt.n_planned,
                "versions": attempt.versions,
            }
        threads = max(1, (os.cpu_count() or 1) // options.workers)
        return job_message(
            job.file.path_bytes,
            asked,
            decoder,
            options.preprocess,
            mode=options.mode,
            thumbnails=options.thumbnails,
            threads=threads,
        )


def _read(job: Job, decoder: str, header: dict[str, Any], payloads: list[bytes], video: Video | None) -> Answer:
    """One message of a child. Raises ValueError, KeyError, TypeError or IndexError for one that makes no sense."""
    match header["kind"]:
        case "opened":
            facts = Video(**{**header["facts"], "video_id": job.video_id})
            return Opened(
                job,
                facts,
                header["n_clips"],
                header["skipped"],
                decoder,
                header["versions"],
                header["mode"],
                header["stop"],
            )
        case "clip":
            if video is None:
                raise ValueError("a clip of a video that was not opened")
            return Clip(job, _clip(header, payloads, video), header["damaged"], header["number"])
        case "end":
            outcome = Outcome(**{f.name: header[f.name] for f in fields(Outcome)})
            return Ended(job, _if_still_the_same(job.file, outcome))
    raise ValueError(f"unknown message {header['kind']}")


def _if_still_the_same(file: FoundFile, outcome: Outcome) -> Outcome:
    """What was decoded belongs to the content's fingerprint only if the file did not change meanwhile."""
    try:
        facts = os.stat(file.path_bytes)
    except OSError as error:
        return Outcome("unreadable", f"gone while it was read: {error.strerror}")
    if (facts.st_size, storable_mtime_ns(facts)) != (file.size_bytes, file.mtime_ns):
        return Outcome("unreadable", "changed while it was read; index again when it is finished")
    return outcome


def _clip(header: dict[str, Any], payloads: list[bytes], video: Video) -> DecodedClip:
    def seconds(tick: int) -> float:
        return tick * video.time_base_num / video.time_base_den - video.time_origin_s

    return DecodedClip(
        start_s=header["start_s"],
        end_s=header["end_s"],
        frame_pts=tuple(header["frame_pts"]),
        frame_pts_s=tuple(seconds(tick) for tick in header["frame_pts"]),
        pixels=np.frombuffer(payloads[0], np.uint8).reshape(header["shape"]),
        thumbnail=payloads[1] or None,
        thumbnail_pts=header["thumbnail_pts"],
    )
