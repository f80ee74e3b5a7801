"""`vidx index --watch`: what is copied, renamed, overwritten and deleted below a folder that is followed."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from vidx.errors import InputError
from vidx.indexer import watch
from vidx.indexer.walk import Skipped, walk
from vidx.indexer.watch import SameEncoders, Settling, is_written, rounds
from vidx.schema.lock import locked
from vidx.schema.records import FoundFile
from vidx.schema.store import Store
from vidx.tests.faults.archive import MakeVideo
from vidx.tests.faults.commands import environment, index_command, one_line
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import COLOURS, Place, coloured_video

LONG_AGO = 10**9
SETTLE_S = 2.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")


class Watching:
    """A running `vidx index --watch`."""

    def __init__(self, root: Path, store: Path, *arguments: str) -> None:
        command = index_command(root, store, "--watch", "--settle", str(SETTLE_S), *arguments, workers=1)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        readers = [(self.process.stdout, self._lines.put), (self.process.stderr, self.errors.append)]
        self._threads = [threading.Thread(target=self._read, args=reader, daemon=True) for reader in readers]
        for thread in self._threads:
            thread.start()

    def _read(self, lines: IO[str], take: Callable[[str], None]) -> None:
        for line in lines:
            take(line)

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The next event that has these fields."""
        end = time.monotonic() + 240
        while True:
            event = json.loads(self._lines.get(timeout=max(0.1, end - time.monotonic())))
            self.events.append(event)
            if wanted.items() <= event.items():
                return dict(event)

    def states(self, path: Path) -> list[str]:
        """What rounds have said of a file so far, but that it is unchanged."""
        told = [e["state"] for e in self.events if e["event"] == "file" and e["path"] == str(path)]
        return [state for state in told if state != "unchanged"]

    def end(self, number: int) -> tuple[int, str]:
        """Exit code and standard error after a signal."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=120)
        for thread in self._threads:
            thread.join(timeout=60)
        return code, "".join(self.errors)


@pytest.fixture(scope="module")
def videos(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with red.mp4, green.mp4 and blue.mp4 of one clip each."""
    folder = tmp_path_factory.mktemp("colours")
    for colour in COLOURS:
        coloured_video(make_video, folder / f"{colour}.mp4", colour)
        os.utime(folder / f"{colour}.mp4", (LONG_AGO, LONG_AGO))
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture
def place(server: ForkServer, tmp_path: Path) -> Place:
    return Place(tmp_path / "store", server)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


def copy_slowly(source: Path, path: Path, seconds: float) -> None:
    """As a copy over a slow line does."""
    content, n = source.read_bytes(), 10
    with open(path, "wb") as file:
        for number in range(n):
            file.write(content[number * len(content) // n : (number + 1) * len(content) // n])
            file.flush()
            time.sleep(seconds / n)


# Whole processes


@pytest.mark.slow
def test_what_comes_is_indexed_once_and_whole(videos: Path, root: Path, place: Place) -> None:
    """The folder is empty at first; a slow copy, one that stalls, a rename into place, a deletion, a moved folder."""
    watching = Watching(root, place.store)
    watching.until(event="watching")
    copy_slowly(videos / "red.mp4", root / "red.mp4", 2 * SETTLE_S)
    assert watching.until(event="file", path=str(root / "red.mp4"))["state"] == "indexed"
    watching.until(event="watching")
    assert place.first("red")["online"] is True

    (root / "sub").mkdir()
    with open(root / "sub" / "green.part", "wb") as stalled:
        content = (videos / "green.mp4").read_bytes()
        stalled.write(content[:-500])
        stalled.flush()
        time.sleep(2 * SETTLE_S)
        stalled.write(content[-500:])
    (root / "sub" / "green.part").rename(root / "sub" / "green.mp4")
    assert watching.until(event="file", path=str(root / "sub" / "green.mp4"))["state"] == "indexed"
    watching.until(event="watching")

    (root / "red.mp4").unlink()
    watching.until(event="file", path=str(root / "red.mp4"), state="missing")
    watching.until(event="watching")
    (root / "sub").rename(root / "moved")
    assert watching.until(event="file", path=str(root / "moved" / "green.mp4"))["state"] == "linked"
    watching.until(event="watching")
    assert place.first("green")["paths"] == [str(root / "moved" / "green.mp4")]

    code, errors = watching.end(signal.SIGTERM)
    assert code == 130
    assert errors == "Error: interrupted; what was finished is kept; run the same command again to go on\n"
    told = {event["state"] for event in watching.events if event["event"] == "file"}
    assert told <= {"indexed", "linked", "unchanged", "missing"}
    first, *later = watching.states(root / "red.mp4")
    assert (first, set(later)) == ("indexed", {"missing"})
    assert place.index(root).done["clips"] == 0


@pytest.mark.slow
def test_a_watch_that_was_killed_goes_on_where_it_stopped(videos: Path, root: Path, place: Place) -> None:
    shutil.copy2(videos / "red.mp4", root)
    watching = Watching(root, place.store)
    watching.until(event="file", path=str(root / "red.mp4"), state="indexed")
    watching.until(event="watching")
    with open(root / "red.mp4", "r+b") as file:
        file.write((videos / "blue.mp4").read_bytes())  # as long as the old one or not: it is overwritten
        file.truncate()
    assert watching.end(signal.SIGKILL)[0] == -9
    shutil.copy2(videos / "green.mp4", root)
    watching = Watching(root, place.store)
    watching.until(event="file", path=str(root / "green.mp4"), state="indexed")
    watching.until(event="file", path=str(root / "red.mp4"), state="indexed")
    watching.until(event="watching")
    assert (place.status()["retired"], place.status()["ok"]) == (1, 2)
    place.index(root)  # which finds the store unlocked between rounds
    with locked(Store.open(place.store)):
        shutil.copy2(videos / "blue.mp4", root)
        end = time.monotonic() + 120
        while not watching.errors and time.monotonic() < end:
            time.sleep(0.1)
    assert "this is tried again" in watching.errors[0]
    assert watching.until(event="file", path=str(root / "blue.mp4"))["state"] == "linked"
    assert watching.end(signal.SIGINT)[0] == 130


@pytest.mark.slow
def test_options_that_make_no_sense_beside_it_are_refused(place: Place, root: Path, tmp_path: Path) -> None:
    def tried(*arguments: str) -> Any:
        return place.server.run(["vidx", "index", *arguments, "--store", str(place.store)])

    one_line(tried(str(root), "--settle", "3"), 2, "--watch")
    one_line(tried(str(root), "--watch", "--strict"), 2, "--watch")
    one_line(tried("--watch", "--rebuild-index"), 2, "--watch")
    one_line(tried("--watch", str(tmp_path / "nothing")), 2, "nothing")
    assert not place.store.exists()


def test_without_watchfiles_a_line_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(InputError) as caught:
        next(rounds(root, root / "store", Settling(10), print))
    assert caught.value.hint == "pip install 'vidx[watch]'"


def test_an_encoder_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidx.encoders.build", lambda spec: SimpleNamespace(spec=spec))
    build: Any = SameEncoders()
    assert build("a") is build("a")
    assert build("b").spec == "b"


# What counts as whole


class Clock:
    """In place of the module `time`: seconds that pass when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1e9
        monkeypatch.setattr(watch, "time", self)

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return time.time_ns()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def taken(settling: Settling, root: Path) -> list[str]:
    """Names of the files that a run would take."""
    entries = [entry for entry in walk(root) if settling.is_settled(entry)]
    return sorted(os.path.basename(entry.path) for entry in entries if isinstance(entry, FoundFile))


def test_a_new_file_is_taken_once_it_has_not_changed_for_the_time_given(root: Path, clock: Clock) -> None:
    settling = Settling(10)
    (root / "old.mp4").write_text("x")
    os.utime(root / "old.mp4", (LONG_AGO, LONG_AGO))
    (root / "new.mp4").write_text("x")
    assert taken(settling, root) == ["old.mp4"]
    for _ in range(3):
        clock.now_s += 9
        (root / "new.mp4").write_text((root / "new.mp4").read_text() + "x")
        assert not settling.is_due()
        assert taken(settling, root) == ["old.mp4"]
    clock.now_s += 9.9
    assert not settling.is_due()
    clock.now_s += 0.1
    assert settling.is_due()
    assert taken(settling, root) == ["new.mp4", "old.mp4"]
    clock.now_s += 100
    assert not settling.is_due()  # nothing has happened since
    assert taken(settling, root) == ["new.mp4", "old.mp4"]
    assert settling.is_settled(Skipped("/a/b", "hidden"))


@linux
def test_a_file_that_is_open_for_writing_is_not_whole_however_long_it_stalls(root: Path, clock: Clock) -> None:
    settling = Settling(10)
    with open(root / "a.mp4", "wb") as file:
        file.write(b"half")
        file.flush()
        assert is_written(os.fsencode(root / "a.mp4"))
        settling.note(os.fsencode(root / "a.mp4"), is_new=True)
        clock.now_s += 1000
        assert not settling.is_due()
        assert taken(settling, root) == []
        on_a_network_drive = Settling(10, is_local=False)
        on_a_network_drive.note(os.fsencode(root / "a.mp4"), is_new=True)
        clock.now_s += 10
        assert on_a_network_drive.is_due()
    with open(root / "a.mp4", "rb"):  # readers don't count
        assert settling.is_due()
    assert taken(settling, root) == ["a.mp4"]


def test_a_file_that_is_overwritten_waits_again_and_one_that_goes_brings_a_run(root: Path, clock: Clock) -> None:
    path, settling = root / "a.mp4", Settling(10)
    path.write_text("first")
    settling.note(os.fsencode(path), is_new=True)
    clock.now_s += 10
    assert settling.is_due()
    assert taken(settling, root) == ["a.mp4"]
    path.write_text("second")
    settling.note(os.fsencode(path), is_new=False)
    assert taken(settling, root) == []
    clock.now_s += 5
    path.unlink()
    settling.note(os.fsencode(path), is_new=False)
    assert not settling.is_due()
    clock.now_s += 10
    assert settling.is_due()
    assert not settling.is_due()


def test_a_file_that_is_renamed_into_place_waits_under_its_new_name(root: Path, clock: Clock) -> None:
    settling = Settling(10)
    (root / "a.part").write_text("whole")
    settling.note(os.fsencode(root / "a.part"), is_new=True)
    clock.now_s += 9
    (root / "a.part").rename(root / "a.mp4")
    settling.note(os.fsencode(root / "a.part"), is_new=False)
    settling.note(os.fsencode(root / "a.mp4"), is_new=True)
    clock.now_s += 9
    assert not settling.is_due()
    assert taken(settling, root) == []
    clock.now_s += 1
    assert settling.is_due()
    assert taken(settling, root) == ["a.mp4"]


def test_a_folder_that_was_moved_in_brings_a_run_and_one_that_was_written_to_does_not(root: Path, clock: Clock) -> None:
    settling = Settling(10)
    (root / "sub").mkdir()
    settling.note(os.fsencode(root / "sub"), is_new=False)
    clock.now_s += 10
    assert not settling.is_due()
    settling.note(os.fsencode(root / "sub"), is_new=True)
    clock.now_s += 10
    assert settling.is_due()


def test_what_a_run_does_to_a_store_in_the_folder_brings_no_other(root: Path) -> None:
    concerned = [watch._concerns(path, "the store") for path in ("the store/files/a.parquet", "a/.b.mp4", ".c/d.mp4")]
    assert concerned == [False, False, False]
    assert watch._concerns("the store too/a.mp4", "the store")
    assert watch._concerns("the store too/a.mp4", "../elsewhere/store")
    assert watch._concerns(".", "store")


@pytest.mark.parametrize(
    ("mounts", "remote"),
    [
        ("1 0 8:1 / / rw - ext4 /dev/a rw", False),
        ("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / ROOT rw shared:1 - nfs4 host:/a rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / ROOT/nas rw - fuse.sshfs host:/a rw", True),
        ("1 0 8:1 / / rw - nfs host:/ rw\n2 1 8:2 / ROOT rw - fuseblk /dev/b rw", False),
        ("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / ROOT2 rw - cifs host:/a rw", False),
    ],
)
def test_a_folder_on_a_network_drive_is_looked_at_again_and_again(
    mounts: str, remote: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: mounts.replace("ROOT", str(root)))
    assert watch.is_remote(root) is remote


@pytest.mark.slow
@pytest.mark.parametrize("polling", ["", "1"])
def test_a_round_comes_when_a_file_has_come_or_the_folder_itself(
    polling: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", polling)
    settling = Settling(0.5)
    due = rounds(root, root / "store", settling, print)
    next(due)
    (root / "a.mp4").write_text("x")
    next(due)
    assert taken(settling, root) == ["a.mp4"]
    root.rename(root.with_name("unplugged"))
    next(due)
    assert not root.exists()
    root.with_name("unplugged").rename(root)
    next(due)
    assert taken(settling, root) == ["a.mp4"]
