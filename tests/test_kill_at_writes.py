"""A run that dies before or after any one of its writes, or whose disk refuses it: nothing committed is lost.

Every write of two short runs is taken in turn. The first run goes into a new store. The later one goes into a store of
many small files, finds a new video, a changed one, a renamed one and one that is gone, and compacts at its end. The
first run dies before each of its writes and the later one after each of its own: dying after one write leaves what
dying before the next does.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vidx.errors import StoreMissing
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.archive import MakeVideo, tiled_video
from vidx.tests.faults.checks import Clips, contents, doubled_thumbnails, live_clips
from vidx.tests.faults.commands import adds_up, index_command, parsed
from vidx.tests.faults.fork_server import Finished, ForkServer
from vidx.tests.faults.primitives import Fault

pytestmark = pytest.mark.slow

COMMIT_S = 0.0  # after all that can be committed at all
KILLED = -9


@dataclass(frozen=True)
class Scene:
    """A folder and the store a run starts from (None: there is none yet), its writes, and the clips it ends with.

    `kept` are those of them that were there before.
    """

    folder: Path
    start: Path | None
    calls: list[str]
    clips: Clips
    kept: Clips

    def command(self, store: Path) -> list[str]:
        return index_command(self.folder, store, workers=1)  # so that its writes come in the same order every time


@dataclass(frozen=True)
class Outcome:
    """One fault, the store behind it, and the run that followed."""

    fault: Fault
    call: str
    ended: Finished
    clips_then: Clips
    wrong_then: list[str]
    next_run: Finished
    clips: Clips = field(repr=False)
    wrong: list[str]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ForkServer]]:
    started = [ForkServer(), ForkServer()]
    yield started
    for server in started:
        server.close()


@pytest.fixture(scope="module")
def first_run(make_video: MakeVideo, servers: list[ForkServer], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A video of two clips, its copy, and a file that is no video, into a store that is not there."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "videos").mkdir()
    tiled_video(make_video, folder / "videos" / "v0.mp4", seed=0, n_clips=2)
    shutil.copyfile(folder / "videos" / "v0.mp4", folder / "videos" / "z.mp4")
    (folder / "videos" / "notes.txt").write_text("shopping list")
    return scene(folder / "videos", None, folder / "undisturbed", servers[0])


@pytest.fixture(scope="module")
def later_run(make_video: MakeVideo, servers: list[ForkServer], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The store is one whose run was killed when it was about to compact; the folder has changed since."""
    folder = tmp_path_factory.mktemp("later")
    videos = folder / "videos"
    videos.mkdir()
    for number in range(9):
        tiled_video(make_video, videos / f"v{number}.mp4", seed=10 + number)
    calls = scene(videos, None, folder / "compacted", servers[0]).calls
    assert "compact" in calls
    fault = Fault(calls.index("compact") + 1, kill="before")
    command = index_command(videos, folder / "start", workers=1)
    assert servers[0].run(command, commit_s=COMMIT_S, fault=fault).code == KILLED
    tiled_video(make_video, videos / "new.mp4", seed=20)
    tiled_video(make_video, videos / "v1.mp4", seed=21)
    (videos / "v2.mp4").rename(videos / "renamed.mp4")
    (videos / "v3.mp4").unlink()
    return scene(videos, folder / "start", folder / "undisturbed", servers[0])


def scene(videos: Path, start: Path | None, store: Path, server: ForkServer) -> Scene:
    """Run undisturbed from the store `start` (copied to `store`), and note what it did."""
    if start:
        shutil.copytree(start, store)
    ended = server.run(index_command(videos, store, workers=1), commit_s=COMMIT_S)
    assert (ended.code, ended.errors) == (0, "")
    assert {"write_deltalake", "execute", "make_durable", "fsync", "replace"} <= set(ended.calls)
    clips, before = live_clips(store), live_clips(start) if start else {}
    return Scene(videos, start, ended.calls, clips, {key: clips[key] for key in before.keys() & clips.keys()})


def every_fault(which: Scene, faults: list[Fault], servers: list[ForkServer], folder: Path) -> list[Outcome]:
    """Each fault in a run into a store of its own, followed by a run without any."""

    def lane(number: int) -> list[Outcome]:
        own = faults[number :: len(servers)]
        return [one_fault(which, fault, servers[number], folder / f"store{fault.call}") for fault in own]

    with ThreadPoolExecutor(len(servers)) as pool:
        return [one for done in pool.map(lane, range(len(servers))) for one in done]


def one_fault(which: Scene, fault: Fault, server: ForkServer, store: Path) -> Outcome:
    if which.start:
        shutil.copytree(which.start, store)
    ended = server.run(which.command(store), commit_s=COMMIT_S, fault=fault)
    clips_then, wrong_then = held(store)
    next_run = server.run(which.command(store), commit_s=COMMIT_S)
    clips, wrong = held(store, finished=True)
    shutil.rmtree(store)
    return Outcome(fault, which.calls[fault.call - 1], ended, clips_then, wrong_then, next_run, clips, wrong)


def held(store: Path, *, finished: bool = False) -> tuple[Clips, list[str]]:
    """The live clips of a store, and what is wrong with it; one that no run has finished may not be there yet."""
    try:
        snapshot = Snapshot(Store.open(store))
    except StoreMissing:
        return {}, []
    contained = contents(snapshot)
    wrong = contained.violations
    if finished and (rows := doubled_thumbnails(snapshot)):
        wrong.append(f"pictures are there twice: {rows}")
    return contained.clips, wrong


def check_nothing_is_lost(which: Scene, outcomes: list[Outcome]) -> None:
    """Neither at once nor after the next run, which succeeds and does again only what was not committed."""
    bad = [f"{one.fault} at {one.call}: {what}" for one in outcomes if (what := complaint(which, one))]
    assert not bad, "\n".join(bad)


def complaint(which: Scene, one: Outcome) -> str:
    """What is wrong with a store after a fault, or with the run that followed."""
    if one.wrong_then or one.wrong:
        return f"{one.wrong_then}, then {one.wrong}"
    if lost := [key for key, vector in which.kept.items() if one.clips_then.get(key) != vector]:
        return f"{len(lost)} clips lost at once"
    run = parsed(one.next_run.code, one.next_run.printed, one.next_run.errors)
    if run.code != 0 or run.errors:
        return f"exit code {run.code}: {run.errors}"
    if not adds_up(run.done) or run.done["files"] != len(list(which.folder.iterdir())):
        return f"the account: {run.done}"
    if one.clips != which.clips:
        lost = [key for key, vector in which.clips.items() if one.clips.get(key) != vector]
        return f"{len(lost)} clips lost, {len(one.clips.keys() - which.clips.keys())} too many"
    missing = {key[0] for key in which.clips} - {key[0] for key in one.clips_then}
    return f"{run.done['indexed']} videos done again" if run.done["indexed"] > len(missing) else ""


def test_a_first_run_that_dies_before_any_write_is_finished_by_the_next(
    first_run: Scene, servers: list[ForkServer], memory_folder: Callable[[], Path]
) -> None:
    faults = [Fault(n, kill="before") for n in range(1, len(first_run.calls) + 1)]
    check_deaths(first_run, every_fault(first_run, faults, servers, memory_folder()))


def test_a_later_run_that_dies_after_any_write_is_finished_by_the_next(
    later_run: Scene, servers: list[ForkServer], memory_folder: Callable[[], Path]
) -> None:
    faults = [Fault(n, kill="after") for n in range(1, len(later_run.calls) + 1)]
    check_deaths(later_run, every_fault(later_run, faults, servers, memory_folder()))


def check_deaths(which: Scene, outcomes: list[Outcome]) -> None:
    assert [one.fault for one in outcomes if one.ended.code != KILLED] == []
    check_nothing_is_lost(which, outcomes)


def is_first_or_last(calls: list[str], n: int) -> bool:
    """Whether the n-th call, counted from 1, is the first or the last of its kind."""
    return calls[n - 1] not in calls[: n - 1] or calls[n - 1] not in calls[n:]


@pytest.mark.parametrize("which", ["first_run", "later_run"])
def test_a_run_whose_disk_refuses_any_write_says_so_in_one_line_and_is_finished_by_the_next(
    which: str, servers: list[ForkServer], request: pytest.FixtureRequest, memory_folder: Callable[[], Path]
) -> None:
    """By turns the disk is full and fails. Taking a file away may fail in silence: one that stays does no harm."""
    run: Scene = request.getfixturevalue(which)
    places = [n for n, call in enumerate(run.calls, 1) if call != "unlink"]
    if run.start is not None:  # the first run has been through the rest
        places = [n for n in places if is_first_or_last(run.calls, n)]
    faults = [Fault(n, error=(errno.ENOSPC, errno.EIO)[n % 2]) for n in places]
    outcomes = every_fault(run, faults, servers, memory_folder())
    bad = []
    for one in outcomes:
        said = one.ended.errors
        one_line = said.startswith("Error: ") and said.count("\n") == 1 and "unexpected" not in said
        if one.ended.code != 1 or not one_line:
            bad.append(f"{one.fault} at {one.call}: exit code {one.ended.code}: {said!r}")
    assert not bad, "\n".join(bad)
    check_nothing_is_lost(run, outcomes)
