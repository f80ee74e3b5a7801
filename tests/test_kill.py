"""Killed at any instant: what was committed stays, the next run finishes.

VIDX_TEST_SEED is the seed of the random instants, VIDX_TEST_INSTANTS their number. Every message names the instant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vidx.tests.faults.archive import MakeVideo, many_videos
from vidx.tests.faults.checks import Clips, live_clips
from vidx.tests.faults.commands import adds_up, index
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.killing import Aftermath, kill_and_finish, moments
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
def killings(archive: Archive, servers: list[ForkServer], memory_folder: Callable[[], Path]) -> Killings:
    """Every moment in a store of its own, two at a time, with one reader of both."""
    folder = memory_folder()
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
