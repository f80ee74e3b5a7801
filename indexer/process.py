"""One decode process that can be killed, watched for signs of life, for endless work and for memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

from vidx.schema.records import Preprocess

_LAST_WORDS_S = 5.0
_POLL_S = 0.5
_PATIENCE_S = 3600.0  # of work on a file whose length is not known yet
_THRIFT = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}  # address space that grows with the number of cores
_MOST_THREADS = 16  # of one decoder; more bring it nothing, and each holds pictures
_SLOWEST = 60  # seconds of work that a second of video may take: far beyond what any codec needs


@dataclass(frozen=True)
class Limits:
    """What a decode process may take."""

    stall_s: float = 60.0  # without a sign of life
    memory_bytes: int = 4 * 2**30


class NoAnswer(Exception):
    """A decoder gives no account of a file, which another one may; says why."""


class ProcessDied(NoAnswer):
    """The process crashed, or was killed for going on without end."""


class Refused(NoAnswer):
    """The decoder may get this file wrong. Its process is as good as before."""


class DecodeProcess:
    """One child, for one job after another. A job that crashes or stalls it leaves it not `usable`."""

    def __init__(self, limits: Limits, log: IO[bytes] | None) -> None:
        self._limits = limits
        job_read, job_write = os.pipe()
        answer_read, answer_write = os.pipe()
        command = ["vidx.indexer.child", str(job_read), str(answer_write), str(limits.memory_bytes)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", *command],
            pass_fds=(job_read, answer_write),
            env={**os.environ, **_THRIFT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log if log is not None else subprocess.DEVNULL,
        )
        os.close(job_read)
        os.close(answer_write)
        self._jobs = Connection(job_write, readable=False)
        self._answers = Connection(answer_read, writable=False)
        self.usable = True

    def answers(
        self, job: dict[str, Any], stop: threading.Event | None = None
    ) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        """Headers and payloads of one job, the last of kind `end`; ends early only when `stop` is set.

        Raises NoAnswer. See `vidx.indexer.child` for the messages.
        """
        limit_s, worked_s = _PATIENCE_S, 0.0
        try:
            self._jobs.send_bytes(json.dumps(job).encode())
            while True:
                worked_s += self._wait(stop)
                if stop is not None and stop.is_set():
                    return
                header, payloads = self._receive()
                if header["kind"] == "gave up":
                    raise _Killed(header["reason"])
                if header["kind"] == "refused":
                    raise Refused(header["reason"])
                if "facts" in header:  # also with the sign of life before shots are looked for
                    limit_s = _PATIENCE_S + _SLOWEST * float(header["facts"]["duration_s"])
                if worked_s > limit_s:
                    raise _Killed(f"decoding did not end in {limit_s:.0f} s")
                if header["kind"] != "alive":
                    yield header, payloads
                if header["kind"] == "end":
                    return
        except _Killed as error:
            self.kill()
            raise ProcessDied(str(error)) from None
        except (EOFError, OSError, ValueError, KeyError, TypeError):  # gone, or talking nonsense
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS_S)  # its pipe closes before it is gone with its own exit code
            self.kill()
            raise ProcessDied(f"the decoder crashed ({_ending(self._process.returncode)})") from None

    def kill(self) -> None:
        """End the child at once, whatever it is doing."""
        self.usable = False
        self._process.kill()
        self._process.wait()
        self._jobs.close()
        self._answers.close()

    def _wait(self, stop: threading.Event | None) -> float:
        """Seconds until something came; time spent waiting for the encoder does not count. Raises _Killed."""
        began, poll_s = time.monotonic(), min(_POLL_S, self._limits.stall_s)
        while not self._answers.poll(poll_s):
            if stop is not None and stop.is_set():
                break
            if time.monotonic() - began >= self._limits.stall_s:
                raise self._stalled()
        return time.monotonic() - began

    def _receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message; one that has begun may never end, so the child is killed then. Raises _Killed."""
        stalled = threading.Event()

        def end() -> None:
            stalled.set()
            self._process.kill()

        timer = threading.Timer(self._limits.stall_s, end)
        timer.daemon = True
        timer.start()
        try:
            header = json.loads(self._answers.recv_bytes())
            return header, [self._answers.recv_bytes() for _ in range(header["payloads"])]
        except (EOFError, OSError):
            if stalled.is_set():
                raise self._stalled() from None
            raise
        finally:
            timer.cancel()

    def _stalled(self) -> _Killed:
        return _Killed(f"decoding made no progress for {self._limits.stall_s:g} s")


class HeaderReader:
    """Reads what containers announce, in a process that is kept from one file to the next."""

    def __init__(self, limits: Limits, log: IO[bytes]) -> None:
        self._limits, self._log = limits, log
        self._process: DecodeProcess | None = None

    def announced(self, path_bytes: bytes) -> tuple[float, int] | None:
        """Duration in seconds and number of frames, 0 for unknown; None where the header can't be read."""
        for _ in range(2):  # a process ends with the thread that started it, so an old one may just be gone
            if self._process is None or not self._process.usable:
                self._process = DecodeProcess(self._limits, self._log)
            try:
                (header, _), *_ = self._process.answers({"kind": "announced", "path_hex": path_bytes.hex()})
                return (header["duration_s"], header["frames"]) if header["kind"] == "announced" else None
            except ProcessDied:
                continue
        return None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()


def job_message(
    path_bytes: bytes,
    asked: dict[str, Any],
    decoder: str,
    views: Sequence[Preprocess],
    *,
    mode: str = "exact",
    thumbnails: bool,
    threads: int,
) -> dict[str, Any]:
    """A job for `DecodeProcess.answers`; `asked` has its `kind`, one of those of `vidx.indexer.child`, and
    what belongs to that.

    Each clip comes once for each of the `views`; windows are given for each of them.
    """
    return {
        **asked,
        "path_hex": path_bytes.hex(),
        "decoder": decoder,
        "mode": mode,
        "threads": min(threads, _MOST_THREADS),
        "views": [asdict(preprocess) for preprocess in views],
        "thumbnails": thumbnails,
    }


class _Killed(Exception):
    pass


def _ending(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
