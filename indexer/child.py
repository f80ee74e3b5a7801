"""The decode process: takes one job at a time on a pipe, answers with facts, clips and one outcome.

Started as `python -m vidx.indexer.child READ_FD WRITE_FD`. It handles files that may crash, hang or grow it without
bound, so it holds nothing that matters: its parent may kill it at any instant. Headers travel as JSON and pixels as
plain bytes; nothing is unpickled from a process that a hostile file may have taken over.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vidx.decoders import OpenVideo
from vidx.errors import MediaError, NotVideo
from vidx.indexer.plan import Windows, plan
from vidx.plugins import load
from vidx.schema.records import Outcome, PlannedClip, Preprocess

_SIGN_OF_LIFE_S = 1.0
_PR_SET_PDEATHSIG = 1


def main(read_fd: int, write_fd: int) -> None:
    """Serve jobs until the parent closes the pipe."""
    _die_with_parent()
    jobs, answers = Connection(read_fd, writable=False), _Answers(Connection(write_fd, readable=False))
    while True:
        try:
            job = json.loads(jobs.recv_bytes())
        except EOFError:
            return
        _serve(job, answers)


def _serve(job: dict[str, Any], answers: _Answers) -> None:
    path = bytes.fromhex(job["path_hex"])
    preprocess = Preprocess(**job["preprocess"])
    decoder = load("decoders", job["decoder"])
    video: OpenVideo | None = None
    try:
        video = decoder.open_video(path, threads=job["threads"], alive=answers.alive)
        clips = plan(video.timeline, Windows(**job["windows"]))
        answers.send({"kind": "opened", "facts": asdict(video.facts), "n_clips": len(clips)})
        sent = 0
        for clip, pictures in _decode(video, clips, preprocess, job["thumbnails"]):
            _send_clip(answers, clip, pictures)
            sent += 1
        outcome = _outcome(video, sent, len(clips))
    except NotVideo as error:
        outcome = Outcome("not_video", str(error))
    except MediaError as error:
        outcome = Outcome("failed", str(error), 0.0)
    except OSError as error:
        outcome = Outcome("unreadable", f"can't be read: {error.strerror or error}")
    except MemoryError:
        outcome = Outcome("failed", "needs too much memory")
    finally:
        if video is not None:
            video.close()
    answers.send({"kind": "end", **asdict(replace(outcome, versions=decoder.VERSIONS))})


@dataclass(frozen=True)
class _Picture:
    """What is kept of a decoded frame; the frame itself may be 100 times larger."""

    tick: int
    pixels: np.ndarray
    thumbnail: bytes


def _decode(
    video: OpenVideo, clips: list[PlannedClip], preprocess: Preprocess, thumbnails: bool
) -> Iterator[tuple[PlannedClip, list[_Picture]]]:
    """Clips in order with their pictures, every frame decoded once although windows may overlap."""
    middles = {clip.ticks[len(clip.ticks) // 2] for clip in clips} if thumbnails else set()
    wanted = video.frames_at(sorted({tick for clip in clips for tick in clip.ticks}))
    held: dict[int, _Picture] = {}
    for clip in clips:
        held = {tick: picture for tick, picture in held.items() if tick >= clip.ticks[0]}
        while clip.ticks[-1] not in held:
            if (pair := next(wanted, None)) is None:
                return
            tick, shown = pair
            thumbnail = shown.thumbnail() if tick in middles else b""
            held[tick] = _Picture(shown.tick, shown.pixels(preprocess), thumbnail)
        yield clip, [held[tick] for tick in clip.ticks]


def _send_clip(answers: _Answers, clip: PlannedClip, pictures: list[_Picture]) -> None:
    middle = pictures[len(pictures) // 2]
    pixels = np.stack([picture.pixels for picture in pictures])
    header = {
        "kind": "clip",
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "frame_pts": [picture.tick for picture in pictures],
        "thumbnail_pts": middle.tick,
        "shape": pixels.shape,
    }
    answers.send(header, pixels.tobytes(), middle.thumbnail)


def _outcome(video: OpenVideo, sent: int, planned: int) -> Outcome:
    if sent == planned and video.damage is None:
        return Outcome("ok")
    reason = video.damage or f"decoding ended after {sent} of {planned} clips"
    return Outcome("partial" if sent else "failed", reason, video.first_bad_s)


class _Answers:
    """The way to the parent; `alive` keeps its watchdog quiet while there is nothing else to say."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()

    def send(self, header: dict[str, Any], *payloads: bytes) -> None:
        self._connection.send_bytes(json.dumps({**header, "payloads": len(payloads)}).encode())
        for payload in payloads:
            self._connection.send_bytes(payload)
        self._last = time.monotonic()

    def alive(self) -> None:
        if time.monotonic() - self._last >= _SIGN_OF_LIFE_S:
            self.send({"kind": "alive"})


def _die_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, even inside a decoder's endless loop."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main(int(sys.argv[1]), int(sys.argv[2]))
