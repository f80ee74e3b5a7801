"""Long videos shared between workers give what one worker gives, whatever goes wrong on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pytest

from vidx.indexer import split as split_module
from vidx.indexer.answers import Clip, DecodeOptions, Ended, Opened, View
from vidx.indexer.decode import decode
from vidx.indexer.jobs import Job, Part, Resume
from vidx.indexer.plan import Windows
from vidx.indexer.process import Limits
from vidx.schema.records import FoundFile, Preprocess
from vidx.schema.unfinished import Unfinished

RANGE, SPACE = 4, "space"


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "RANGE_CLIPS", RANGE)
    monkeypatch.setattr("vidx.indexer.worker.RANGE_CLIPS", RANGE)


@pytest.fixture(scope="module")
def long_video(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 40 s, whose 20 clips make five ranges; a key frame every 15 frames of 25 a second."""
    return make_video(tmp_path_factory.mktemp("split") / "long.mp4", n_frames=1000, fps=25, gop=15)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[bytes]]:
    with open(tmp_path / "decode.log", "ab") as file:
        yield file


def options(log: IO[bytes], side_px: int = 32, **changes: Any) -> DecodeOptions:
    settings = {
        "decoders": ("pyav",),
        "views": {SPACE: View(Windows(2.0, 2.0, 4), Preprocess(side_px, side_px))},
        "thumbnails": True,
        "workers": 3,
        "limits": Limits(),
        "log": log,
    }
    return DecodeOptions(**{**settings, **changes})


def job_of(path: Path) -> Job:
    facts = path.stat()
    file = FoundFile(str(path.parent), os.fsencode(path), facts.st_size, facts.st_mtime_ns, facts.st_dev)
    return Job(file, path.name, (Part(SPACE),))


def of_last_attempt(answers: list[Any]) -> tuple[Opened, dict[int, Clip], Ended]:
    """What counts: the newest Opened, its clips by number, and the end."""
    at = max(number for number, answer in enumerate(answers) if isinstance(answer, Opened))
    clips = [answer for answer in answers[at:] if isinstance(answer, Clip)]
    assert len({clip.number for clip in clips}) == len(clips)
    assert isinstance(answers[-1], Ended)
    assert sum(isinstance(answer, Ended) for answer in answers) == 1
    return answers[at], {clip.number: clip for clip in clips}, answers[-1]


def same(clips: dict[int, Clip], others: dict[int, Clip]) -> bool:
    def content(clip: Clip) -> tuple[Any, ...]:
        [made] = clip.views
        return made.start_s, made.end_s, made.frame_pts, made.thumbnail, made.pixels.tobytes()

    return clips.keys() == others.keys() and all(content(clips[n]) == content(others[n]) for n in clips)


def alone(path: Path, log: IO[bytes]) -> tuple[Opened, dict[int, Clip], Ended]:
    return of_last_attempt(list(decode(iter([job_of(path)]), options(log, workers=1, share=False))))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exact", "fast", "keyframes"])
def test_a_shared_video_gives_the_clips_of_one_worker(long_video: Path, log: IO[bytes], mode: str) -> None:
    [*answers] = decode(iter([job_of(long_video)]), options(log, mode=mode))
    [*others] = decode(iter([job_of(long_video)]), options(log, mode=mode, workers=1, share=False))
    opened, clips, ended = of_last_attempt(answers)
    assert (opened.n_clips, ended.outcome.state, len(clips)) == (20, "ok", 20)
    assert same(clips, of_last_attempt(others)[1])


@pytest.mark.slow
def test_several_processes_work_on_one_video(long_video: Path, log: IO[bytes]) -> None:
    """One worker alone would give its clips in order."""
    answers = decode(iter([job_of(long_video)]), options(log))
    numbers = [answer.number for answer in answers if isinstance(answer, Clip)]
    assert sorted(numbers) == list(range(20))
    assert numbers != sorted(numbers)


@pytest.mark.slow
def test_a_resumed_video_is_shared_from_where_it_was_left(long_video: Path, log: IO[bytes]) -> None:
    from vidx.decoders import pyav

    made = {"plan": "{}", "decoder": "pyav", "decode_mode": "exact", "versions": pyav.VERSIONS, "device": "cpu"}
    rest = {"precision": "float32", "first_clip_id": 7, "n_planned": 20, "resumable": True}
    resume = Resume(Unfinished("id", SPACE, **made, **rest), 3, 6.0)
    resumed = replace(job_of(long_video), parts=(Part(SPACE, resume=resume),))
    opened, clips, ended = of_last_attempt(list(decode(iter([resumed]), options(log))))
    assert (opened.skipped, ended.outcome.state) == (3, "ok")
    whole = alone(long_video, log)[1]
    assert same(clips, {number: clip for number, clip in whole.items() if number >= 3})


@pytest.mark.slow
@pytest.mark.parametrize("damaged_packet", [20, 500, 900])  # in the first range, one in the middle, the last
def test_a_damaged_video_is_decoded_anew_by_one_worker(
    make_video: Callable[..., Path], tmp_path: Path, log: IO[bytes], damaged_packet: int
) -> None:
    path = make_video(tmp_path / "damaged.mp4", n_frames=1000, gop=100, draw=noise, size=(64, 48))
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    at, size = places[damaged_packet]
    content[at + 8 : at + size - 8] = bytes(size - 16)
    path.write_bytes(content)
    _, clips, ended = of_last_attempt(list(decode(iter([job_of(path)]), options(log))))
    _, expected, end_alone = alone(path, log)
    assert ended.outcome == end_alone.outcome
    assert same(clips, expected)


def noise(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
def test_a_helper_that_dies_costs_nothing_but_time(long_video: Path, log: IO[bytes]) -> None:
    answers, killed = [], 0
    for answer in decode(iter([job_of(long_video)]), options(log, side_px=512)):
        answers.append(answer)
        if len(answers) >= RANGE + 2 and not killed and len(children()) > 1:
            killed = children()[-1]
            os.kill(killed, signal.SIGKILL)
    assert killed
    _, clips, ended = of_last_attempt(answers)
    assert ended.outcome.state in ("ok", "failed")  # failed only if the one killed was the owner's
    assert ended.outcome.state == "failed" or len(clips) == 20


@pytest.mark.slow
def test_closing_early_leaves_no_process(long_video: Path, log: IO[bytes]) -> None:
    answers = decode(iter([job_of(long_video)]), options(log))
    for _ in range(RANGE + 3):
        next(answers)
    answers.close()
    assert not children()


def children() -> list[int]:
    """Decode processes of this one; others may have been left by other tests."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    found = [int(word) for task in tasks for word in task.read_text().split()]
    return [pid for pid in found if b"vidx.indexer.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
