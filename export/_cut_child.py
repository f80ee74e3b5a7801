"""The process that makes one cut: reads a job, writes a byte now and then while it works, and last what came of it.

Started as `python -m vidx.export._cut_child`, with the job as JSON on standard input. It handles files that may crash
or hang it, so it holds nothing that matters: its parent may kill it at any instant.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import Any

import av

from vidx.errors import MediaError, Unreadable
from vidx.export._cut_copy import copy_packets
from vidx.export._cut_encode import encode_frames
from vidx.export._cut_source import Source
from vidx.plugins import load

_MEMORY_BYTES = 4 * 2**30
_SIGN_OF_LIFE_S = 1.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Make one cut; the answer's last line has its true times, or the reason why there is none."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody else would stop an endless decoder
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    job = json.load(sys.stdin)
    try:
        answer = _cut(job)
    except MediaError as error:
        answer = {"reason": str(error)}
    except MemoryError:
        answer = {"reason": "cutting needs more memory than it may have"}
    except av.error.FFmpegError as error:
        answer = {"reason": f"cutting: {error.strerror or error}"}
    except OSError as error:
        answer = {"reason": f"can't be read or written: {error.strerror or error}"}
    os.write(sys.stdout.fileno(), b"\n" + json.dumps(answer).encode())


def _cut(job: dict[str, Any]) -> dict[str, Any]:
    path, alive = bytes.fromhex(job["path_hex"]), _SignOfLife()
    video = load("decoders", "pyav").open_video(path, threads=job["threads"], alive=alive)
    try:
        source = Source(path, video, job["start_s"], job["end_s"], job["threads"], alive)
        if not len(source.ticks):
            raise Unreadable("no frame begins between start and end")
        write = copy_packets if job["copy"] else encode_frames
        start_s, end_s = write(source, os.fsdecode(bytes.fromhex(job["out_hex"])))
        is_hurt = video.first_bad_s is not None and video.first_bad_s < job["end_s"]
        return {"start_s": start_s, "end_s": end_s, "damage": video.damage if is_hurt else None}
    finally:
        video.close()


class _SignOfLife:
    """Keeps the parent's watchdog quiet."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last >= _SIGN_OF_LIFE_S:
            os.write(sys.stdout.fileno(), b".")
            self._last = time.monotonic()


if __name__ == "__main__":
    main()
