"""What becomes of a file that was found: it is settled, or a job for the decoders."""

from __future__ import annotations

from dataclasses import dataclass

from vidx.indexer.walk import Skipped
from vidx.schema.records import FoundFile
from vidx.schema.unfinished import Unfinished

_DECODING = ("decoder", "decode_mode", "versions", "n_planned")  # of an attempt, whatever space it is for


@dataclass(frozen=True)
class Resume:
    """Where an earlier attempt stopped: its first `n_done` clips are in the store, the last of them ends at `end_s`."""

    attempt: Unfinished
    n_done: int
    end_s: float


@dataclass(frozen=True)
class Part:
    """What a job makes for one space."""

    space: str
    replaces: bool = False  # usable clips of another plan, which a failed attempt must not take away
    resume: Resume | None = None


@dataclass(frozen=True)
class Job:
    """One content to decode, at one of its paths, once for all the spaces that want it."""

    file: FoundFile
    video_id: str
    parts: tuple[Part, ...]  # at least one
    in_videos: bool = False  # its container facts are stored
    pictures: frozenset[int] = frozenset()  # ticks of the frames whose thumbnails are stored

    @property
    def resume(self) -> Resume | None:
        """Where decoding can go on: at the first clip that any of the parts lacks, if all have a beginning alike."""
        resumes = [part.resume for part in self.parts]
        first = min((resume for resume in resumes if resume is not None), key=lambda r: r.n_done, default=None)
        alike = first is not None and all(resume is not None and _are_alike(resume, first) for resume in resumes)
        return first if alike else None


def _are_alike(resume: Resume, other: Resume) -> bool:
    """Whether one decoder in one mode planned both, and cut the video the same."""
    return all(getattr(resume.attempt, name) == getattr(other.attempt, name) for name in _DECODING)


@dataclass(frozen=True)
class Known:
    """A file whose content has an outcome in each space; `unchanged` if its path is known with that content as well.

    Of several outcomes it has the worst.
    """

    file: FoundFile
    video_id: str | None  # not looked up for a file whose row is up to date and its content `ok`
    state: str  # ok | partial | failed | not_video
    reason: str | None
    unchanged: bool
    up_to_date: bool = False  # its row in the files table


@dataclass(frozen=True)
class Duplicate:
    """A file with the same content as a job of this very run."""

    file: FoundFile
    video_id: str


@dataclass(frozen=True)
class UnreadableFile:
    """A file that could not even be read to tell its content."""

    file: FoundFile
    reason: str


Settled = Known | Duplicate | UnreadableFile | Skipped  # needs no decoding
Found = Job | Settled
