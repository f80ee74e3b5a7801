"""Killed at any instant or at any write, or refused by the disk: what was committed stays, the next run finishes.

VIDX_TEST_SEED is the seed of the random instants, VIDX_TEST_INSTANTS their number. Every message names the instant.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from vidx.tests.faults.archive import MakeVideo, many_videos, tiled_video
from vidx.tests.faults.checks import Clips, live_clips
from vidx.tests.faults.commands import Killed, Run, adds_up, index, index_command
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.killing import Aftermath, kill_and_finish, moments
from vidx.tests.faults.often import often
from vidx.tests.faults.reader import Reader

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("VIDX_TEST_SEED", "0"))
INSTANTS = int(os.environ.get("VIDX_TEST_INSTANTS", "30"))


@dataclass(frozen=True)
class Archive:
    """A folder, and what a run that nothing disturbed makes of it."""

    folder: Path
    states: dict[str, str]  # by path
    clips: Clips


@pytest.fixture(scope="module")
def archive(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """See `many_videos`."""
    base = tmp_path_factory.mktemp("many")
    states = many_videos(make_video, base / "videos")
    run = index(base / "videos", base / "store")
    assert (run.code, run.errors) == (0, "")
    assert run.states == {str(base / "videos" / name): state for name, state in states.items()}
    return Archive(base / "videos", run.states, live_clips(base / "store"))


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ForkServer]]:
    """Two, since there are two cores at least."""
    started = [ForkServer(), ForkServer()]
    yield started
    for server in started:
        server.close()


@dataclass(frozen=True)
class Killings:
    """All instants, and what a reader saw meanwhile."""

    aftermaths: list[Aftermath] = field(repr=False)
    reader: dict[str, Any]


@pytest.fixture(scope="module")
def killings(archive: Archive, servers: list[ForkServer], tmp_path_factory: pytest.TempPathFactory) -> Killings:
    """Every moment in a store of its own, two at a time, with one reader of both."""
    folder = tmp_path_factory.mktemp("killed")
    reader = Reader(folder)

    def lane(number: int) -> list[Aftermath]:
        done = []
        for at, instants in list(enumerate(moments(SEED, INSTANTS, len(archive.states) + 1)))[number :: len(servers)]:
            reader.watch(number, f"store{at}")
            done.append(kill_and_finish(archive.folder, folder / f"store{at}", instants, servers[number]))
        return done

    with ThreadPoolExecutor(len(servers)) as pool:
        aftermaths = [one for lane_done in pool.map(lane, range(len(servers))) for one in lane_done]
    return Killings(aftermaths, reader.report())


def told(bad: list[tuple[Aftermath, Any]]) -> str:
    """The instants at which something went wrong, one a line."""
    return f"seed {SEED}:\n" + "\n".join(f"{', then '.join(map(str, one.moments))}: {what}" for one, what in bad)


def test_the_instants_met_the_run_at_many_places(killings: Killings) -> None:
    settled = [len(one.settled_when_killed) for one in killings.aftermaths]
    assert len(settled) == INSTANTS
    assert min(settled) == 0
    assert len(set(settled)) > 5


def test_after_any_kill_the_clips_are_those_of_an_undisturbed_run(archive: Archive, killings: Killings) -> None:
    def difference(one: Aftermath) -> tuple[int, int]:
        lost = {key for key, vector in archive.clips.items() if one.clips.get(key) != vector}
        return len(lost), len(one.clips.keys() - archive.clips.keys())

    bad = [(one, difference(one)) for one in killings.aftermaths if one.clips != archive.clips]
    assert not bad, told(bad) + "\n(lost or other, too many)"


def test_after_any_kill_the_next_run_succeeds_and_accounts_for_every_file(archive: Archive, killings: Killings) -> None:
    def complaint(one: Aftermath) -> str:
        if one.run.code != 0 or one.run.errors:
            return f"exit code {one.run.code}, {one.run.errors}"
        if one.run.states.keys() != archive.states.keys() or not adds_up(one.run.done):
            return f"the account: {one.run.done}"
        known = {"indexed": "unchanged", "linked": "unchanged"}
        odd = {
            path: state
            for path, state in one.run.states.items()
            if state not in (archive.states[path], known.get(archive.states[path]), "linked")
        }
        return f"states: {odd}" if odd else ""

    bad = [(one, what) for one in killings.aftermaths if (what := complaint(one))]
    assert not bad, told(bad)


def test_what_was_indexed_when_a_run_was_killed_is_not_decoded_again(killings: Killings) -> None:
    bad = []
    for one in killings.aftermaths:
        again = {path for path in one.settled_when_killed if one.run.states[path] == "indexed"}
        if again:
            bad.append((one, sorted(again)))
    assert not bad, told(bad)


def test_no_process_outlives_its_run(killings: Killings) -> None:
    bad = [(one, one.left_behind) for one in killings.aftermaths if one.left_behind]
    assert not bad, told(bad)


def test_a_store_is_consistent_when_killed_and_when_finished(killings: Killings) -> None:
    bad = [(one, wrong) for one in killings.aftermaths if (wrong := [*one.wrong_when_killed, *one.wrong])]
    assert not bad, told(bad)


def test_a_finished_run_leaves_no_picture_twice(killings: Killings) -> None:
    bad = [(one, one.doubled_thumbnails) for one in killings.aftermaths if one.doubled_thumbnails]
    assert not bad, told(bad)


def test_a_reader_never_sees_half_of_anything(killings: Killings) -> None:
    assert killings.reader["wrong"] == []
    assert killings.reader["snapshots"] > 50
    assert killings.reader["searches"] > 10


# One long video that is killed again and again

LONG_CLIPS = 300
LONG_COMMIT_S = 0.2
CLIP_DELAY_S = 0.01
BATCH = 8  # clips that the encoder sees at once


@dataclass(frozen=True)
class Stopped:
    """A run over the long video: how many clips it encoded, and how many the store holds since."""

    encoded: int
    stored: int


@dataclass(frozen=True)
class Resumed:
    """Runs that were killed, and the one that finished."""

    stopped: list[Stopped]
    last_encoded: int
    store: Path
    run: Run


def lines(path: Path) -> int:
    """How many lines a file has; none if it is not there."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stored_clips(store: Path) -> int:
    """Rows of all clips tables, live or not."""
    return sum(DeltaTable(folder).count() for folder in (store / "clips").iterdir() if (folder / "_delta_log").exists())


def killed_at(command: list[str], record: Path, n_clips: int) -> int:
    """Run a command until it has encoded so many clips, kill it, and return how many it had encoded."""
    killed = Killed(often(LONG_COMMIT_S, command), str(record), TINY_RECORD=str(record), TINY_DELAY_S=str(CLIP_DELAY_S))
    end = time.monotonic() + 60
    while lines(record) < n_clips and time.monotonic() < end:
        time.sleep(0.01)
    killed.now(whole_group=True)
    assert lines(record) >= n_clips
    return lines(record)


@pytest.fixture(scope="module")
def long_video(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video of 300 clips."""
    folder = tmp_path_factory.mktemp("long")
    tiled_video(make_video, folder / "long.mp4", seed=1, n_clips=LONG_CLIPS)
    return folder


@pytest.fixture(scope="module")
def long_clips(long_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """What an undisturbed run makes of it."""
    store = tmp_path_factory.mktemp("long_store") / "store"
    assert index(long_video, store).code == 0
    return live_clips(store)


@pytest.fixture(scope="module")
def resumed(long_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """Three runs that are killed once they have encoded 80 clips, then one that may finish."""
    folder = tmp_path_factory.mktemp("resumed")
    command = index_command(long_video, folder / "store")
    stopped = []
    for number in range(3):
        encoded = killed_at(command, folder / f"record{number}", 80)
        stopped.append(Stopped(encoded, stored_clips(folder / "store")))
    record = folder / "record"
    run = index(long_video, folder / "store", TINY_RECORD=str(record))
    return Resumed(stopped, lines(record), folder / "store", run)


def test_a_long_video_that_was_killed_again_and_again_ends_with_the_clips_of_an_undisturbed_run(
    resumed: Resumed, long_clips: Clips
) -> None:
    assert (resumed.run.code, resumed.run.errors) == (0, "")
    assert live_clips(resumed.store) == long_clips
    assert len(long_clips) == LONG_CLIPS


def test_no_clip_that_was_committed_is_encoded_again(resumed: Resumed) -> None:
    stored = 0
    for one in resumed.stopped:
        assert one.stored > stored, resumed.stopped  # each run got further
        stored = one.stored
    assert resumed.last_encoded == LONG_CLIPS - stored, resumed.stopped


def test_at_most_the_uncommitted_batch_is_encoded_twice(resumed: Resumed) -> None:
    uncommitted = LONG_COMMIT_S / CLIP_DELAY_S + 2 * BATCH
    encoded = sum(one.encoded for one in resumed.stopped) + resumed.last_encoded
    assert encoded <= LONG_CLIPS + len(resumed.stopped) * uncommitted, resumed.stopped


def test_a_run_with_other_windows_takes_nothing_from_a_killed_one(
    long_video: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other_windows")
    killed_at(index_command(long_video, folder / "store"), folder / "record", 60)
    run = index(long_video, folder / "store", "--clip", "30")
    assert (run.code, run.errors) == (0, "")
    index(long_video, folder / "undisturbed", "--clip", "30")
    assert live_clips(folder / "store") == live_clips(folder / "undisturbed")
    assert len(live_clips(folder / "store")) == LONG_CLIPS // 3
