"""What a run makes of files that were moved, copied, changed, touched, taken away and brought back.

The videos are plain red, green or blue, and the encoder knows these words, so that a search tells where a content is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidx.tests.faults.archive import MakeVideo
from vidx.tests.faults.commands import one_line
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import COLOURS, Place, coloured_video, counts

pytestmark = pytest.mark.slow

LATER_NS = 10**18


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def videos(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with red.mp4, green.mp4 and blue.mp4 of one clip each."""
    folder = tmp_path_factory.mktemp("colours")
    for colour in COLOURS:
        coloured_video(make_video, folder / f"{colour}.mp4", colour)
    return folder


@pytest.fixture
def root(videos: Path, tmp_path: Path) -> Path:
    """An archive of the three."""
    return Path(shutil.copytree(videos, tmp_path / "archive"))


@pytest.fixture
def place(root: Path, server: ForkServer, tmp_path: Path) -> Place:
    """The store of an archive that was indexed once."""
    place = Place(tmp_path / "store", server)
    assert counts(place.index(root)) == {"indexed": 3, "clips": 3}
    return place


def paths(place: Place, colour: str) -> list[str]:
    return list(place.first(colour)["paths"])


# One path


def test_nothing_happened(place: Place, root: Path) -> None:
    assert counts(place.index(root)) == {"unchanged": 3}


def test_a_renamed_file_is_linked_and_its_old_path_forgotten(place: Place, root: Path) -> None:
    (root / "sub").mkdir()
    (root / "red.mp4").rename(root / "sub" / "crimson.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 2}
    assert paths(place, "red") == [str(root / "sub" / "crimson.mp4")]
    assert counts(place.index(root)) == {"unchanged": 3}


def test_files_that_swapped_names_are_linked(place: Place, root: Path) -> None:
    (root / "red.mp4").rename(root / "aside")
    (root / "blue.mp4").rename(root / "red.mp4")
    (root / "aside").rename(root / "blue.mp4")
    assert counts(place.index(root)) == {"linked": 2, "unchanged": 1}
    assert (paths(place, "red"), paths(place, "blue")) == ([str(root / "blue.mp4")], [str(root / "red.mp4")])
    assert place.status()["retired"] == 0


def test_a_copy_is_linked_and_a_hit_lists_both(place: Place, root: Path) -> None:
    shutil.copyfile(root / "red.mp4", root / "a copy.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 3}
    hit = place.first("red")
    assert hit["paths"] == [str(root / "a copy.mp4"), str(root / "red.mp4")]
    assert hit["path"] == str(root / "a copy.mp4")


def test_a_second_hard_link_is_linked(place: Place, root: Path) -> None:
    os.link(root / "red.mp4", root / "z.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 3}


def test_a_touched_file_is_unchanged(place: Place, root: Path) -> None:
    os.utime(root / "red.mp4", ns=(LATER_NS, LATER_NS))
    for _ in range(2):
        assert counts(place.index(root)) == {"unchanged": 3}


def test_a_file_that_was_written_again_with_the_same_content_is_unchanged(place: Place, root: Path) -> None:
    shutil.copyfile(root / "red.mp4", root / "aside")
    (root / "aside").replace(root / "red.mp4")
    assert counts(place.index(root)) == {"unchanged": 3}


def test_a_file_from_the_future_is_indexed_once(place: Place, root: Path, make_video: MakeVideo) -> None:
    coloured_video(make_video, root / "future.mp4", "red", n_clips=2)
    os.utime(root / "future.mp4", ns=(2**62, 2**62))
    assert counts(place.index(root)) == {"indexed": 1, "unchanged": 3, "clips": 2}
    assert counts(place.index(root)) == {"unchanged": 4}
    os.utime(root / "future.mp4", ns=(0, 0))
    assert counts(place.index(root)) == {"unchanged": 4}


def test_other_content_at_a_path_retires_the_old_one(place: Place, root: Path, make_video: MakeVideo) -> None:
    coloured_video(make_video, root / "red.mp4", "blue", n_clips=2)
    assert counts(place.index(root)) == {"indexed": 1, "unchanged": 2, "clips": 2}
    assert {os.path.basename(hit["path"]) for hit in place.search("red")} == {"red.mp4", "green.mp4", "blue.mp4"}
    assert len(place.search("red")) == 3
    assert place.first("red")["score"] < 0.9  # nothing is red any more
    assert (place.status()["retired"], place.status()["videos"]) == (1, 3)


def test_a_retired_content_that_comes_back_is_not_decoded_again(place: Place, root: Path, videos: Path) -> None:
    shutil.copyfile(root / "blue.mp4", root / "red.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 2}
    assert len(place.search("red")) == 2
    shutil.copyfile(videos / "red.mp4", root / "red.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 2}
    assert paths(place, "red") == [str(root / "red.mp4")]
    assert place.first("red")["score"] > 0.99


def test_a_broken_file_that_is_replaced_by_a_good_one_is_indexed(place: Place, root: Path, videos: Path) -> None:
    (root / "new.mp4").write_bytes((videos / "red.mp4").read_bytes()[:500])
    assert counts(place.index(root)) == {"failed": 1, "unchanged": 3}
    shutil.copyfile(videos / "red.mp4", root / "new.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 3}
    assert place.status()["failed"] == 0


# Files that are gone


def test_a_vanished_file_is_missing_and_still_found(place: Place, root: Path) -> None:
    (root / "red.mp4").unlink()
    for _ in range(2):
        run = place.index(root)
        assert counts(run) == {"unchanged": 2, "missing": 1}
        assert run.named("missing") == ["red.mp4"]
        assert run.done["files"] == 2
    hit = place.first("red")
    assert (hit["online"], hit["paths"]) == (False, [str(root / "red.mp4")])
    assert place.status()["missing"] == 1


@pytest.mark.parametrize("instead", ["a folder", "a pipe", "a link to another file"])
def test_a_file_with_something_else_in_its_place_is_missing(place: Place, root: Path, instead: str) -> None:
    (root / "red.mp4").unlink()
    match instead:
        case "a folder":
            (root / "red.mp4").mkdir()
        case "a pipe":
            os.mkfifo(root / "red.mp4")
        case _:
            (root / "red.mp4").symlink_to("green.mp4")
    run = place.index(root)
    assert (run.done["unchanged"], run.done["missing"]) == (2, 1)
    assert place.first("red")["score"] > 0.99
    assert instead == "a link to another file" or place.first("red")["online"] is False


def test_a_file_that_comes_back_is_unchanged(place: Place, root: Path) -> None:
    (root / "red.mp4").rename(root.parent / "aside")
    place.index(root)
    (root.parent / "aside").rename(root / "red.mp4")
    assert counts(place.index(root)) == {"unchanged": 3}
    assert place.first("red")["online"] is True
    assert place.status()["missing"] == 0


def test_a_missing_file_that_comes_back_elsewhere_was_moved(place: Place, root: Path) -> None:
    (root / "red.mp4").rename(root.parent / "aside")
    assert counts(place.index(root)) == {"unchanged": 2, "missing": 1}
    (root.parent / "aside").rename(root / "z.mp4")
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 2}
    assert paths(place, "red") == [str(root / "z.mp4")]


def test_a_vanished_copy_is_forgotten(place: Place, root: Path) -> None:
    shutil.copyfile(root / "red.mp4", root / "copy.mp4")
    place.index(root)
    (root / "copy.mp4").unlink()
    assert counts(place.index(root)) == {"unchanged": 3}
    assert paths(place, "red") == [str(root / "red.mp4")]


def test_a_vanished_file_whose_copy_is_in_another_folder_is_forgotten(place: Place, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copyfile(root / "red.mp4", other / "copy.mp4")
    assert counts(place.index(other)) == {"linked": 1}
    (root / "red.mp4").unlink()
    assert counts(place.index(root)) == {"unchanged": 2}
    assert paths(place, "red") == [str(other / "copy.mp4")]


def test_a_vanished_file_whose_copy_is_offline_is_missing(place: Place, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copyfile(root / "red.mp4", other / "copy.mp4")
    place.index(other)
    other.rename(tmp_path / "unplugged")
    (root / "red.mp4").unlink()
    assert counts(place.index(root)) == {"unchanged": 2, "missing": 1}
    assert paths(place, "red") == [str(root / "red.mp4"), str(other / "copy.mp4")]


# Folders that are gone


@pytest.mark.parametrize("what_is_left", ["nothing", "an empty folder"])
def test_a_drive_that_is_unplugged_loses_nothing(place: Place, root: Path, what_is_left: str) -> None:
    root.rename(root.parent / "unplugged")
    if what_is_left == "an empty folder":
        root.mkdir()
    for _ in range(2):
        run = place.index(root)
        assert (counts(run), run.done["files"]) == ({"missing": 3}, 0)
    for colour in COLOURS:
        assert (place.first(colour)["online"], paths(place, colour)) == (False, [str(root / f"{colour}.mp4")])
    if root.exists():
        root.rmdir()
    (root.parent / "unplugged").rename(root)
    assert counts(place.index(root)) == {"unchanged": 3}
    assert place.first("red")["online"] is True


def test_a_user_is_told_how_many_are_missing_and_what_that_means(place: Place, root: Path) -> None:
    root.rename(root.parent / "unplugged")
    ended = place.server.run(["vidx", "index", str(root), "--store", str(place.store)])
    assert ended.code == 0
    assert "3 missing" in ended.printed
    assert ended.errors.count("\n") == 1
    assert f"{root} is not there or empty" in ended.errors


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_never_had_a_file_is_refused(place: Place, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "nothing").mkdir()
    one_line(place.try_index(tmp_path / "nothing"), 2, str(tmp_path / "nothing"))
    assert place.status()["files"] == 3


def test_what_is_indexed_at_another_root_while_the_first_is_unplugged_is_linked(
    place: Place, root: Path, tmp_path: Path
) -> None:
    """Whether the drive moved or the files were copied is not to be known, so nothing is forgotten."""
    root.rename(tmp_path / "elsewhere")
    assert counts(place.index(tmp_path / "elsewhere")) == {"linked": 3}
    assert counts(place.index(root)) == {"missing": 3}
    hit = place.first("red")
    assert (hit["online"], hit["path"]) == (True, str(tmp_path / "elsewhere" / "red.mp4"))
    assert len(hit["paths"]) == 2


def test_a_run_marks_only_what_lies_below_its_folder(place: Place, root: Path, tmp_path: Path) -> None:
    beside = tmp_path / "archive two"  # the name of the first is the beginning of its own
    beside.mkdir()
    shutil.copyfile(root / "green.mp4", beside / "one.mp4")
    (root / "red.mp4").unlink()
    assert counts(place.index(beside)) == {"linked": 1}
    assert place.status()["missing"] == 0
    assert counts(place.index(root)) == {"unchanged": 2, "missing": 1}
    assert counts(place.index(beside)) == {"unchanged": 1}


def test_folders_within_folders_share_their_rows(place: Place, root: Path) -> None:
    (root / "sub").mkdir()
    (root / "red.mp4").rename(root / "sub" / "red.mp4")
    assert counts(place.index(root / "sub")) == {"linked": 1}
    assert counts(place.index(root)) == {"unchanged": 3}
    assert counts(place.index(root / "sub")) == {"unchanged": 1}
    assert paths(place, "red") == [str(root / "sub" / "red.mp4")]
    (root / "sub" / "red.mp4").unlink()
    assert counts(place.index(root)) == {"unchanged": 2, "missing": 1}
    assert counts(place.index(root / "sub")) == {"missing": 1}
    assert place.status()["files"] == 3
