"""Whole runs of `vidx index`: the account, and that interruption, repetition and change leave the right clips."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.commands import environment, index_command
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.often import often
from vidx.tests.faults.plugin.tiny_encoder import NAMES

pytestmark = pytest.mark.slow

_COUNTED = ("indexed", "linked", "unchanged", "failed", "partial", "not_video")
_N_VIDEOS = 9
_CLIPS_EACH = 3
_SAME = 1e-5  # vectors of one clip, encoded beside different others
_SLOWLY = {"TINY_DELAY_S": "0.2"}  # for each clip, so that a run is not over before the signal comes


def draw_mosaic(seed: int):
    """Pictures of coloured tiles that nothing but the seed and the frame number decide."""

    def draw(number: int, size: tuple[int, int]) -> np.ndarray:
        tiles = np.random.default_rng([seed, number]).integers(0, 256, (6, 8, 3), np.uint8)
        return np.repeat(np.repeat(tiles, size[1] // 6, axis=0), size[0] // 8, axis=1)

    return draw


@pytest.fixture(scope="module")
def make_mosaic(make_video):
    """A function that makes a video of `n_clips` times ten seconds, a picture every 5 s and a last one for 0.1 s."""

    def make(path: Path, seed: int, n_clips: int = _CLIPS_EACH) -> Path:
        times_ms = [*range(0, 10_000 * n_clips, 5000), 10_000 * n_clips - 100]
        return make_video(path, size=(160, 120), gop=2, pts=times_ms, draw=draw_mosaic(seed))

    return make


@pytest.fixture(scope="module")
def sample(make_mosaic, tmp_path_factory) -> Path:
    """Nine videos, a copy, a cut and a broken one, two files that are none, a hidden one and a second link."""
    folder = tmp_path_factory.mktemp("sample")
    for number in range(_N_VIDEOS):
        make_mosaic(folder / f"v{number}.{'mkv' if number % 2 else 'mp4'}", seed=number)
    shutil.copyfile(folder / "v0.mp4", folder / "z copy.mp4")
    whole = make_mosaic(folder / "whole.mkv", seed=100)
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    (folder / "cut.mkv").write_bytes(whole.read_bytes()[: positions[5]])
    whole.unlink()
    content = (folder / "v2.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(content[: content.index(b"moov") - 4])
    (folder / "notes.txt").write_text("shopping list")
    (folder / "zero.mp4").write_bytes(b"")
    shutil.copyfile(folder / "v1.mkv", folder / ".hidden.mkv")
    (folder / "second.mkv").symlink_to("v1.mkv")
    return folder


@dataclass(frozen=True)
class Run:
    """What a run printed, and the clips that were live when it had ended."""

    code: int
    events: list[dict[str, Any]]
    errors: str
    clips: dict[tuple[Any, ...], np.ndarray]  # by video_id, start_s, end_s, frame_pts
    attempts: list[tuple[Any, ...]] = field(default_factory=list)  # video_id, state, reason of `indexed`, all rows

    @property
    def done(self) -> dict[str, Any]:
        assert self.events, self.errors
        assert self.events[-1]["event"] == "done"
        return self.events[-1]

    @property
    def states(self) -> dict[str, str]:
        """State by file name."""
        return {os.path.basename(event["path"]): event["state"] for event in self.events if event["event"] == "file"}

    @property
    def video_ids(self) -> set[str]:
        return {key[0] for key in self.clips}


def after(store: Path, code: int, printed: str, errors: str = "") -> Run:
    """The record of a run, with what its store holds now."""
    snapshot = Snapshot(Store.open(store))
    (space,) = Store.open(store).spaces()
    rows = snapshot.rows(f"SELECT video_id, start_s, end_s, frame_pts, vector FROM {snapshot.clips(space)}")
    clips = {(video_id, start_s, end_s, *ticks): np.array(vector) for video_id, start_s, end_s, ticks, vector in rows}
    assert len(clips) == len(rows)
    attempts = snapshot.rows("SELECT video_id, state, reason FROM indexed ORDER BY first_clip_id")
    return Run(code, [json.loads(line) for line in printed.splitlines()], errors, clips, attempts)


def same_clips(some: dict[tuple[Any, ...], np.ndarray], others: dict[tuple[Any, ...], np.ndarray]) -> bool:
    return some.keys() == others.keys() and all(np.abs(some[key] - others[key]).max() < _SAME for key in some)


def clips_of(run: Run, video_ids: set[str]) -> dict[tuple[Any, ...], np.ndarray]:
    return {key: vector for key, vector in run.clips.items() if key[0] in video_ids}


# An archive that is indexed, indexed again, changed, and cut into other windows: one store, one run after the other


@dataclass(frozen=True)
class Archive:
    """A folder of videos, the store it is indexed into, and the command on both."""

    folder: Path
    store: Path
    server: ForkServer

    def command(self, *arguments: str) -> list[str]:
        return index_command(self.folder, self.store, *arguments)

    def index(self, *arguments: str) -> Run:
        ended = self.server.run(self.command(*arguments))
        return after(self.store, ended.code, ended.printed, ended.errors)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def quiet(sample, server, tmp_path_factory) -> Archive:
    folder = tmp_path_factory.mktemp("quiet")
    shutil.copytree(sample, folder / "videos", symlinks=True)
    return Archive(folder / "videos", folder / "store", server)


@pytest.fixture(scope="module")
def first(quiet) -> Run:
    return quiet.index()


@pytest.fixture(scope="module")
def again(first, quiet) -> Run:
    return quiet.index()


@pytest.fixture(scope="module")
def changed(again, quiet, make_mosaic) -> Run:
    """One file is new, one has other content, one has another name; the rest is as it was."""
    make_mosaic(quiet.folder / "new.mp4", seed=200, n_clips=1)
    make_mosaic(quiet.folder / "v4.mp4", seed=201, n_clips=2)
    (quiet.folder / "v6.mp4").rename(quiet.folder / "renamed.mp4")
    return quiet.index()


@pytest.fixture(scope="module")
def replanned(changed, quiet) -> Run:
    return quiet.index("--clip", "5")


@pytest.fixture(scope="module")
def after_replanning(replanned, quiet) -> Run:
    return quiet.index()


def test_the_last_event_is_the_account_with_all_its_keys(first):
    assert (first.code, first.errors) == (0, "")
    assert list(first.done) == ["event", "files", *_COUNTED, "skipped", "missing", "clips", "seconds"]
    assert [event["event"] for event in first.events].count("done") == 1
    assert first.done["seconds"] > 0


def test_every_file_is_counted_once(first):
    expected = {
        **{f"v{number}.{'mkv' if number % 2 else 'mp4'}": "indexed" for number in range(_N_VIDEOS)},
        "z copy.mp4": "linked",
        "cut.mkv": "partial",
        "broken.mp4": "failed",
        "notes.txt": "not_video",
        "zero.mp4": "not_video",
        ".hidden.mkv": "skipped",
        "second.mkv": "skipped",
    }
    # Of two equal files the first in the order of names counts as indexed.
    assert first.states == expected
    assert len(first.events) == len(expected) + 1
    counted = Counter(first.states.values())
    assert {state: first.done[state] for state in (*_COUNTED, "skipped")} == {
        state: counted[state] for state in (*_COUNTED, "skipped")
    }
    assert first.done["files"] == sum(first.done[state] for state in _COUNTED) == 14


def test_whatever_is_not_indexed_has_a_reason_of_one_line(first):
    for event in first.events[:-1]:
        assert event["reason"] is None if event["state"] == "indexed" else event["reason"]
        assert "\n" not in (event["reason"] or "")


def test_the_clips_are_ten_seconds_of_each_content_once(first):
    per_video = Counter(key[0] for key in first.clips)
    assert len(per_video) == _N_VIDEOS + 1  # and the cut one
    assert sorted(per_video.values())[1:] == [_CLIPS_EACH] * _N_VIDEOS
    assert first.done["clips"] == len(first.clips)
    whole = {video_id for video_id, state, _ in first.attempts if state == "ok"}
    spans = {key[1:3] for key in first.clips if key[0] in whole}
    assert spans == {(0.0, 10.0), (10.0, 20.0), (20.0, 30.0)}
    assert all(len(key[3:]) == NAMES["tiny"].space.frames for key in first.clips)
    assert all(abs(np.linalg.norm(vector) - 1) < _SAME for vector in first.clips.values())


def test_a_second_run_decodes_nothing_and_changes_nothing(first, again):
    assert again.code == 0
    assert again.done["unchanged"] == first.done["indexed"] + first.done["linked"]
    assert (again.done["indexed"], again.done["linked"], again.done["clips"]) == (0, 0, 0)
    assert [again.done[state] for state in ("files", "failed", "partial", "not_video", "skipped")] == [14, 1, 1, 2, 2]
    assert again.attempts == first.attempts
    assert same_clips(again.clips, first.clips)


def test_only_new_and_changed_files_are_indexed(again, changed):
    assert changed.code == 0
    assert {name for name, state in changed.states.items() if state == "indexed"} == {"new.mp4", "v4.mp4"}
    assert changed.states["renamed.mp4"] == "linked"
    assert (changed.done["clips"], changed.done["unchanged"]) == (3, again.done["unchanged"] - 2)
    assert len(changed.attempts) == len(again.attempts) + 2


def test_a_change_replaces_the_clips_of_that_file_and_no_others(again, changed):
    retired = again.video_ids - changed.video_ids
    added = changed.video_ids - again.video_ids
    kept = again.video_ids & changed.video_ids
    assert (len(retired), len(added), len(kept)) == (1, 2, _N_VIDEOS)
    assert same_clips(clips_of(changed, kept), clips_of(again, kept))
    assert sorted(Counter(key[0] for key in clips_of(changed, added)).values()) == [1, 2]


def test_another_clip_length_cuts_every_video_anew(changed, replanned):
    assert replanned.code == 0
    assert replanned.video_ids == changed.video_ids
    whole = {video_id for video_id, state, _ in replanned.attempts if state == "ok"}
    assert {key[2] - key[1] for key in replanned.clips if key[0] in whole} == {5.0}
    assert len(clips_of(replanned, whole)) == 2 * len(clips_of(changed, whole))
    assert replanned.done["clips"] == len(replanned.clips)
    assert replanned.done["unchanged"] == 0


def test_who_names_no_clip_length_keeps_the_one_there_is(replanned, after_replanning):
    assert (after_replanning.done["clips"], after_replanning.done["indexed"]) == (0, 0)
    assert after_replanning.attempts == replanned.attempts
    assert same_clips(after_replanning.clips, replanned.clips)


# A run that is interrupted, then one that is killed, then one that may finish


@pytest.fixture(scope="module")
def disturbed(sample, server, tmp_path_factory) -> Archive:
    folder = tmp_path_factory.mktemp("disturbed")
    shutil.copytree(sample, folder / "videos", symlinks=True)
    return Archive(folder / "videos", folder / "store", server)


def stopped_at_the_first_video(command: list[str], store: Path, number: int) -> Run:
    """Start a command, send its process group a signal when it reports the first indexed video, and wait for it."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, env=environment(**_SLOWLY), **pipes) as process:
        printed = ""
        for line in process.stdout:
            printed += line
            if json.loads(line)["state"] == "indexed":
                break
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        rest, errors = process.communicate(timeout=120)
    return after(store, process.returncode, printed + rest, errors)


@pytest.fixture(scope="module")
def interrupted(disturbed) -> Run:
    """Ctrl-C."""
    return stopped_at_the_first_video(disturbed.command(), disturbed.store, signal.SIGINT)


@pytest.fixture(scope="module")
def killed(interrupted, disturbed) -> Run:
    """kill -9, in a run that commits every single answer."""
    return stopped_at_the_first_video(often(0.0, disturbed.command()), disturbed.store, signal.SIGKILL)


@pytest.fixture(scope="module")
def resumed(killed, disturbed) -> Run:
    return disturbed.index()


def test_an_interrupted_run_exits_130_with_one_line(interrupted):
    assert interrupted.code == 130
    assert interrupted.errors.strip().startswith("Error: interrupted")  # behind the line of the terminal's ^C
    assert "\n" not in interrupted.errors.strip()
    assert all(event["event"] == "file" for event in interrupted.events)


def test_an_interrupted_run_keeps_the_videos_it_reported(interrupted, first):
    reported = [name for name, state in interrupted.states.items() if state == "indexed"]
    assert 1 <= len(reported) <= len(interrupted.video_ids) < len(first.video_ids)
    assert same_clips(interrupted.clips, clips_of(first, interrupted.video_ids))


def test_an_interrupted_run_is_recorded_as_such(interrupted, resumed, disturbed):
    """The killed run, between them, had no time to say anything."""
    states = Snapshot(Store.open(disturbed.store)).rows("SELECT state FROM runs ORDER BY started_at")
    assert states == [("interrupted",), ("done",)]


def test_a_killed_run_leaves_whole_videos_only(interrupted, killed, first):
    assert killed.code == -signal.SIGKILL
    assert interrupted.video_ids < killed.video_ids < first.video_ids
    assert same_clips(killed.clips, clips_of(first, killed.video_ids))


def test_after_interruption_and_kill_a_run_gives_what_an_undisturbed_one_gives(resumed, killed, first):
    assert resumed.code == 0
    assert same_clips(resumed.clips, first.clips)
    assert resumed.done["clips"] == len(first.clips) - len(killed.clips)
    assert resumed.done["files"] == first.done["files"]


# Odd files

_ODD = {
    "plain.mp4": "indexed",
    "one_frame.mkv": "indexed",
    "six_hours_13_frames.mp4": "indexed",
    "editlist_cut.mp4": "indexed",
    "avi_frames_lie.avi": "indexed",
    "all_black.mp4": "indexed",
    "discontinuity.ts": "partial",
    "cut_mdat.mp4": "partial",
    "bitflip_1e-3.mp4": "partial",
    "bitflip_moov.mp4": "failed",
    "cut_no_moov.mp4": "failed",
    "encrypted_cenc.mp4": "failed",
    "real_mp4_fuzz_1185230.mp4": "failed",
    "audio_only.mp4": "not_video",
    "audio_with_cover.mp4": "not_video",
    "concat_script.mp4": "not_video",
    "playlist_as_video.mp4": "not_video",
    "png_named.mp4": "not_video",
    "zero_byte.mp4": "not_video",
}


@pytest.fixture(scope="module")
def odd(shared, server, tmp_path_factory) -> Archive:
    """Odd files, a good one under strange names, a pipe, and the store among them."""
    folder = tmp_path_factory.mktemp("odd")
    for name in _ODD:
        shutil.copyfile(shared / "videos_odd" / name, folder / name)
    plain = os.fsencode(folder / "plain.mp4")
    names = json.loads((shared / "videos_odd" / "NAMES.json").read_text(encoding="utf-8"))["names"]
    for name in [*map(os.fsencode, names), b"q\xe9.mp4", b"q" * 251 + b".mp4"]:
        shutil.copyfile(plain, os.path.join(os.fsencode(folder), name))
    os.mkfifo(folder / "pipe.mp4")
    return Archive(folder, folder / "store", server)


@pytest.fixture(scope="module")
def odd_run(odd) -> Run:
    return odd.index()


def test_odd_files_end_as_they_should_and_stop_nothing(odd_run):
    assert (odd_run.code, odd_run.errors) == (0, "")
    # The first in the order of names counts as indexed: a name with a leading dash comes before plain.mp4.
    assert {name: odd_run.states[name] for name in _ODD} == {**_ODD, "plain.mp4": "linked"}
    assert odd_run.done["files"] == sum(odd_run.done[state] for state in _COUNTED)
    assert odd_run.done["skipped"] == 2  # the pipe and the store
    for event in odd_run.events[:-1]:
        assert "\n" not in (event["reason"] or "")


def test_files_of_any_name_are_indexed(odd_run, shared):
    names = json.loads((shared / "videos_odd" / "NAMES.json").read_text(encoding="utf-8"))["names"]
    states = [odd_run.states[name] for name in [*names, "q\\xe9.mp4", "q" * 251 + ".mp4"]]
    assert Counter(states) == {"indexed": 1, "linked": len(names) + 1}


def test_no_clip_of_an_odd_file_is_beyond_belief(odd_run):
    assert all(0 <= key[1] < key[2] < 6 * 3600 + 1 for key in odd_run.clips)
    assert all(np.isfinite(vector).all() for vector in odd_run.clips.values())
    assert max(Counter(key[0] for key in odd_run.clips).values()) == 13  # six hours, one frame each half hour


def test_odd_files_stay_as_they_are_in_a_second_run(odd_run, odd):
    again = odd.index()
    assert (again.code, again.done["clips"], again.done["indexed"], again.done["linked"]) == (0, 0, 0, 0)
    for state in ("files", "failed", "partial", "not_video", "skipped"):
        assert again.done[state] == odd_run.done[state]
    assert again.attempts == odd_run.attempts
    assert same_clips(again.clips, odd_run.clips)
