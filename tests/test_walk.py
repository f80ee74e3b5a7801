"""What the walk hands on and what it passes over, on real folders."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from vidx.config import IndexOptions
from vidx.errors import InputError
from vidx.indexer.walk import Skipped, absolute_root, count_files, is_online, no_files, walk
from vidx.schema.records import FoundFile
from vidx.schema.store import Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(root: Path) -> list[str]:
    """Paths of the files handed on, below the root, in order."""
    return [os.path.relpath(entry.path, root) for entry in walk(root) if isinstance(entry, FoundFile)]


def skipped(root: Path) -> dict[str, str]:
    """Reason of each entry passed over."""
    return {os.path.relpath(entry.path, root): entry.reason for entry in walk(root) if isinstance(entry, Skipped)}


def test_names_come_in_byte_order_and_files_before_the_folders_beside_them(root):
    for name in ("b/2.mp4", "b/10.mp4", "a/z.mp4", "a/b/c.mp4", "é.mp4", "Z.mp4", "a.mp4"):
        touch(root / name)
    expected = ["Z.mp4", "a.mp4", "é.mp4", "a/z.mp4", "a/b/c.mp4", "b/10.mp4", "b/2.mp4"]
    assert found(root) == expected
    assert found(root) == expected


def test_every_regular_file_comes_once_whatever_its_extension(root):
    names = {"clip.MP4", "no_extension", "notes.txt", "deep/er/er/x.mkv", "zero"}
    for name in names:
        touch(root / name, "" if name == "zero" else "x")
    assert sorted(found(root)) == sorted(names)
    assert skipped(root) == {}
    assert count_files(root, IndexOptions()) == len(names)
    assert count_files(root, IndexOptions(exclude=("deep/", "zero"))) == len(names) - 2


def test_a_found_file_carries_the_facts_that_tell_whether_it_changed(root):
    path = touch(root / "a.mp4", "12345")
    os.utime(path, ns=(1, 4_102_444_800_123_456_789))  # in the future
    (entry,) = walk(root)
    facts = path.stat()
    assert entry == FoundFile(str(root), os.fsencode(path), 5, facts.st_mtime_ns, facts.st_dev)
    assert entry.mtime_ns == facts.st_mtime_ns > 4_000_000_000 * 10**9


def test_dot_files_and_dot_folders_are_skipped_unopened(root):
    touch(root / ".hidden.mp4")
    touch(root / ".folder" / "inside.mp4")
    touch(root / "seen.mp4")
    assert found(root) == ["seen.mp4"]
    assert skipped(root) == {".hidden.mp4": "hidden", ".folder": "hidden"}


def test_a_hidden_folder_above_the_root_hides_nothing(tmp_path):
    path = touch(tmp_path / ".cache" / "root" / "a.mp4")
    assert found(path.parent) == ["a.mp4"]


def test_a_fifo_is_skipped_and_does_not_block(root):
    os.mkfifo(root / "pipe.mp4")
    assert found(root) == []
    assert skipped(root) == {"pipe.mp4": "not a regular file"}


def test_a_socket_is_skipped(root, monkeypatch):
    monkeypatch.chdir(root)  # the name of a socket may have about 100 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp4")
        assert found(root) == []
        assert skipped(root) == {"socket.mp4": "not a regular file"}


def test_a_link_to_a_fifo_is_skipped(root, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (root / "link.mp4").symlink_to(tmp_path / "pipe")
    assert found(root) == []
    assert list(skipped(root)) == ["link.mp4"]


def test_a_dangling_link_is_skipped(root):
    (root / "link.mp4").symlink_to(root / "nowhere.mp4")
    assert found(root) == []
    assert skipped(root) == {"link.mp4": "dangling link: No such file or directory"}


def test_a_link_to_itself_is_skipped(root):
    (root / "link.mp4").symlink_to("link.mp4")
    assert found(root) == []
    assert list(skipped(root)) == ["link.mp4"]


def test_a_file_comes_under_its_own_name_even_where_links_to_it_sort_before(root):
    touch(root / "z" / "real.mp4")
    (root / "a_link.mp4").symlink_to(root / "z" / "real.mp4")
    (root / "b_link.mp4").symlink_to("z/real.mp4")
    assert found(root) == ["z/real.mp4"]
    assert skipped(root) == {"a_link.mp4": "second link to a file", "b_link.mp4": "second link to a file"}


def test_two_links_to_one_file_outside_the_root_give_it_once(root, tmp_path):
    touch(tmp_path / "outside.mp4")
    (root / "1.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "2.mp4").symlink_to(tmp_path / "outside.mp4")
    assert found(root) == ["1.mp4"]
    assert skipped(root) == {"2.mp4": "second link to a file"}


def test_a_link_to_a_file_whose_folder_only_starts_like_the_root_is_followed(root):
    sibling = touch(root.with_name("root2") / "a.mp4")
    (root / "link.mp4").symlink_to(sibling)
    assert found(root) == ["link.mp4"]


def test_a_link_to_a_hidden_file_of_the_root_is_the_way_to_it(root):
    touch(root / ".objects" / "a.mp4")
    (root / "a.mp4").symlink_to(root / ".objects" / "a.mp4")
    assert found(root) == ["a.mp4"]


def test_a_folder_link_to_its_own_parent_ends_the_walk_no_later(root):
    touch(root / "sub" / "a.mp4")
    (root / "sub" / "loop").symlink_to("..")
    assert found(root) == ["sub/a.mp4"]
    assert skipped(root) == {"sub/loop": "link to a folder"}


def test_a_folder_link_does_not_lead_out_of_the_root(root, tmp_path):
    touch(tmp_path / "elsewhere" / "secret.mp4")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    assert found(root) == []
    assert skipped(root) == {"out": "link to a folder"}


def test_a_folder_that_vanishes_during_the_walk_is_skipped_and_the_rest_comes(root):
    for name in ("1.mp4", "a/2.mp4", "b/3.mp4"):
        touch(root / name)
    entries = walk(root)
    first = next(entries)
    shutil.rmtree(root / "a")
    gone, last = entries
    assert [os.path.relpath(entry.path, root) for entry in (first, gone, last)] == ["1.mp4", "a", "b/3.mp4"]
    assert gone == Skipped(str(root / "a"), "unreadable folder: No such file or directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_folder_without_permission_is_skipped_and_the_rest_comes(root):
    touch(root / "closed" / "a.mp4")
    touch(root / "open" / "b.mp4")
    (root / "closed").chmod(0)
    try:
        assert found(root) == ["open/b.mp4"]
        assert skipped(root) == {"closed": "unreadable folder: Permission denied"}
    finally:
        (root / "closed").chmod(0o700)


def test_a_file_that_vanishes_during_the_walk_is_skipped(root, tmp_path):
    touch(root / "1.mp4")
    touch(root / "2.mp4")
    entries = walk(root)
    next(entries)
    (root / "2.mp4").unlink()
    assert list(entries) == [Skipped(str(root / "2.mp4"), "gone or dangling: No such file or directory")]


def test_a_name_that_is_not_utf8_keeps_its_bytes_and_gets_a_printable_form(root):
    path = os.path.join(os.fsencode(root), b"caf\xe9.mp4")
    try:
        with open(path, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (entry,) = walk(root)
    assert entry.path_bytes == path
    assert entry.path == f"{root}/caf\\xe9.mp4"
    entry.path.encode("utf-8")


@pytest.mark.parametrize(
    "name", ["n" * 251 + ".mp4", "line\nbreak.mp4", "-dash.mp4", "colon:in:name.mp4", "动画 🎬.mp4"]
)
def test_strange_names_are_found_as_they_are(root, name):
    touch(root / name)
    (entry,) = walk(root)
    assert os.path.basename(entry.path_bytes) == name.encode()


def test_the_root_is_made_absolute_and_keeps_the_links_in_it(root, tmp_path, monkeypatch):
    touch(root / "a.mp4")
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    assert absolute_root(Path("link")) == tmp_path / "link"
    assert absolute_root(Path("root/../root/")) == root


def test_below_a_linked_root_links_to_its_own_files_are_known_as_such(root, tmp_path):
    touch(root / "sub" / "real.mp4")
    (root / "a_link.mp4").symlink_to(root / "sub" / "real.mp4")
    (tmp_path / "link").symlink_to(root)
    entries = list(walk(absolute_root(tmp_path / "link")))
    assert [type(entry) for entry in entries] == [FoundFile, Skipped]
    assert [entry.path for entry in entries] == [f"{tmp_path}/link/sub/real.mp4", f"{tmp_path}/link/a_link.mp4"]


def test_a_store_inside_the_archive_is_skipped_whole_wherever_it_lies(root):
    touch(root / "a.mp4")
    touch(root / "sub" / "files" / "b.mp4")  # a folder of the name of a table is not yet a store
    Store.create(root / "sub" / "deep" / "store")
    assert found(root) == ["a.mp4", "sub/files/b.mp4"]
    assert skipped(root) == {"sub/deep/store": "a vidx store"}


def test_a_root_that_is_a_file_is_refused(root):
    with pytest.raises(InputError, match="is a file"):
        absolute_root(touch(root / "a.mp4"))


def test_a_root_that_is_missing_or_without_any_entry_is_not_online(root):
    assert not is_online(root / "missing")
    (root / "empty" / "folders").mkdir(parents=True)
    assert not is_online(root)
    touch(root / "empty" / ".hidden")
    assert is_online(root)


def test_the_error_for_a_root_without_files_says_what_to_look_at(root):
    assert "no folder" in str(no_files(root / "missing"))
    assert "is empty" in str(no_files(root))
    assert "mounted" in no_files(root).hint


def test_links_out_of_the_root_are_followed_on_request_and_no_folder_twice(root, tmp_path):
    touch(root / "a.mp4")
    touch(tmp_path / "outside" / "b.mp4")
    touch(tmp_path / "outside" / "deep" / "c.mp4")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "link to deep").symlink_to(tmp_path / "outside" / "deep")
    (root / "loop").symlink_to("..")
    (tmp_path / "outside" / "back").symlink_to(root)
    assert found(root) == ["a.mp4"]
    entries = list(walk(root, follow=True))
    files = sorted(os.path.relpath(entry.path, root) for entry in entries if isinstance(entry, FoundFile))
    assert files == ["a.mp4", "link/b.mp4", "link/deep/c.mp4"]
    again = {os.path.relpath(entry.path, root) for entry in entries if isinstance(entry, Skipped)}
    assert {"link to deep", "link/back"} <= again
