"""Archives as they are: strange names, links in circles, pipes, what may not be read, files that change meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidx.tests.faults.archive import MakeVideo, tiled_video
from vidx.tests.faults.commands import Run, adds_up, bound_by_permissions, environment, finished, index_command, parsed
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import Place, coloured_video, counts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture
def place(server: ForkServer, tmp_path: Path) -> Place:
    return Place(tmp_path / "store", server)


@pytest.fixture
def root(make_video: MakeVideo, tmp_path: Path) -> Path:
    """An archive with one red video."""
    (tmp_path / "archive").mkdir()
    coloured_video(make_video, tmp_path / "archive" / "red.mp4", "red")
    return tmp_path / "archive"


# Names and kinds of entries

NAMES = [
    b"caf\xe9.mp4",
    b"\xff\xfe",
    b"n" * 251 + b".mp4",
    b"line\nbreak.mp4",
    b"-v.mp4",
    b"colon:in:name.mp4",
    b"glob[1]*{a,b}?.mp4",
    b"percent %d %s %41.mp4",
    b'quote\'s "double".mp4',
    b"back\\slash.mp4",
    b"two  spaces .mp4 ",
    "動画 🎬.mp4".encode(),
    b"\x1b[31mred\x07.mp4",
]


def test_a_file_of_any_name_is_indexed_found_missed_and_found_again(
    place: Place, make_video: MakeVideo, tmp_path: Path
) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    for number, name in enumerate(NAMES):
        made = tiled_video(make_video, tmp_path / "made.mp4", seed=number)
        os.rename(made, os.path.join(os.fsencode(root), name))
    assert counts(place.index(root)) == {"indexed": len(NAMES), "clips": len(NAMES)}
    assert counts(place.index(root)) == {"unchanged": len(NAMES)}
    hits = place.search("red")
    assert len(hits) == len(NAMES)
    assert all(hit["online"] for hit in hits)
    root.rename(tmp_path / "unplugged")
    assert counts(place.index(root)) == {"missing": len(NAMES)}
    assert not any(hit["online"] for hit in place.search("red"))
    (tmp_path / "unplugged").rename(root)
    assert counts(place.index(root)) == {"unchanged": len(NAMES)}


def test_whatever_the_names_an_answer_is_a_table_of_one_line_a_hit(
    place: Place, make_video: MakeVideo, tmp_path: Path
) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    for number, name in enumerate(NAMES):
        made = tiled_video(make_video, tmp_path / "made.mp4", seed=number)
        os.rename(made, os.path.join(os.fsencode(root), name))
    place.index(root)
    ended = place.server.run(["vidx", "search", "red", "-k", "100", "--store", str(place.store)])
    assert (ended.code, ended.errors) == (0, "")
    lines = ended.printed.rstrip("\n").split("\n")
    assert len(lines) == 1 + len(NAMES)
    assert all(line.isprintable() for line in lines)


def test_a_folder_of_a_name_that_is_no_utf8_is_an_archive_like_any_other(
    place: Place, root: Path, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.rename(odd)
    assert counts(place.index(odd)) == {"indexed": 1, "clips": 1}
    odd.rename(root)
    assert counts(place.index(odd)) == {"missing": 1}
    assert counts(place.index(root)) == {"linked": 1}


def test_links_in_circles_are_left_alone(place: Place, root: Path) -> None:
    (root / "loop").symlink_to("..")
    (root / "sub").mkdir()
    (root / "sub" / "up").symlink_to("../sub")
    (root / "itself").symlink_to("itself")
    assert counts(place.index(root)) == {"indexed": 1, "skipped": 3, "clips": 1}


def test_circles_end_with_follow_too(place: Place, root: Path, make_video: MakeVideo, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    coloured_video(make_video, outside / "blue.mp4", "blue")
    (outside / "back").symlink_to(root)
    (root / "loop").symlink_to("..")
    (root / "out").symlink_to(outside)
    run = place.index(root, "--follow")
    assert run.done["indexed"] == 2
    assert sorted(Path(path).name for path in place.first("blue")["paths"]) == ["blue.mp4"]


def test_each_file_behind_links_is_counted_once(
    place: Place, root: Path, make_video: MakeVideo, tmp_path: Path
) -> None:
    outside = coloured_video(make_video, tmp_path / "outside.mp4", "blue")
    (root / "inside 1").symlink_to("red.mp4")
    (root / "inside 2").symlink_to(root / "red.mp4")
    (root / "dangling").symlink_to("nothing")
    (root / "out 1").symlink_to(outside)
    (root / "out 2").symlink_to(outside)
    run = place.index(root)
    assert counts(run) == {"indexed": 2, "skipped": 4, "clips": 2}
    assert run.named("skipped") == ["dangling", "inside 1", "inside 2", "out 2"]
    assert place.first("blue")["paths"] == [str(root / "out 1")]


def test_a_pipe_and_a_socket_are_skipped_and_hold_nothing_up(place: Place, root: Path) -> None:
    os.mkfifo(root / "pipe.mp4")
    here = os.getcwd()
    os.chdir(root)  # the path of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.mp4")
            assert counts(place.index(root)) == {"indexed": 1, "skipped": 2, "clips": 1}
    finally:
        os.chdir(here)


# What may not be read


def without_rights(command: list[str]) -> Run:
    """Run a command that has to keep to the permissions of files."""
    run = finished(bound_by_permissions(command))
    return parsed(run.returncode, run.stdout, run.stderr)


def test_a_file_that_may_not_be_read_is_failed_and_tried_again(place: Place, root: Path, make_video: MakeVideo) -> None:
    secret = coloured_video(make_video, root / "secret.mp4", "blue")
    secret.chmod(0)
    command = index_command(root, place.store)
    for first in (True, False):
        run = without_rights(command)
        assert (run.code, run.errors) == (0, "")
        assert run.named("failed") == ["secret.mp4"]
        assert run.named("indexed" if first else "unchanged") == ["red.mp4"]
    [trouble] = place.status("--failed")["failed"]
    assert trouble["path"] == str(secret)
    assert "Permission denied" in trouble["reason"]
    secret.chmod(0o644)
    assert counts(place.index(root)) == {"indexed": 1, "unchanged": 1, "clips": 1}
    assert place.status("--failed")["failed"] == []


def test_a_known_file_that_may_not_be_read_for_a_while_is_known_again(place: Place, root: Path) -> None:
    place.index(root)
    (root / "red.mp4").chmod(0)
    os.utime(root / "red.mp4")
    assert without_rights(index_command(root, place.store)).named("failed") == ["red.mp4"]
    (root / "red.mp4").chmod(0o644)
    run = place.index(root)
    assert (run.done["indexed"], run.done["clips"]) == (0, 0)
    assert place.first("red")["score"] > 0.99


def test_a_folder_that_may_not_be_read_is_skipped_and_what_is_known_in_it_stays(
    place: Place, root: Path, make_video: MakeVideo
) -> None:
    (root / "closed").mkdir()
    coloured_video(make_video, root / "closed" / "blue.mp4", "blue")
    place.index(root)
    (root / "closed").chmod(0)
    try:
        run = without_rights(index_command(root, place.store))
    finally:
        (root / "closed").chmod(0o755)
    assert (run.code, run.errors) == (0, "")
    assert run.named("skipped") == ["closed"]
    assert (run.done["unchanged"], run.done["files"]) == (1, 1)
    assert place.first("blue")["paths"] == [str(root / "closed" / "blue.mp4")]
    assert counts(place.index(root)) == {"unchanged": 2}


# Files that change under a run


def changing(root: Path, place: Place, record: Path, change: Any) -> Run:
    """Index while the encoder is slow; make the change when the first clips were embedded."""
    command = index_command(root, place.store, workers=1)
    variables = environment(TINY_RECORD=str(record), TINY_DELAY_S="0.02")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as process:
        end = time.monotonic() + 60
        while not record.exists() and time.monotonic() < end:
            time.sleep(0.01)
        change()
        printed, errors = process.communicate(timeout=120)
    run = parsed(process.returncode, printed, errors)
    assert (run.code, run.errors) == (0, "")
    assert adds_up(run.done)
    return run


@pytest.fixture
def long_root(make_video: MakeVideo, tmp_path: Path) -> Path:
    """An archive of a video of 100 clips and a short one behind it."""
    (tmp_path / "archive").mkdir()
    tiled_video(make_video, tmp_path / "archive" / "long.mp4", seed=1, n_clips=100)
    tiled_video(make_video, tmp_path / "archive" / "short.mp4", seed=2)
    return tmp_path / "archive"


def test_a_file_that_grows_while_it_is_read_is_failed_and_then_indexed(
    place: Place, long_root: Path, tmp_path: Path
) -> None:
    def grow() -> None:
        with open(long_root / "long.mp4", "ab") as file:
            file.write(b"\0" * 1000)

    run = changing(long_root, place, tmp_path / "record", grow)
    assert (run.named("failed"), run.named("indexed")) == (["long.mp4"], ["short.mp4"])
    assert len(place.search("red")) == 1
    assert counts(place.index(long_root)) == {"indexed": 1, "unchanged": 1, "clips": 100}


def test_a_file_that_is_deleted_while_it_is_read_is_failed(place: Place, long_root: Path, tmp_path: Path) -> None:
    run = changing(long_root, place, tmp_path / "record", (long_root / "long.mp4").unlink)
    assert (run.named("failed"), run.named("indexed")) == (["long.mp4"], ["short.mp4"])
    again = place.index(long_root)
    assert (again.done["files"], again.done["unchanged"]) == (1, 1)


def test_a_file_that_is_deleted_between_listing_and_reading_is_failed(
    place: Place, long_root: Path, tmp_path: Path
) -> None:
    run = changing(long_root, place, tmp_path / "record", (long_root / "short.mp4").unlink)
    assert (run.named("failed"), run.named("indexed")) == (["short.mp4"], ["long.mp4"])
    again = place.index(long_root)
    assert (again.done["files"], again.done["unchanged"]) == (1, 1)
