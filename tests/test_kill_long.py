"""One long video, whose run is killed again and again: each run goes on where the one before it had committed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable

from vidx.tests.faults.archive import MakeVideo, tiled_video
from vidx.tests.faults.checks import Clips, live_clips
from vidx.tests.faults.commands import Killed, Run, index, index_command
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.often import often

pytestmark = pytest.mark.slow

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
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


def clips_after_a_run(folder: Path, store: Path, server: ForkServer, *arguments: str) -> Clips:
    """The clips of a store after a run to its end."""
    ended = server.run(index_command(folder, store, *arguments))
    assert (ended.code, ended.errors) == (0, "")
    return live_clips(store)


@pytest.fixture(scope="module")
def long_video(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video of 300 clips."""
    folder = tmp_path_factory.mktemp("long")
    tiled_video(make_video, folder / "long.mp4", seed=1, n_clips=LONG_CLIPS)
    return folder


@pytest.fixture(scope="module")
def long_clips(long_video: Path, server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """What an undisturbed run makes of it."""
    return clips_after_a_run(long_video, tmp_path_factory.mktemp("long_store") / "store", server)


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
    long_video: Path, server: ForkServer, tmp_path: Path
) -> None:
    killed_at(index_command(long_video, tmp_path / "store"), tmp_path / "record", 60)
    assert stored_clips(tmp_path / "store") > 0
    clips = clips_after_a_run(long_video, tmp_path / "store", server, "--clip", "30")
    assert clips == clips_after_a_run(long_video, tmp_path / "new", server, "--clip", "30")
    assert len(clips) == LONG_CLIPS // 3
