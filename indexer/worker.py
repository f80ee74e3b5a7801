"""One worker's way through its jobs: in a child process, and in a new one where that died."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from vidx.indexer.answers import Answer, Clip, DecodeOptions, Ended, Opened
from vidx.indexer.jobs import Job
from vidx.indexer.process import DecodeProcess, NoAnswer, ProcessDied, job_message
from vidx.indexer.split import RANGE_CLIPS, Pool, Split
from vidx.indexer.walk import storable_mtime_ns
from vidx.schema.records import DecodedClip, FoundFile, Outcome, Video


@dataclass(frozen=True)
class _Part:
    """A range of a job's clips from `first` on; None: from where an earlier run left off."""

    first: int | None


class Worker:
    """Runs jobs in one child process, and in a new one where that died."""

    def __init__(self, options: DecodeOptions, pool: Pool, stop: threading.Event) -> None:
        self._options, self._pool, self._stop = options, pool, stop
        self._process: DecodeProcess | None = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()

    def run(self, job: Job) -> Iterator[Answer]:
        """Answers of one job. Ends without an Ended only when `stop` is set."""
        reasons: dict[str, str] = {}
        for decoder in self._options.decoders:
            try:
                if not (yield from self._shared(job, decoder)):
                    yield from self._answers(job, decoder)
                return
            except NoAnswer as error:
                reasons[decoder] = str(error)
        reason = "; ".join(f"{decoder}: {why}" for decoder, why in reasons.items())
        yield Ended(job, _if_still_the_same(job.file, Outcome("failed", reason, 0.0)))

    def help(self, split: Split, first: int) -> Iterator[Answer]:
        """The clips of one range of a job that another worker runs; they are its own, whatever comes of it."""
        is_right = False
        try:
            for answer in self._answers(split.job, split.decoder, _Part(first)):
                if isinstance(answer, Clip):
                    yield answer
                elif isinstance(answer, Ended):
                    is_right = answer.outcome.state == "ok"
        except NoAnswer:
            pass  # its owner decodes the video anew, and tells
        finally:
            split.done(is_right=is_right)

    def _shared(self, job: Job, decoder: str) -> Generator[Answer, None, bool]:
        """Answers of a job that others may help with; False if that went wrong, and it must be begun anew alone.

        Raises NoAnswer where there is none for the first range.
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
        try:
            while (first := split.claim()) is not None:
                yield from self.help(split, first)
        finally:
            self._pool.take_back(split)
        if not split.wait():
            return self._stop.is_set()
        yield Ended(job, _if_still_the_same(job.file, answer.outcome))
        return True

    def _answers(self, job: Job, decoder: str, part: _Part | None = None) -> Iterator[Answer]:
        """What one decoder makes of a job, or of a part of it. Raises NoAnswer."""
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
        views = [options.views[part.space] for part in job.parts]
        asked: dict[str, Any] = {"kind": "windows", "windows": [asdict(view.windows) for view in views]}
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
            [view.preprocess for view in views],
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
            if len(header["views"]) != len(job.parts):
                raise ValueError("a clip for other spaces")
            return Clip(job, _views(header, payloads, video), header["damaged"], header["number"])
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


def _views(header: dict[str, Any], payloads: list[bytes], video: Video) -> tuple[DecodedClip, ...]:
    def seconds(tick: int) -> float:
        return tick * video.time_base_num / video.time_base_den - video.time_origin_s

    return tuple(
        DecodedClip(
            start_s=header["start_s"],
            end_s=header["end_s"],
            frame_pts=tuple(view["frame_pts"]),
            frame_pts_s=tuple(seconds(tick) for tick in view["frame_pts"]),
            pixels=np.frombuffer(payloads[2 * at], np.uint8).reshape(view["shape"]),
            thumbnail=payloads[2 * at + 1] or None,
            thumbnail_pts=view["thumbnail_pts"],
        )
        for at, view in enumerate(header["views"])
    )
