"""Stores that are damaged, locked or too new: every command says so in one line, and makes nothing worse."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidx.tests.faults.archive import MakeVideo
from vidx.tests.faults.commands import VIDX, environment, index_command, not_one_line, one_line
from vidx.tests.faults.damage import DATA_DAMAGE, LOG_DAMAGE, TABLES, content, damaged, table_folder
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.shelf import Shelf, answer, commands, make_shelf, readings

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


# Damage


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("how", LOG_DAMAGE)
def test_a_damaged_log_is_told_in_one_line_by_every_command_and_made_no_worse(
    how: str, table: str, shelf: Shelf, copy: Path, server: ForkServer, tmp_path: Path
) -> None:
    folder, bad = table_folder(copy, table), []
    with damaged(folder, LOG_DAMAGE[how], tmp_path / "aside"):
        for name, command in commands(shelf.videos, copy).items():
            before = content(folder)
            if what := not_one_line(server.run(command), 1, "store", folder.name):
                bad.append(f"{name}: {what}")
            if content(folder) != before:
                bad.append(f"{name} writes to it")
    assert not bad, "\n".join(bad)
    assert readings(server, shelf.videos, copy) == shelf.readings


# What a command can't do without; the others it may not notice, but its answer is right then.
NEEDED = {
    "index": {"files", "indexed"},
    "search": {"files", "indexed", "clips"},
    "status": {"files", "indexed", "videos"},
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("how", DATA_DAMAGE)
def test_a_damaged_file_of_a_table_is_told_in_one_line_or_does_not_matter(
    how: str, table: str, shelf: Shelf, copy: Path, server: ForkServer, tmp_path: Path
) -> None:
    folder, bad = table_folder(copy, table), []
    with damaged(folder, DATA_DAMAGE[how], tmp_path / "aside"):
        for name, command in commands(shelf.videos, copy).items():
            ended = server.run(command)
            right = ended.code == 0 and answer(name, ended.printed) == shelf.answers[name] and not ended.errors
            if right and table not in NEEDED[name]:
                continue
            if what := not_one_line(ended, 1, "store"):
                bad.append(f"{name}: {what}")
    assert not bad, "\n".join(bad)
    assert readings(server, shelf.videos, copy) == shelf.readings


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": "one"}', b'{"format": null}'])
@pytest.mark.parametrize("name", ["store.json", "spaces", "unfinished.json"])
def test_a_damaged_small_file_is_told_in_one_line(
    name: str, text: bytes, shelf: Shelf, copy: Path, server: ForkServer
) -> None:
    file = next((copy / "spaces").iterdir()) if name == "spaces" else copy / name
    file.write_bytes(text)
    for command, words in commands(shelf.videos, copy).items():
        if name == "unfinished.json" and command != "index":
            continue  # only the writer reads it
        ended = server.run(words)
        if name == "unfinished.json" and text == b"[]":
            assert (ended.code, ended.errors) == (0, "")
        elif not (name == "spaces" and command == "status"):
            one_line(ended, 1, file.name)


@pytest.mark.parametrize("command", ["index", "search", "status"])
def test_a_store_of_a_later_version_is_left_alone(command: str, shelf: Shelf, copy: Path, server: ForkServer) -> None:
    facts = json.loads((copy / "store.json").read_text())
    (copy / "store.json").write_text(json.dumps({**facts, "format": 99, "unheard": "of"}))
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    one_line(server.run(commands(shelf.videos, copy)[command]), 1, "format 99", "newer vidx")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


# Locks

_HOLD = """
import sys
from pathlib import Path
from vidx.schema.store import Store
from vidx.schema.writer import writing
with writing(Store.open(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(copy: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes to the store."""
    command = [sys.executable, "-c", _HOLD, str(copy)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("arguments", [[], ["--break-lock"]])
def test_a_store_that_a_live_process_writes_to_is_exit_code_4_and_can_be_read(
    arguments: list[str], holder: subprocess.Popen[str], shelf: Shelf, copy: Path, server: ForkServer
) -> None:
    one_line(server.run([*index_command(shelf.videos, copy), *arguments]), 4, f"process {holder.pid} ")
    assert readings(server, shelf.videos, copy) == shelf.readings


def test_the_lock_of_a_process_of_this_host_that_died_is_taken_over(
    holder: subprocess.Popen[str], shelf: Shelf, copy: Path, server: ForkServer
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (copy / "lock.json").exists()
    ended = server.run(index_command(shelf.videos, copy))
    assert (ended.code, ended.errors) == (0, "")
    assert not (copy / "lock.json").exists()


def test_a_lock_that_another_host_left_is_respected_until_it_is_broken(
    holder: subprocess.Popen[str], shelf: Shelf, copy: Path, server: ForkServer
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    note = json.loads((copy / "lock.json").read_text())
    (copy / "lock.json").write_text(json.dumps({**note, "host": "archive-2.example"}))
    one_line(server.run(index_command(shelf.videos, copy)), 4, "archive-2.example", "--break-lock")
    assert readings(server, shelf.videos, copy) == shelf.readings
    for arguments in (["--break-lock"], []):
        ended = server.run([*index_command(shelf.videos, copy), *arguments])
        assert (ended.code, ended.errors) == (0, "")


# Output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["index", "search", "status"])
def test_an_output_that_can_not_be_written_is_one_line(command: str, shelf: Shelf, copy: Path) -> None:
    words = commands(shelf.videos, copy)[command]
    with open("/dev/full", "w") as full:
        ended = subprocess.run([VIDX, *words[1:]], stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    one_line(ended, 1, "No space left on device")
