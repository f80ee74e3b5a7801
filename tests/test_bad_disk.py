"""Disks that are read-only or full: one line, and what was committed stays and can be searched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vidx.tests.faults.archive import MakeVideo, tiled_video
from vidx.tests.faults.checks import live_clips
from vidx.tests.faults.commands import (
    VIDX,
    bound_by_permissions,
    finished,
    index_command,
    not_one_line,
    one_line,
)
from vidx.tests.faults.fork_server import Finished, ForkServer
from vidx.tests.faults.shelf import Shelf, answer, commands, make_shelf

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def shelf(make_video: MakeVideo, server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return make_shelf(make_video, server, tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def copy(shelf: Shelf, tmp_path: Path) -> Path:
    """A copy of the store that may be damaged for good."""
    return Path(shutil.copytree(shelf.store, tmp_path / "store"))


@dataclass(frozen=True)
class Disk:
    """A small disk of its own."""

    path: Path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True, capture_output=True)

    def fill(self, free_bytes: int) -> None:
        """Take all room but so much."""
        facts = os.statvfs(self.path)
        room = facts.f_bavail * facts.f_frsize - free_bytes
        with open(self.path / "ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, room))

    def free(self) -> None:
        (self.path / "ballast").unlink()


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    """8 MB in memory; skips where mounting is not allowed."""
    if shutil.which("mount") is None:
        pytest.skip("there is no command to mount a small disk with")
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes more rights than this user has")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def check_read_only(shelf: Shelf, store: Path) -> None:
    """A store that can't be written is told in one line by what writes, and read by the rest."""
    for name, command in commands(shelf.videos, store).items():
        ended = finished(bound_by_permissions([VIDX, *command[1:]]))
        if name == "index":
            one_line(ended, 1, "can't write to the store", str(store))
        else:
            assert (ended.returncode, ended.stderr) == (0, ""), name
            assert answer(name, ended.stdout) == shelf.answers[name]


def test_a_store_on_a_read_only_disk_can_be_searched(shelf: Shelf, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = Path(shutil.copytree(shelf.store, disk.path / "store"))
        disk.remount("ro")
        check_read_only(shelf, store)


def test_a_store_that_may_not_be_written_can_be_searched(shelf: Shelf, copy: Path) -> None:
    for folder, _, files in os.walk(copy, topdown=False):
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
        os.chmod(folder, 0o555)
    try:
        check_read_only(shelf, copy)
    finally:
        for folder, _, _ in os.walk(copy):
            os.chmod(folder, 0o755)


@pytest.fixture(scope="module")
def more_videos(shelf: Shelf, make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of the shelf at other paths, and a long one."""
    folder = tmp_path_factory.mktemp("more")
    for video in shelf.videos.iterdir():
        shutil.copyfile(video, folder / video.name)
    tiled_video(make_video, folder / "long.mp4", seed=50, n_clips=150)
    return folder


@dataclass(frozen=True)
class Squeezed:
    """A store whose disk was full again and again: what runs said then, and what was lost of what they had kept."""

    store: Path
    refusals: list[Finished]
    lost: list[str]
    last: Finished


def squeezed(command: list[str], store: Path, disk: Disk, server: ForkServer, free_kb: tuple[int, ...]) -> Squeezed:
    """Run a command with little room and then a little more, each time; at last with all the room there is."""
    refusals, lost = [], []
    before = live_clips(store) if store.exists() else {}
    for room_kb in free_kb:
        disk.fill(room_kb * 1024)
        ended = server.run(command, commit_s=0.05)
        disk.free()
        if ended.code != 0:
            refusals.append(ended)
        after = live_clips(store) if (store / "store.json").exists() else {}
        if gone := [key for key, vector in before.items() if after.get(key) != vector]:
            lost.append(f"{len(gone)} clips with {room_kb} kB free")
        before = after
    return Squeezed(store, refusals, lost, server.run(command))


@pytest.fixture(scope="module")
def filled(
    shelf: Shelf, more_videos: Path, server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Squeezed]:
    """The store of the shelf on a small disk, with more videos to come than there is room for."""
    with small_disk(tmp_path_factory.mktemp("filled") / "disk") as disk:
        store = Path(shutil.copytree(shelf.store, disk.path / "store"))
        command = index_command(more_videos, store)
        yield squeezed(command, store, disk, server, (0, 4, 12, 24, 48, 96, 160, 240, 320))


@pytest.fixture(scope="module")
def made(shelf: Shelf, server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Squeezed]:
    """A store that is to be made on a small disk without any room."""
    with small_disk(tmp_path_factory.mktemp("made") / "disk") as disk:
        command = index_command(shelf.videos, disk.path / "store")
        yield squeezed(command, disk.path / "store", disk, server, (0, 4, 16, 32, 48, 64))


def test_a_full_disk_costs_nothing_that_was_committed(filled: Squeezed) -> None:
    assert len(filled.refusals) >= 4
    assert filled.lost == []


def test_with_room_again_the_run_is_finished(
    filled: Squeezed, shelf: Shelf, more_videos: Path, server: ForkServer, tmp_path: Path
) -> None:
    undisturbed = Path(shutil.copytree(shelf.store, tmp_path / "undisturbed"))
    assert server.run(index_command(more_videos, undisturbed)).code == 0
    assert (filled.last.code, filled.last.errors) == (0, "")
    assert live_clips(filled.store) == live_clips(undisturbed)


def test_a_store_that_found_no_room_to_be_made_is_made_later(made: Squeezed, shelf: Shelf) -> None:
    assert made.refusals
    assert (made.last.code, made.last.errors) == (0, "")
    assert live_clips(made.store) == live_clips(shelf.store)


@pytest.mark.parametrize("which", ["filled", "made"])
def test_a_full_disk_is_told_in_one_line(which: str, request: pytest.FixtureRequest) -> None:
    refusals: list[Finished] = request.getfixturevalue(which).refusals
    assert [what for ended in refusals if (what := not_one_line(ended, 1, "store"))] == []
