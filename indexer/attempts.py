"""Jobs whose clips are coming in: the attempts made at each, by one decoder after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vidx.indexer.answers import Opened
from vidx.indexer.encode import EncodedClip
from vidx.indexer.probe import Job
from vidx.schema.records import Outcome, Video


@dataclass
class Attempt:
    """One decoder's way through a video. Its clips have the ids from `first_clip_id` on."""

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
    """A job in progress."""

    job: Job
    attempts: list[Attempt] = field(default_factory=list)  # the last one is under way
    pictures: set[int] = field(default_factory=set)  # ticks of the frames that have a thumbnail

    @classmethod
    def of(cls, job: Job) -> Work:
        return cls(job, pictures=set(job.pictures))

    def open(self, opened: Opened, first_clip_id: int) -> None:
        """Start an attempt; what a job has `skipped` is counted from the earlier run that it resumes."""
        resume = self.job.resume
        end_s = resume.end_s if resume is not None and opened.skipped else 0.0
        self.attempts.append(
            Attempt(
                opened.decoder,
                opened.versions,
                opened.video,
                first_clip_id,
                n_planned=opened.n_clips,
                n_clips=opened.skipped,
                end_s=end_s,
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
        if outcome.state != "failed" or self.job.replaces:
            return outcome, self.attempts[-1]
        best = max(self.attempts, key=lambda attempt: attempt.n_clips)
        if best.n_clips:
            outcome = replace(outcome, state="partial", first_bad_s=best.end_s, versions=best.versions)
        return outcome, best
