"""Decoding in child processes that can be killed, several at a time, watched for signs of life.

Each child is owned by one thread here, which feeds it jobs and passes its answers into one bounded queue. A full queue
blocks the thread, the pipe fills, the child waits: no stage runs ahead of the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from typing import IO, Any

import numpy as np

from vidx.indexer.plan import Windows
from vidx.indexer.probe import Found, Job, Settled
from vidx.indexer.walk import storable_mtime_ns
from vidx.schema.records import DecodedClip, FoundFile, Outcome, Preprocess, Video

_LAST_WORDS_S = 5.0
_QUEUE_LENGTH = 8  # answers waiting for the encoder; a clip is a few MB


@dataclass(frozen=True)
class DecodeOptions:
    """What every decode process is told."""

    decoder: str
    preprocess: Preprocess
    windows: Windows
    thumbnails: bool
    workers: int
    stall_s: float
    log: IO[bytes]


@dataclass(frozen=True)
class Opened:
    """A job's container facts, and how many clips its plan has."""

    job: Job
    video: Video
    n_clips: int


@dataclass(frozen=True)
class Clip:
    """One decoded clip of a job."""

    job: Job
    clip: DecodedClip


@dataclass(frozen=True)
class Ended:
    """The last answer of a job."""

    job: Job
    outcome: Outcome


Answer = Opened | Clip | Ended


def decode(found: Iterator[Found], options: DecodeOptions) -> Generator[Answer | Settled, None, None]:
    """Answers of all jobs, those of one job in order, those of different jobs mixed; all else passes through.

    Each job gives Opened and its Clips where the file can be used, and exactly one Ended in every case. An exception in
    `found` is raised here. Closing the iterator kills the children.
    """
    answers: queue.Queue[Any] = queue.Queue(_QUEUE_LENGTH)
    stop = threading.Event()
    source = _Source(found)
    threads = [
        threading.Thread(target=_serve, args=(source, options, answers, stop), daemon=True)
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
                yield answer
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):  # let blocked threads see `stop`
            with contextlib.suppress(queue.Empty):
                answers.get(timeout=0.05)


class _Source:
    """Lets several threads draw from one iterator."""

    def __init__(self, items: Iterator[Found]) -> None:
        self._items, self._lock = items, threading.Lock()

    def next(self) -> Found | None:
        """The next item, or None when there are no more."""
        with self._lock:
            return next(self._items, None)


def _serve(source: _Source, options: DecodeOptions, answers: queue.Queue[Any], stop: threading.Event) -> None:
    child: DecodeProcess | None = None
    try:
        while not stop.is_set() and (item := source.next()) is not None:
            if not isinstance(item, Job):
                answers.put(item)
                continue
            if child is None or not child.usable:
                child = DecodeProcess(options)
            for answer in child.run(item, stop):
                answers.put(answer)
    except BaseException as error:  # handed to the consumer, which raises it
        answers.put(error)
    finally:
        if child is not None:
            child.kill()
        answers.put(None)


class DecodeProcess:
    """One child. A job that crashes or stalls it ends as failed, and the child is dead."""

    def __init__(self, options: DecodeOptions) -> None:
        self._options = options
        job_read, job_write = os.pipe()
        answer_read, answer_write = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vidx.indexer.child", str(job_read), str(answer_write)],
            pass_fds=(job_read, answer_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=options.log,
        )
        os.close(job_read)
        os.close(answer_write)
        self._jobs = Connection(job_write, readable=False)
        self._answers = Connection(answer_read, writable=False)
        self.usable = True

    def run(self, job: Job, stop: threading.Event) -> Iterator[Answer]:
        """Answers of one job. Ends without an Ended only when `stop` is set."""
        try:
            self._jobs.send_bytes(json.dumps(self._message(job)).encode())
            video: Video | None = None
            while not stop.is_set():
                header, payloads = self._receive(stop)
                match header["kind"]:
                    case "opened":
                        video = Video(**{**header["facts"], "video_id": job.video_id})
                        yield Opened(job, video, header["n_clips"])
                    case "clip":
                        assert video is not None
                        yield Clip(job, _clip(header, payloads, video))
                    case "end":
                        outcome = Outcome(**{f.name: header[f.name] for f in fields(Outcome)})
                        yield Ended(job, _if_still_the_same(job.file, outcome))
                        return
        except _Stalled:
            self.kill()
            yield Ended(job, Outcome("failed", f"decoding made no progress for {self._options.stall_s:g} s"))
        except (EOFError, OSError, ValueError, KeyError, TypeError):  # gone, or talking nonsense
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS_S)  # its pipe closes before it is gone with its own exit code
            self.kill()
            yield Ended(job, Outcome("failed", f"the decoder crashed ({_signal_name(self._process.returncode)})"))

    def kill(self) -> None:
        """End the child at once, whatever it is doing."""
        self.usable = False
        self._process.kill()
        self._process.wait()
        self._jobs.close()
        self._answers.close()

    def _message(self, job: Job) -> dict[str, Any]:
        return {
            "path_hex": job.file.path_bytes.hex(),
            "decoder": self._options.decoder,
            "threads": max(1, (os.cpu_count() or 1) // self._options.workers),
            "windows": asdict(self._options.windows),
            "preprocess": asdict(self._options.preprocess),
            "thumbnails": self._options.thumbnails,
        }

    def _receive(self, stop: threading.Event) -> tuple[dict[str, Any], list[bytes]]:
        """The next message. Raises _Stalled; time spent waiting for the encoder does not count."""
        waited_s = 0.0
        while not self._answers.poll(min(0.5, self._options.stall_s)):
            waited_s += min(0.5, self._options.stall_s)
            if waited_s >= self._options.stall_s or stop.is_set():
                raise _Stalled
        with self._killed_after_stall():  # a message that has begun may never end
            header = json.loads(self._answers.recv_bytes())
            return header, [self._answers.recv_bytes() for _ in range(header["payloads"])]

    @contextlib.contextmanager
    def _killed_after_stall(self) -> Iterator[None]:
        """Kill the child, which unblocks a read from it, unless the body ends in time. Raises _Stalled then."""
        stalled = threading.Event()

        def end() -> None:
            stalled.set()
            self._process.kill()

        timer = threading.Timer(self._options.stall_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, OSError):
            if stalled.is_set():
                raise _Stalled from None
            raise
        finally:
            timer.cancel()


class _Stalled(Exception):
    pass


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


def _signal_name(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
