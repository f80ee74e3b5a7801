"""Decoding in real child processes, and full batches to an encoder."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidx.decoders import pyav
from vidx.errors import EncoderBroken
from vidx.indexer import worker
from vidx.indexer.answers import Clip, DecodeOptions, Ended, Opened, View
from vidx.indexer.decode import decode
from vidx.indexer.encode import EncodedClip, encode
from vidx.indexer.jobs import Duplicate, Found, Job, Part, Resume
from vidx.indexer.plan import Windows
from vidx.indexer.process import Limits
from vidx.indexer.walk import Skipped
from vidx.schema.records import DecodedClip, FoundFile, Preprocess
from vidx.schema.unfinished import Unfinished

_STALL_S = 3.0  # long enough for a new process to come up on a busy machine
_SPACE = "space"
_WINDOWS = Windows(2.0, 2.0, 4)
_SQUARE = Preprocess(short_side_px=48, crop_px=48)
_BIG = Preprocess(short_side_px=640, crop_px=640)  # a clip is far larger than a pipe holds

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")

# A decoder as a third party would bring it; the first word of a file's name says what befalls it.
_PLUG_IN = """
import os, signal, time
from vidx.decoders import pyav
from vidx.errors import NotTrusted

VERSIONS = {"naughty": "7"}

def open_video(path_bytes, *, threads=1, mode="exact", alive=lambda: None):
    return Naughty(path_bytes, threads, mode, alive)

class Naughty(pyav.PyAVVideo):
    def frames_at(self, ticks):
        fate = os.path.basename(self._path).split(b"_")[0]
        for number, pair in enumerate(super().frames_at(ticks)):
            if number == 6:  # behind the first clip
                befall(fate, self._alive)
            yield pair

def befall(fate, alive):
    if fate == b"segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fate == b"exit":
        os._exit(3)
    elif fate == b"bug":
        raise ZeroDivisionError("a bug of the decoder")
    elif fate == b"memory":
        raise MemoryError
    elif fate == b"refused":
        raise NotTrusted("this may come out wrong")
    elif fate == b"vanished":
        raise OSError(5, "Input/output error")
    elif fate == b"hang":
        time.sleep(3600)
    elif fate == b"loop":
        while True:
            pass
    elif fate == b"slow":
        for _ in range(25):
            time.sleep(0.2)
            alive()
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch) -> str:
    """Install the decoder `naughty` for this process and its children."""
    installed = tmp_path / "site"
    facts = installed / "naughty-1.0.dist-info"
    facts.mkdir(parents=True)
    (installed / "naughty_decoder.py").write_text(_PLUG_IN)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: naughty\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[vidx.decoders]\nnaughty = naughty_decoder\n")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return "naughty"


@pytest.fixture(scope="module")
def clip_file(make_video, tmp_path_factory) -> Path:
    """Five seconds of flat grey, ten frames a second."""
    return make_video(tmp_path_factory.mktemp("clips") / "plain.mp4")


def job(path: Path) -> Job:
    facts = path.stat()
    file = FoundFile(str(path.parent), os.fsencode(path), facts.st_size, facts.st_mtime_ns, facts.st_dev)
    return Job(file, f"id of {path.name}", (Part(_SPACE),))


def jobs_named(folder: Path, source: Path, *names: str) -> list[Job]:
    """Links to one video under several names."""
    for name in names:
        (folder / name).symlink_to(source)
    return [job(folder / name) for name in names]


@pytest.fixture
def options(tmp_path):
    """A function that gives the options of a decode run; clips of 2 s have frames 2, 7, 12, 17 and so on, five
    seconds give three clips."""
    with open(tmp_path / "decode.log", "wb") as log:

        def make(windows=_WINDOWS, preprocess=_SQUARE, **changes) -> DecodeOptions:
            settings = {
                "decoders": ("pyav",),
                "views": {_SPACE: View(windows, preprocess)},
                "thumbnails": True,
                "workers": 1,
                "limits": Limits(),
                "log": log,
            }
            return DecodeOptions(**{**settings, **changes})

        yield make


def children() -> set[int]:
    """Process ids of this process's decode children."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == os.getpid() and b"vidx.indexer.child" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


def state_of(pid: int) -> str:
    """R, S, T, Z ... as Linux has it; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_until(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def of(answers: Iterable, wanted: Job) -> list:
    return [answer for answer in answers if not isinstance(answer, Skipped | Duplicate) and answer.job == wanted]


def outcomes(answers: Iterable) -> dict[str, tuple[str, str | None]]:
    """State and reason of each job by file name; fails where a job has two ends."""
    ends = [answer for answer in answers if isinstance(answer, Ended)]
    assert len({end.job.video_id for end in ends}) == len(ends)
    return {os.path.basename(end.job.file.path): (end.outcome.state, end.outcome.reason) for end in ends}


def grey_numbers(clip: DecodedClip) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in clip.pixels]


# Jobs that end well


def test_a_job_gives_its_facts_its_clips_in_order_and_one_end(clip_file, options):
    wanted = job(clip_file)
    opened, *clips, ended = decode(iter([wanted]), options())
    assert isinstance(opened, Opened)
    assert (opened.job, opened.n_clips, opened.video.video_id) == (wanted, 3, wanted.video_id)
    assert (opened.video.n_frames, opened.video.codec) == (50, "h264")
    assert [type(answer) for answer in clips] == [Clip] * 3
    assert [(answer.views[0].start_s, answer.views[0].end_s) for answer in clips] == [(0, 2), (2, 4), (4, 5)]
    assert [grey_numbers(answer.views[0]) for answer in clips] == [[2, 7, 12, 17], [22, 27, 32, 37], [41, 43, 46, 48]]
    assert clips[0].views[0].frame_pts_s == pytest.approx((0.2, 0.7, 1.2, 1.7))
    base = opened.video.time_base_num / opened.video.time_base_den
    assert [tick * base for tick in clips[0].views[0].frame_pts] == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert clips[0].views[0].pixels.shape == (4, 48, 48, 3)
    assert clips[0].views[0].thumbnail.startswith(b"\xff\xd8")
    assert clips[0].views[0].thumbnail_pts == clips[0].views[0].frame_pts[2]
    assert isinstance(ended, Ended)
    assert (ended.outcome.state, ended.outcome.reason, ended.outcome.first_bad_s) == ("ok", None, None)
    assert ended.outcome.versions["av"] == av.__version__


def test_without_thumbnails_none_are_made(clip_file, options):
    answers = decode(iter([job(clip_file)]), options(thumbnails=False))
    assert [answer.views[0].thumbnail for answer in answers if isinstance(answer, Clip)] == [None] * 3


def test_overlapping_windows_each_get_their_own_frames(clip_file, options):
    answers = decode(iter([job(clip_file)]), options(windows=Windows(2.0, 0.5, 4)))
    clips = [answer.views[0] for answer in answers if isinstance(answer, Clip)]
    assert [grey_numbers(clip) for clip in clips] == [[5 * at + k for k in (2, 7, 12, 17)] for at in range(7)]


def test_what_needs_no_decoding_passes_through(clip_file, options):
    wanted = job(clip_file)
    settled = [Skipped("a", "hidden"), Duplicate(wanted.file, "b"), Skipped("c", "not a regular file")]
    answers = list(decode(iter([settled[0], wanted, *settled[1:]]), options()))
    assert [answer for answer in answers if isinstance(answer, Skipped | Duplicate)] == settled
    assert outcomes(answer for answer in answers if answer not in settled) == {"plain.mp4": ("ok", None)}


def test_nothing_found_starts_no_process_and_gives_nothing(options):
    assert list(decode(iter([]), options(workers=3))) == []


def test_several_workers_keep_each_jobs_answers_in_order(clip_file, options, tmp_path):
    wanted = jobs_named(tmp_path, clip_file, *(f"{number}.mp4" for number in range(6)))
    answers = list(decode(iter(wanted), options(workers=3)))
    assert set(outcomes(answers).values()) == {("ok", None)}
    for one in wanted:
        kinds = [type(answer) for answer in of(answers, one)]
        starts = [answer.views[0].start_s for answer in of(answers, one) if isinstance(answer, Clip)]
        assert (kinds, starts) == ([Opened, Clip, Clip, Clip, Ended], [0, 2, 4])


# Files that are no videos, or damaged


def test_each_file_that_cannot_be_used_ends_with_its_reason_and_the_next_goes_on(clip_file, options, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    content = clip_file.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: content.index(b"moov") - 4])
    (tmp_path / "gone.mp4").write_text("")
    found = [job(tmp_path / name) for name in ("text.mp4", "cut.mp4", "gone.mp4")]
    (tmp_path / "gone.mp4").unlink()
    answers = list(decode(iter([*found, job(clip_file)]), options()))
    ended = outcomes(answers)
    assert ended["text.mp4"] == ("not_video", "not a video container")
    assert ended["cut.mp4"] == ("failed", "the container can't be read: its index is missing or damaged")
    assert ended["gone.mp4"] == ("unreadable", "gone while it was read: No such file or directory")
    assert ended["plain.mp4"] == ("ok", None)
    assert [type(answer) for one in found for answer in of(answers, one)] == [Ended] * 3


def test_a_cut_file_is_partial_with_the_time_of_the_cut(make_video, options, tmp_path):
    whole = make_video(tmp_path / "whole.mkv")
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: positions[30]])
    answers = list(decode(iter([job(tmp_path / "cut.mkv")]), options()))
    (ended,) = (answer for answer in answers if isinstance(answer, Ended))
    assert ended.outcome.state == "partial"
    assert re.fullmatch(r"the file is cut: it announces \d+ bytes and holds \d+", ended.outcome.reason)
    assert 2.5 <= ended.outcome.first_bad_s <= 3.5
    assert sum(isinstance(answer, Clip) for answer in answers) >= 1


# Processes that crash, hang and are killed


@pytest.mark.slow
def test_a_crash_of_any_kind_costs_one_file(clip_file, options, plug_in, tmp_path):
    names = ["segfault_1.mp4", "ok_2.mp4", "exit_3.mp4", "bug_4.mp4", "memory_5.mp4", "vanished_6.mp4", "ok_7.mp4"]
    wanted = jobs_named(tmp_path, clip_file, *names)
    answers = list(decode(iter(wanted), options(decoders=(plug_in,))))
    assert outcomes(answers) == {
        "segfault_1.mp4": ("failed", "naughty: the decoder crashed (SIGSEGV)"),
        "ok_2.mp4": ("ok", None),
        "exit_3.mp4": ("failed", "naughty: the decoder crashed (exit code 3)"),
        "bug_4.mp4": ("failed", "naughty: the decoder crashed (exit code 1)"),
        "memory_5.mp4": ("failed", "naughty: decoding needs more memory than it may have"),
        "vanished_6.mp4": ("unreadable", "can't be read: Input/output error"),
        "ok_7.mp4": ("ok", None),
    }
    assert [type(answer) for answer in of(answers, wanted[0])] == [Opened, Clip, Ended]
    assert "ZeroDivisionError: a bug of the decoder" in (tmp_path / "decode.log").read_text()
    assert {end.outcome.versions.get("naughty") for end in answers if isinstance(end, Ended)} == {"7", None}


@pytest.mark.slow
def test_what_kills_one_decoder_is_tried_once_with_the_next(clip_file, options, plug_in, tmp_path):
    wanted = jobs_named(tmp_path, clip_file, "segfault_1.mp4", "memory_2.mp4", "ok_3.mp4")
    answers = list(decode(iter(wanted), options(decoders=(plug_in, "pyav"))))
    assert set(outcomes(answers).values()) == {("ok", None)}
    for one in wanted[:2]:
        own = of(answers, one)
        assert [type(answer) for answer in own] == [Opened, Clip, Opened, Clip, Clip, Clip, Ended]
        assert [answer.decoder for answer in own if isinstance(answer, Opened)] == [plug_in, "pyav"]
        assert own[-1].outcome.versions.keys() == pyav.VERSIONS.keys()
    assert [answer.decoder for answer in of(answers, wanted[2]) if isinstance(answer, Opened)] == [plug_in]


def test_what_one_decoder_refuses_is_tried_with_the_next_and_its_process_goes_on(
    clip_file, options, plug_in, tmp_path, monkeypatch
):
    wanted = jobs_named(tmp_path, clip_file, "refused_1.mp4", "ok_2.mp4")
    started = []

    class Counted(worker.DecodeProcess):
        def __init__(self, *arguments: Any) -> None:
            started.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(worker, "DecodeProcess", Counted)
    answers = list(decode(iter(wanted), options(decoders=(plug_in, "pyav"))))
    assert set(outcomes(answers).values()) == {("ok", None)}
    refused = of(answers, wanted[0])
    assert [answer.decoder for answer in refused if isinstance(answer, Opened)] == [plug_in, "pyav"]
    assert [type(answer) for answer in refused[-5:]] == [Opened, Clip, Clip, Clip, Ended]
    assert refused[-1].outcome.versions.keys() == pyav.VERSIONS.keys()
    assert len(started) == 1
    alone = list(decode(iter(wanted), options(decoders=(plug_in,))))
    reason = "naughty: this may come out wrong"
    assert outcomes(alone) == {"refused_1.mp4": ("failed", reason), "ok_2.mp4": ("ok", None)}


def test_a_good_file_that_decord_may_get_wrong_is_read_by_the_next_decoder(make_video, options, tmp_path):
    pytest.importorskip("decord")
    path = make_video(tmp_path / "plain.avi")
    answers = list(decode(iter([job(path)]), options(decoders=("decord", "pyav"))))
    assert outcomes(answers) == {"plain.avi": ("ok", None)}
    assert [answer.decoder for answer in answers if isinstance(answer, Opened)] == ["pyav"]


def test_a_file_that_kills_two_decoders_fails_with_both_reasons(clip_file, options, plug_in, tmp_path):
    (wanted,) = jobs_named(tmp_path, clip_file, "segfault_1.mp4")
    answers = list(decode(iter([wanted]), options(decoders=(plug_in, plug_in))))
    assert outcomes(answers) == {"segfault_1.mp4": ("failed", "naughty: the decoder crashed (SIGSEGV)")}
    assert [type(answer) for answer in answers] == [Opened, Clip, Opened, Clip, Ended]


@pytest.mark.slow
@on_linux
def test_a_decode_process_gets_no_more_memory_than_its_limit(make_video, options, tmp_path):
    """A picture of 96 megapixels is 144 MB as it is decoded; the process as such is 260 MB."""

    def black(_number: int, size: tuple[int, int]) -> np.ndarray:
        return np.zeros((size[1], size[0], 3), np.uint8)

    big = make_video(
        tmp_path / "big.mp4", n_frames=1, size=(12_000, 8_000), draw=black, options={"preset": "ultrafast"}
    )
    small = make_video(tmp_path / "small.mp4", n_frames=1)
    limited = options(limits=Limits(memory_bytes=350 * 2**20), thumbnails=False)
    ended = outcomes(decode(iter([job(big), job(small)]), limited))
    assert ended["small.mp4"] == ("ok", None)
    assert ended["big.mp4"] == ("failed", "pyav: decoding needs more memory than it may have")
    assert outcomes(decode(iter([job(big)]), options(thumbnails=False))) == {"big.mp4": ("ok", None)}


def resumed(path: Path, n_done: int, **changes) -> Job:
    """A job of which an earlier run has committed clips."""
    made = {"plan": "{}", "decoder": "pyav", "decode_mode": "exact", "versions": pyav.VERSIONS, "device": "cpu"}
    rest = {"precision": "float32", "first_clip_id": 7, "n_planned": 3, "resumable": True}
    attempt = Unfinished("id", _SPACE, **{**made, **rest, **changes})
    return replace(job(path), parts=(Part(_SPACE, resume=Resume(attempt, n_done, 2.0 * n_done)),))


@pytest.mark.slow
@pytest.mark.parametrize("n_done", [1, 2, 3])
def test_a_job_goes_on_behind_the_clips_that_are_committed(n_done, clip_file, options):
    whole = [answer.views[0] for answer in decode(iter([job(clip_file)]), options()) if isinstance(answer, Clip)]
    opened, *clips, ended = decode(iter([resumed(clip_file, n_done)]), options())
    assert (opened.skipped, opened.n_clips, ended.outcome.state) == (n_done, 3, "ok")
    assert [clip.views[0].frame_pts for clip in clips] == [clip.frame_pts for clip in whole[n_done:]]
    for clip, same in zip(clips, whole[n_done:], strict=True):
        assert np.array_equal(clip.views[0].pixels, same.pixels)


@pytest.mark.parametrize("changes", [{"versions": {"av": "0"}}, {"n_planned": 4}, {"decoder": "other"}])
def test_a_job_starts_anew_where_its_clips_would_not_be_made_the_same(changes, clip_file, options):
    opened, *clips, _ = decode(iter([resumed(clip_file, 2, **changes)]), options())
    assert (opened.skipped, len(clips)) == (0, 3)


@pytest.mark.slow
def test_a_job_that_meets_damage_after_it_resumed_is_decoded_in_one_go(make_video, options, tmp_path):
    path = make_video(tmp_path / "long.mp4", n_frames=100, gop=10, draw=noise)
    with av.open(str(path)) as container:
        positions = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    content = bytearray(path.read_bytes())
    at, size = positions[51]  # behind a key frame: others are made from it
    content[at + 8 : at + size - 8] = bytes(size - 16)
    path.write_bytes(content)
    answers = list(decode(iter([resumed(path, 2, n_planned=5)]), options()))
    assert [answer.skipped for answer in answers if isinstance(answer, Opened)] == [2, 0]
    again = answers[[isinstance(a, Opened) and a.skipped == 0 for a in answers].index(True) :]
    whole = list(decode(iter([job(path)]), options()))
    assert [a.views[0].frame_pts for a in again[1:-1]] == [a.views[0].frame_pts for a in whole[1:-1]]
    assert all(
        np.array_equal(a.views[0].pixels, b.views[0].pixels) for a, b in zip(again[1:-1], whole[1:-1], strict=True)
    )
    assert answers[-1].outcome.state == "partial"


def noise(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)


@pytest.mark.slow
@on_linux
def test_a_child_killed_from_outside_costs_one_file(make_video, clip_file, options, tmp_path):
    long = make_video(tmp_path / "long.mp4", n_frames=600)
    answers = decode(iter([job(long), job(clip_file)]), options(preprocess=_BIG))
    first = next(answers)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    rest = list(answers)
    assert isinstance(first, Opened)
    assert outcomes(rest) == {"long.mp4": ("failed", "pyav: the decoder crashed (SIGKILL)"), "plain.mp4": ("ok", None)}
    assert sum(isinstance(answer, Clip) for answer in of(rest, first.job)) < first.n_clips


@pytest.mark.slow
def test_a_child_that_hangs_is_killed_and_the_run_goes_on(clip_file, options, plug_in, tmp_path):
    wanted = jobs_named(tmp_path, clip_file, "hang_1.mp4", "loop_2.mp4", "ok_3.mp4")
    answers = list(decode(iter(wanted), options(decoders=(plug_in,), limits=Limits(_STALL_S))))
    stalled = ("failed", "naughty: decoding made no progress for 3 s")
    assert outcomes(answers) == {"hang_1.mp4": stalled, "loop_2.mp4": stalled, "ok_3.mp4": ("ok", None)}


@pytest.mark.slow
def test_slow_work_with_signs_of_life_is_not_taken_for_a_hang(clip_file, options, plug_in, tmp_path):
    """Five seconds between two clips, where three are allowed without a sign of life."""
    wanted = jobs_named(tmp_path, clip_file, "slow_1.mp4")
    answers = list(decode(iter(wanted), options(decoders=(plug_in,), limits=Limits(_STALL_S))))
    assert outcomes(answers) == {"slow_1.mp4": ("ok", None)}


@on_linux
@pytest.mark.slow
def test_a_slow_consumer_is_not_taken_for_a_hang(make_video, options, tmp_path):
    """The child waits with a full pipe, and the queue is full, for longer than a child may be silent."""
    long = make_video(tmp_path / "long.mp4", n_frames=400)
    answers = decode(iter([job(long)]), options(preprocess=_BIG, limits=Limits(_STALL_S)))
    opened = next(answers)
    time.sleep(_STALL_S + 1)
    rest = list(answers)
    assert outcomes(rest) == {"long.mp4": ("ok", None)}
    assert len(rest) - 1 == opened.n_clips == 20


@on_linux
@pytest.mark.slow
def test_a_child_that_stops_in_the_middle_of_an_answer_is_a_hang_too(make_video, clip_file, options, tmp_path):
    long = make_video(tmp_path / "long.mp4", n_frames=600)
    answers = decode(iter([job(long), job(clip_file)]), options(preprocess=_BIG, limits=Limits(_STALL_S)))
    next(answers)
    (child,) = children()
    # Nobody takes answers: the child comes to rest while it writes a clip into a full pipe.
    assert wait_until(lambda: all(state_of(child) == "S" or time.sleep(0.05) for _ in range(40)))
    os.kill(child, signal.SIGSTOP)
    rest: list = []
    consumer = threading.Thread(target=lambda: rest.extend(answers), daemon=True)
    consumer.start()
    consumer.join(timeout=4 * _STALL_S)
    hung = consumer.is_alive()
    if hung:
        os.kill(child, signal.SIGKILL)  # so that the test ends
        consumer.join()
    assert not hung
    assert outcomes(rest) == {
        "long.mp4": ("failed", "pyav: decoding made no progress for 3 s"),
        "plain.mp4": ("ok", None),
    }


@on_linux
def test_closing_early_leaves_no_process_and_no_thread(make_video, options, tmp_path):
    long = make_video(tmp_path / "long.mp4", n_frames=600)
    wanted = jobs_named(tmp_path, long, *(f"{number}.mp4" for number in range(6)))
    threads = threading.active_count()
    answers = decode(iter(wanted), options(workers=2, preprocess=_BIG))
    for _ in range(3):
        next(answers)
    assert children()
    answers.close()
    assert children() == set()
    assert threading.active_count() == threads


@on_linux
def test_a_run_to_the_end_leaves_no_process(clip_file, options):
    assert outcomes(decode(iter([job(clip_file)]), options(workers=2))) == {"plain.mp4": ("ok", None)}
    assert children() == set()


@on_linux
def test_an_error_in_the_source_is_raised_and_leaves_no_process(clip_file, options):
    def found() -> Iterable[Found]:
        yield job(clip_file)
        raise RuntimeError("the drive is gone")

    with pytest.raises(RuntimeError, match="the drive is gone"):
        list(decode(found(), options(workers=2)))
    assert children() == set()


_PARENT = """
import os, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from vidx.indexer import worker
from vidx.indexer.answers import DecodeOptions, View
from vidx.indexer.decode import decode
from vidx.indexer.process import Limits
from vidx.indexer.plan import Windows
from vidx.indexer.jobs import Job, Part
from vidx.schema.records import FoundFile, Preprocess
path = Path({path!r})
wanted = Job(FoundFile("/", os.fsencode(path), 1, 1, 1), "id", (Part("s"),))
views = {{"s": View(Windows(2, 2, 4), Preprocess(48, 48))}}
with open(os.devnull, "wb") as log:
    options = DecodeOptions(("naughty",), views, True, 1, Limits(), log)
    for _ in decode(iter([wanted]), options):
        print("answer", flush=True)
"""


@pytest.mark.slow
@on_linux
def test_a_child_that_loops_dies_with_its_parent(clip_file, plug_in, tmp_path):
    (wanted,) = jobs_named(tmp_path, clip_file, "loop_1.mp4")
    script = _PARENT.format(folder=os.environ["PYTHONPATH"], path=wanted.file.path)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert [parent.stdout.readline() for _ in range(2)] == [b"answer\n"] * 2  # facts, first clip
        tasks = Path(f"/proc/{parent.pid}/task").iterdir()
        (child,) = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
        assert state_of(child)
        parent.kill()
    assert wait_until(lambda: state_of(child) in ("", "Z"))


# Batches


class Encoder:
    """Turns a clip of one frame of level n into the n-th unit vector, and remembers the size of each batch."""

    def __init__(self, spec, broken=False) -> None:
        self.spec, self.broken, self.batches = spec, broken, []

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames))
        vectors = np.eye(384, dtype=np.float32)[frames[:, 0, 0, 0, 0]]
        return vectors * np.nan if self.broken else vectors


@pytest.fixture
def encoder():
    from vidx import encoders

    return Encoder(encoders.spec("conse"))


def a_job(name: str) -> Job:
    return Job(FoundFile("/", name.encode(), 1, 1, 1), name, (Part(_SPACE),))


def a_clip(owner: Job, level: int) -> Clip:
    pixels = np.full((1, 2, 2, 3), level, np.uint8)
    view = DecodedClip(level, level + 1, (level,), (float(level),), pixels, b"jpeg", level)
    return Clip(owner, (view,), False, level)


def an_end(owner: Job) -> Ended:
    from vidx.schema.records import Outcome

    return Ended(owner, Outcome("ok"))


def test_batches_are_full_across_videos_but_for_the_last(encoder):
    levels = itertools.count()
    answers = []
    for name, n_clips in (("a", 3), ("b", 0), ("c", 5), ("d", 2)):
        answers += [a_clip(a_job(name), next(levels)) for _ in range(n_clips)] + [an_end(a_job(name))]
    encoded = list(encode(answers, {_SPACE: encoder}, 4))
    assert encoder.batches == [4, 4, 2]
    clips = [item for item in encoded if isinstance(item, EncodedClip)]
    assert [int(clip.vector.argmax()) for clip in clips] == list(range(10))
    assert [clip.start_s for clip in clips] == list(range(10))
    assert [clip.job.video_id for clip in clips] == list("aaacccccdd")


def test_clips_come_before_their_end_whatever_is_mixed_between(encoder):
    a, b, skipped = a_job("a"), a_job("b"), Skipped("x", "hidden")
    answers = [a_clip(a, 1), a_clip(b, 2), skipped, an_end(b), a_clip(a, 3), an_end(a)]
    encoded = list(encode(answers, {_SPACE: encoder}, 100))
    for owner, levels in ((a, [1, 3]), (b, [2])):
        own = of(encoded, owner)
        assert [item.start_s for item in own[:-1]] == levels
        assert isinstance(own[-1], Ended)
    assert len(encoded) == len(answers)


def test_what_is_no_clip_does_not_wait_for_a_batch(encoder):
    """A file skipped or without clips is reported at once; one whose clips wait is not."""
    taken = []

    def answers():
        for answer in (an_end(a_job("empty")), a_clip(a_job("a"), 1), Skipped("x", "hidden"), an_end(a_job("a"))):
            taken.append(answer)
            yield answer

    encoded = encode(answers(), {_SPACE: encoder}, 2)
    assert next(encoded).job.video_id == "empty"
    assert len(taken) == 1
    assert next(encoded) == Skipped("x", "hidden")
    assert len(taken) == 3
    assert [type(item) for item in encoded] == [EncodedClip, Ended]


def test_vectors_that_are_no_numbers_end_the_run(encoder):
    encoder.broken = True
    with pytest.raises(EncoderBroken, match="not finite"):
        list(encode([a_clip(a_job("a"), 1)], {_SPACE: encoder}, 1))
