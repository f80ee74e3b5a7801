"""Long videos shared between workers, range by range, once there are no more files to begin with.

Only what turns out right is shared to the end: where a range meets damage, or its process dies, the video is decoded
anew by one worker alone, for what damage does to a frame may hang on the frames decoded before it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from vidx.indexer.jobs import Job

RANGE_CLIPS = 30  # of a video that a worker takes at once: five minutes by default
_LOOK_S = 0.2


@dataclass(eq=False)
class Split:
    """The ranges of one video, from clip `next_clip` on, that workers claim one after the other."""

    job: Job
    decoder: str
    n_clips: int
    next_clip: int
    running: int = 0
    is_right: bool = True
    changed: threading.Condition = field(default_factory=threading.Condition)

    def claim(self) -> int | None:
        """The first clip of the next range, which the caller must end with `done`; None where there are no more."""
        with self.changed:
            if not self.is_right or self.next_clip >= self.n_clips:
                return None
            first, self.next_clip = self.next_clip, self.next_clip + RANGE_CLIPS
            self.running += 1
            return first

    def done(self, *, is_right: bool) -> None:
        """A range has ended; if it was not right, no more are given out."""
        with self.changed:
            self.running -= 1
            self.is_right = self.is_right and is_right
            self.changed.notify_all()

    def wait(self) -> bool:
        """Wait for the ranges that others have claimed; whether all were right."""
        with self.changed:
            while self.running:
                self.changed.wait()
            return self.is_right


class Pool:
    """Tells workers that have no files left whose video they can help with."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop, self._splits, self._jobs, self._changed = stop, list[Split](), 0, threading.Condition()

    def begin(self) -> None:
        """A job has begun, which may come to be shared."""
        with self._changed:
            self._jobs += 1

    def end(self) -> None:
        """A job has ended."""
        with self._changed:
            self._jobs -= 1
            self._changed.notify_all()

    def share(self, split: Split) -> None:
        """Let others help with a video."""
        with self._changed:
            self._splits.append(split)
            self._changed.notify_all()

    def take_back(self, split: Split) -> None:
        """Nothing is left of a video to help with."""
        with self._changed:
            self._splits.remove(split)

    def help(self) -> tuple[Split, int] | None:
        """A video and the first clip of a range claimed of it; waits for one, None when no more can come."""
        with self._changed:
            while self._jobs and not self._stop.is_set():
                for split in self._splits:
                    if (first := split.claim()) is not None:
                        return split, first
                self._changed.wait(_LOOK_S)
        return None
