"""Jobs whose clips are coming in: the attempts made at each, by one decoder after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vidx.indexer.answers import Opened
from vidx.indexer.encode import EncodedClip
from vidx.indexer.jobs import Job, Part
from vidx.schema.records import Outcome, Video


@dataclass
class Attempt:
    """One decoder's way through a video, in one space. Its clips have the ids from `first_clip_id` on."""

    decoder: str
    versions: dict[str, str]
    video: Video
    first_clip_id: int
    n_planned: int
    n_clips: int  # so far, those that an earlier run committed included
    end_s: float  # of the last of them
    damaged: bool = False
    mode: str = "exact"
    ahead: dict[int, EncodedClip] = field(default_factory=dict)  # clips by number that came before those in front


@dataclass
class Work:
    """A part of a job in progress."""

    job: Job
    part: Part
    pictures: set[int]  # ticks of the frames that have a thumbnail; of all parts of the job
    attempts: list[Attempt] = field(default_factory=list)  # the last one is under way

    @classmethod
    def of(cls, job: Job) -> dict[str, Work]:
        """What there is to do for a job, by the name of the space."""
        pictures = set(job.pictures)
        return {part.space: cls(job, part, pictures) for part in job.parts}

    def open(self, opened: Opened, reserve: Callable[[int], int]) -> None:
        """Start an attempt, with clip ids of its own; or go on with that of an earlier run, if its clips are skipped.

        Another part may lack clips that this one has, so that those come again.
        """
        resume = self.part.resume if opened.skipped else None
        self.attempts.append(
            Attempt(
                opened.decoder,
                opened.versions,
                opened.video,
                first_clip_id=resume.attempt.first_clip_id if resume else reserve(opened.n_clips),
                n_planned=opened.n_clips,
                n_clips=resume.n_done if resume else 0,
                end_s=resume.end_s if resume else 0.0,
                mode=opened.mode,
            )
        )

    def settle(self, outcome: Outcome) -> tuple[Outcome, Attempt | None]:
        """The outcome that counts, and the attempt that it is of.

        Of a video that no decoder came to the end of, the longest attempt's clips are kept as partial; unless the store
        has clips of the whole video under another plan.
        """
        if not self.attempts:
            return outcome, None
        if outcome.state != "failed" or self.part.replaces:
            return outcome, self.attempts[-1]
        best = max(self.attempts, key=lambda attempt: attempt.n_clips)
        if best.n_clips:
            outcome = replace(outcome, state="partial", first_bad_s=best.end_s, versions=best.versions)
        return outcome, best
