"""One child process a cut, killed when it falls silent or goes on without end."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

STALL_S = 60.0  # without a sign of life
_PATIENCE_S = 3600.0  # for the whole, and as in indexing ...
_SLOWEST = 60  # ... so many seconds for each of the file's
_POLL_S = 0.2
_LAST_WORDS_S = 5.0
_CRASHED = "the cutting process crashed"
COMMAND = [sys.executable, "-P", "-m", "vidx.export._cut_child"]


def run_job(job: dict[str, Any], length_s: float, stop: threading.Event) -> dict[str, Any]:
    """What the child made of a job (see `_cut_child`): `start_s`, `end_s` and `damage`, or the `reason` why it failed.

    `length_s` is that of the source. `stop` ends it early.
    """
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        said, reason = _watch(process, json.dumps(job).encode(), _PATIENCE_S + _SLOWEST * length_s, stop)
    finally:
        process.kill()
        process.wait()
    if reason is not None:
        return {"reason": reason}
    try:
        answer = json.loads(said.rsplit(b"\n", 1)[1])
        return answer if isinstance(answer, dict) else {"reason": _CRASHED}
    except (IndexError, ValueError):
        return {"reason": f"{_CRASHED} ({_ending(process.returncode)})"}


def _watch(
    process: subprocess.Popen[bytes], job: bytes, limit_s: float, stop: threading.Event
) -> tuple[bytes, str | None]:
    """All that the child said, and why it was not listened to further."""
    assert process.stdin is not None
    assert process.stdout is not None
    said, began = b"", time.monotonic()
    heard = began
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(job)
        while time.monotonic() - began < limit_s and not stop.is_set():
            if not selector.select(_POLL_S):
                if time.monotonic() - heard >= STALL_S:
                    return said, f"cutting made no progress for {STALL_S:g} s"
                continue
            block, heard = os.read(process.stdout.fileno(), 65536), time.monotonic()
            if not block:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LAST_WORDS_S)  # its pipe closes before it is gone with its own exit code
                return said, None
            said += block
    return said, "interrupted" if stop.is_set() else f"cutting did not end in {limit_s:.0f} s"


def _ending(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
