"""The decode process: takes one job at a time on a pipe, answers with facts, clips and one outcome.

Started as `python -m vidx.indexer.child READ_FD WRITE_FD MEMORY_BYTES`. It handles files that may crash, hang or grow
it without bound, so it holds nothing that matters: its parent may kill it at any instant. Headers travel as JSON and
pixels as plain bytes; nothing is unpickled from a process that a hostile file may have taken over.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from vidx.decoders import OpenVideo, announced
from vidx.errors import MediaError, NotTrusted, NotVideo
from vidx.indexer.answer_pipe import AnswerPipe
from vidx.indexer.fingerprint import WHOLE_BYTES
from vidx.indexer.plan import Windows, plan, window_at
from vidx.indexer.sampling import Sampling
from vidx.indexer.shots import cuts, detector_version, mode_to_look, plan_shots
from vidx.plugins import load
from vidx.schema.records import Outcome, PlannedClip, Preprocess, Video

_PR_SET_PDEATHSIG = 1
_TOO_MUCH_MEMORY = "decoding needs more memory than it may have"

_Views = tuple[PlannedClip, ...]  # one clip as each space of the job sees it, all of the same span


def main(read_fd: int, write_fd: int, memory_bytes: int) -> None:
    """Serve jobs until the parent closes the pipe."""
    _die_with_parent()
    if sys.platform == "linux":  # others don't hold to it
        # Address space, not resident memory: an allocation beyond it is refused, and the decoder can say so.
        # The hard limit stays: a decoder whose libraries map memory that they never touch may have to add that.
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    jobs, answers = Connection(read_fd, writable=False), AnswerPipe(Connection(write_fd, readable=False))
    held = _Held()
    while True:
        try:
            job = json.loads(jobs.recv_bytes())
        except EOFError:
            return
        _serve(job, answers, held)


@dataclass
class _Held:
    """The video that parts were asked of last, left open for more of them."""

    key: tuple[Any, ...] = ()
    video: OpenVideo | None = None

    def take(self, key: tuple[Any, ...]) -> OpenVideo | None:
        """The video if it is that of `key`; else it is closed. It is not held any more."""
        video, self.video = self.video, None
        if video is not None and key != self.key:
            video.close()
            video = None
        self.key = key
        return video


def _serve(job: dict[str, Any], answers: AnswerPipe, held: _Held) -> None:
    path = bytes.fromhex(job["path_hex"])
    video = held.take(_key_of(path, job))
    versions: dict[str, str] = {}
    try:
        if job["kind"] == "announced":
            duration_s, frames = announced(path)
            answers.send({"kind": "announced", "duration_s": duration_s, "frames": frames})
            outcome = Outcome("ok")
        else:
            decoder = load("decoders", job["decoder"])
            versions = decoder.VERSIONS
            if job["kind"] == "windows" and job["windows"][0]["segment"] == "shots":
                versions = versions | detector_version()
            if video is None:
                video = decoder.open_video(path, threads=job["threads"], mode=job["mode"], alive=answers.alive)
            look = partial(decoder.open_video, path, threads=job["threads"], alive=answers.alive)
            clips = _planned(job, video, look, answers)
            outcome = _decode_clips(job, video, clips, versions, answers)
            if "part" in job and outcome.state == "ok":
                held.video, video = video, None
    except NotVideo as error:
        outcome = Outcome("not_video", str(error))
    except NotTrusted as error:
        answers.send({"kind": "refused", "reason": str(error)})
        return
    except MediaError as error:
        outcome = Outcome("failed", str(error), 0.0)
    except MemoryError:
        outcome = Outcome("failed", _TOO_MUCH_MEMORY)
    except OSError as error:
        outcome = Outcome("unreadable", f"can't be read: {error.strerror or error}")
    finally:
        if video is not None:
            video.close()
    if outcome.reason == _TOO_MUCH_MEMORY or (outcome.state in ("failed", "partial") and _memory_is_short()):
        answers.send({"kind": "gave up", "reason": _TOO_MUCH_MEMORY})
        return
    answers.send({"kind": "end", **asdict(replace(outcome, versions=versions))})


def _key_of(path: bytes, job: dict[str, Any]) -> tuple[Any, ...]:
    """What makes an open video the one that a job is about."""
    try:
        facts = os.stat(path)
    except OSError:  # which opening it will say
        return ()
    return path, facts.st_size, facts.st_mtime_ns, job.get("decoder"), job.get("mode")


def _memory_is_short() -> bool:
    """Whether memory may be what a file failed for: decoders call a refused allocation damage, too."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return False
    [peak_kib] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmPeak" in line]
    return int(peak_kib) * 1024 > limit / 2


def _planned(
    job: dict[str, Any], video: OpenVideo, look: Callable[..., OpenVideo], answers: AnswerPipe
) -> list[_Views]:
    """The clips a job asks for: all windows or shots of a video, one around an instant, or frames by index or by tick;
    or as a model takes them around each of several instants.

    Shots are looked for in a second opening of the file, so that damage counts where clips are decoded.
    """
    line = video.timeline
    match job["kind"]:
        case "windows":
            views = [Windows(**windows) for windows in job["windows"]]
            if views[0].segment == "windows":
                return list(zip(*(plan(line, windows) for windows in views), strict=True))
            answers.send({"kind": "alive", "facts": {"duration_s": video.facts.duration_s}})
            with contextlib.closing(look(mode=mode_to_look(video.facts))) as looked_at:
                found = cuts(looked_at)
            return list(zip(*(plan_shots(line, found, windows) for windows in views), strict=True))
        case "at":
            return [(window_at(line, job["at_s"], job["clip_s"], job["frames"]),)]
        case "sampled":
            samplings = [Sampling(**sampling) for sampling in job["samplings"]]
            return [tuple(each.planned(each.indices(video.facts), video.facts, line) for each in samplings)]
        case "around":
            each = Sampling(**job["sampling"])
            around = [each.indices_around(video.facts, at_s) for at_s in job["instants"]]
            return [(each.planned(indices, video.facts, line),) for indices in around]
    return [(PlannedClip(0.0, 0.0, tuple(job["ticks"])),)]


def _n_done(job: dict[str, Any], versions: dict[str, str], n_planned: int) -> int:
    """How many clips an earlier run has committed that this process would make again just the same."""
    resume = job.get("resume")
    return resume["n_done"] if resume and (resume["versions"], resume["n_planned"]) == (versions, n_planned) else 0


def _decode_clips(
    job: dict[str, Any], video: OpenVideo, clips: list[_Views], versions: dict[str, str], answers: AnswerPipe
) -> Outcome:
    """Send all clips but those done already; or all of them after all, where the rest turns out to be damaged.

    What damage does to a frame may hang on the frames decoded before it, so a damaged video is decoded in one go. Of a
    sound video a part may be asked for.
    """
    sizes = [Preprocess(**preprocess) for preprocess in job["views"]]
    found_on_opening = video.damage
    facts = asdict(_with_announced(video.facts, bytes.fromhex(job["path_hex"])))
    how = {"facts": facts, "n_clips": len(clips), "mode": video.mode, "versions": versions}
    done = _n_done(job, versions, len(clips))
    part = _part(job.get("part"), video, len(clips), done)
    for skipped, stop in (part,) if part else ((done, len(clips)), (0, len(clips))):
        answers.send({"kind": "opened", "skipped": skipped, "stop": stop if part else None, **how})
        sent = skipped
        for clip, pictures in _decode(video, clips[skipped:stop], sizes, job["thumbnails"]):
            _send_clip(answers, sent, clip, pictures, sizes, damaged=video.damage != found_on_opening)
            sent += 1
        if skipped == 0 or video.damage == found_on_opening:
            break
    return _outcome(video, clips[:stop], sent)


def _part(asked: dict[str, Any] | None, video: OpenVideo, n_clips: int, done: int) -> tuple[int, int] | None:
    """The range of clips asked for; None where the video is to be decoded in one go, or a part would be the rest."""
    if asked is None:
        return None
    first, clips = asked["first"], asked["clips"]
    if first is not None:
        return first, min(first + clips, n_clips)
    may_be_shared = video.in_parts and video.damage is None and n_clips - done > 2 * clips
    return (done, done + clips) if may_be_shared else None


def _with_announced(facts: Video, path: bytes) -> Video:
    """Of large files, whose fingerprint is a sample, keep what tells them apart where that is equal."""
    if facts.size_bytes <= WHOLE_BYTES:
        return facts
    duration_s, frames = announced(path)
    return replace(facts, announced_s=duration_s, announced_frames=frames)


@dataclass(frozen=True)
class _Picture:
    """What is kept of a decoded frame; the frame itself may be 100 times larger."""

    tick: int
    pixels: dict[Preprocess, np.ndarray]
    thumbnail: bytes


def _decode(
    video: OpenVideo, clips: list[_Views], sizes: list[Preprocess], thumbnails: bool
) -> Iterator[tuple[_Views, list[list[_Picture]]]]:
    """Clips in order with the pictures of each view, every frame decoded once although views and windows overlap."""
    middles = {view.ticks[len(view.ticks) // 2] for clip in clips for view in clip} if thumbnails else set()
    needed: dict[Preprocess, set[int]] = defaultdict(set)
    for clip in clips:
        for view, size in zip(clip, sizes, strict=True):
            needed[size].update(view.ticks)
    wanted = video.frames_at(sorted(set().union(*needed.values())))
    held: dict[int, _Picture] = {}
    latest: _Picture | None = None
    for clip in clips:
        first, last = min(view.ticks[0] for view in clip), max(view.ticks[-1] for view in clip)
        held = {tick: picture for tick, picture in held.items() if tick >= first}
        while last not in held:
            if (pair := next(wanted, None)) is None:
                return
            tick, shown = pair
            is_again = latest is not None and shown.tick == latest.tick  # as key frames often are
            pixels = latest.pixels if latest is not None and is_again else {}
            missing = [size for size, ticks in needed.items() if tick in ticks and size not in pixels]
            pixels = pixels | {size: shown.pixels(size) for size in missing}
            held[tick] = latest = _Picture(shown.tick, pixels, shown.thumbnail() if tick in middles else b"")
        yield clip, [[held[tick] for tick in view.ticks] for view in clip]


def _send_clip(
    answers: AnswerPipe,
    number: int,
    clip: _Views,
    pictures: list[list[_Picture]],
    sizes: list[Preprocess],
    *,
    damaged: bool,
) -> None:
    views, payloads = [], []
    for shown, size in zip(pictures, sizes, strict=True):
        middle = shown[len(shown) // 2]
        pixels = np.stack([picture.pixels[size] for picture in shown])
        ticks = [picture.tick for picture in shown]
        views.append({"frame_pts": ticks, "thumbnail_pts": middle.tick, "shape": pixels.shape})
        payloads += [pixels.tobytes(), middle.thumbnail]
    span = {"start_s": clip[0].start_s, "end_s": clip[0].end_s}
    answers.send({"kind": "clip", "number": number, **span, "damaged": damaged, "views": views}, *payloads)


def _outcome(video: OpenVideo, clips: list[_Views], sent: int) -> Outcome:
    if sent == len(clips) and video.damage is None:
        return Outcome("ok")
    first_missing_s = clips[min(sent, len(clips) - 1)][0].start_s
    return Outcome(
        "partial" if sent else "failed",
        video.damage or f"decoding ended after {sent} of {len(clips)} clips",
        video.first_bad_s if video.first_bad_s is not None else first_missing_s,
    )


def _die_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, even inside a decoder's endless loop."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to handle, though a whole group may be sent them
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main(*map(int, sys.argv[1:]))
