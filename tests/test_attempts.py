"""Which attempt at a video counts, and what is said of it."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from vidx.indexer.answers import Opened
from vidx.indexer.attempts import Work
from vidx.indexer.jobs import Job, Part, Resume
from vidx.schema.records import FoundFile, Outcome, Video
from vidx.schema.unfinished import Unfinished

FILE = FoundFile("/", b"/a.mp4", 1, 1, 1)
VIDEO = Video("v", 1, "mov", "h264", "yuv420p", 8, 8, 0, 1, 1, 1.0, 1, 60.0, 0.0, 0.0, 1, 1, 0, False, None, None)
DIED = Outcome("failed", "pyav: crashed; decord: crashed", 0.0)


def a_job(**part: Any) -> Job:
    return Job(FILE, "v", (Part("s", **part),))


def work(*n_clips: int, replaces: bool = False) -> Work:
    """A job of six clips with one attempt for each number of clips."""
    job = a_job(replaces=replaces)
    made = Work.of(job)["s"]
    ids = count(0, 10)
    for number, n in enumerate(n_clips):
        made.open(Opened(job, VIDEO, 6, 0, f"decoder {number}", {"library": str(number)}), lambda n: next(ids))
        made.attempts[-1].n_clips, made.attempts[-1].end_s = n, 10.0 * n
    return made


def test_of_a_video_that_no_decoder_finished_the_longest_attempt_is_partial() -> None:
    outcome, attempt = work(4, 2).settle(DIED)
    assert attempt is not None
    assert (outcome.state, outcome.reason, outcome.first_bad_s) == ("partial", DIED.reason, 40.0)
    assert (attempt.decoder, attempt.first_clip_id, attempt.n_clips) == ("decoder 0", 0, 4)
    assert outcome.versions == {"library": "0"}


def test_without_any_clip_it_failed() -> None:
    outcome, attempt = work(0, 0).settle(DIED)
    assert outcome == DIED
    assert attempt is not None
    assert Work.of(a_job())["s"].settle(DIED) == (DIED, None)


@pytest.mark.parametrize("state", ["ok", "partial"])
def test_a_decoder_that_finished_counts_however_far_the_one_before_it_came(state: str) -> None:
    outcome, attempt = work(4, 2).settle(Outcome(state))
    assert outcome.state == state
    assert attempt is not None
    assert attempt.decoder == "decoder 1"


def test_part_of_a_video_does_not_replace_the_whole_of_it() -> None:
    outcome, _ = work(4, replaces=True).settle(DIED)
    assert outcome == DIED


def test_an_attempt_that_resumes_counts_what_is_committed() -> None:
    earlier = Unfinished("v", "s", "{}", "pyav", "exact", {}, "cpu", "float32", 7, 6, True)
    job = a_job(resume=Resume(earlier, 3, 30.0))
    resumed = Work.of(job)["s"]
    resumed.open(Opened(job, VIDEO, 6, 3, "pyav", {}), lambda n: pytest.fail("it has ids"))
    assert (resumed.attempts[-1].n_clips, resumed.attempts[-1].end_s) == (3, 30.0)
    outcome, attempt = resumed.settle(DIED)
    assert (outcome.state, outcome.first_bad_s) == ("partial", 30.0)
    assert attempt is resumed.attempts[-1]
