"""What the decode processes are told, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from vidx.indexer.jobs import Job
from vidx.indexer.plan import Windows
from vidx.indexer.process import Limits
from vidx.schema.records import DecodedClip, Outcome, Preprocess, Video


@dataclass(frozen=True)
class View:
    """What one space sees of a video. The views of a run differ in how many frames a clip has, and in their size."""

    windows: Windows
    preprocess: Preprocess


@dataclass(frozen=True)
class DecodeOptions:
    """What every decode process is told. A file that kills a process of one decoder is tried with the next."""

    decoders: tuple[str, ...]
    views: dict[str, View]  # by the name of the space
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
    views: tuple[DecodedClip, ...]  # for each part of the job, all of the same span
    damaged: bool
    number: int


@dataclass(frozen=True)
class Ended:
    """The last answer of a job."""

    job: Job
    outcome: Outcome


Answer = Opened | Clip | Ended
