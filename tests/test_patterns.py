"""Which files `--include` and `--exclude` leave, beside what git makes of the same patterns."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vidx.errors import InputError
from vidx.indexer.patterns import Selection
from vidx.indexer.walk import Skipped, walk
from vidx.schema.records import FoundFile

Ignored = Callable[[bytes, tuple[str, ...]], set[bytes]]

NAMES = [b"a", b"b", b"ab", b"ba", b"a b", b"b ", b"a]", b"#a", b"!b", b"a\\", b"a-b", b"5\nb"]
SEGMENTS = ["a", "b", "ab", "*", "**", "***", "?", "a*", "*b", "*a*b", "b?", "[ab]", "[!a]*", "[^b]", "\\a", "[]a]"]
patterns = st.builds(
    lambda taken_back, anchor, segments, end: taken_back + anchor + "/".join(segments) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3),
    st.sampled_from(["", "", "/", " ", "\\ "]),
)
# Not compared: `a**`, which git reads otherwise than gitignore(5) has it, `\/`, and `?` beyond ASCII, in git a byte.
anything = st.text("ab*?[]!-^/\\# :", max_size=8).filter(lambda text: not re.search(r"[^/*]\*\*|\\/", text))
trees = st.sets(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def ignored(tmp_path_factory: pytest.TempPathFactory) -> Ignored:
    """A function that tells which files below a folder git ignores for a list of patterns."""
    if shutil.which("git") is None:
        pytest.skip("there is no git to compare with")
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "--quiet", "--bare", folder / "repository"], check=True)

    def run(root: bytes, lines: tuple[str, ...]) -> set[bytes]:
        (folder / "lines").write_text("\n".join(lines))
        where = [b"--git-dir=" + os.fsencode(folder / "repository"), b"--work-tree=" + root]
        command = [b"git", *where, b"ls-files", b"-o", b"-z", b"-X", os.fsencode(folder / "lines")]
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
        return files_in(root) - set(listed.split(b"\0"))

    return run


def files_in(root: bytes) -> set[bytes]:
    return {os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def touch(root: bytes, *paths: bytes) -> None:
    """Make files; one that is in the place of a folder, or below another, is left out."""
    for path in paths:
        file = os.path.join(root, path)
        try:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            open(file, "ab").close()
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue


def found(
    root: bytes, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (), base: Path | None = None
) -> set[bytes]:
    path = Path(os.fsdecode(root))
    entries = walk(path, selection=Selection(path, include, exclude, base))
    return {os.path.relpath(entry.path_bytes, root) for entry in entries if isinstance(entry, FoundFile)}


def left_out(root: Path, **options: tuple[str, ...]) -> list[str]:
    """Paths of entries that are passed over, below the root, in order."""
    selection = Selection(root, options.get("include", ()), options.get("exclude", ()))
    entries = [entry for entry in walk(root, selection=selection) if isinstance(entry, Skipped)]
    assert {entry.reason for entry in entries} <= {"excluded"}
    return [os.path.relpath(entry.path, root) for entry in entries]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, include=st.lists(patterns, max_size=3), exclude=st.lists(patterns, max_size=4))
def test_a_walk_hands_on_what_git_would_select(
    ignored: Ignored, tree: set[bytes], include: list[str], exclude: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as path:
        root = os.fsencode(path)
        touch(root, *sorted(tree))
        wanted = ignored(root, tuple(include)) if include else files_in(root)
        assert found(root, tuple(include), tuple(exclude)) == wanted - ignored(root, tuple(exclude))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, before=patterns, text=anything)
def test_any_text_selects_what_git_would_select_and_what_is_refused_selects_nothing(
    ignored: Ignored, tree: set[bytes], before: str, text: str
) -> None:
    assume(before[0] not in "!")
    with tempfile.TemporaryDirectory() as path:
        root = os.fsencode(path)
        touch(root, *sorted(tree))
        try:
            Selection(Path(path), (), (text,))
            known = (before, text)
        except InputError:
            known = (before,)
        assert found(root, exclude=known) == files_in(root) - ignored(root, (before, text))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.lrf", ["a.lrf", "sub/b.lrf", "sub/deep/c.lrf"]),
        ("/*.lrf", ["a.lrf"]),
        ("sub/*.lrf", ["sub/b.lrf"]),
        ("sub/**/*.lrf", ["sub/b.lrf", "sub/deep/c.lrf"]),
        ("**/deep/*", ["sub/deep/c.lrf", "sub/deep/d.mp4"]),
        ("deep/", ["sub/deep"]),
        ("deep", ["sub/deep"]),
        ("sub/deep/**", ["sub/deep/c.lrf", "sub/deep/d.mp4"]),
        ("/deep/", []),
        ("e.mp4/", []),
        ("s**/deep", ["sub/deep"]),  # other stars in a row are as one, as gitignore(5) has it
        ("[[:digit:]]*", ["1.mp4"]),
        ("?.mp4", ["1.mp4", "sub/deep/d.mp4", "sub/é.mp4"]),
        ("#.mp4", []),
        ("", []),
    ],
)
def test_a_pattern_leaves_out_files_and_whole_folders(root: Path, pattern: str, expected: list[str]) -> None:
    tree = ["1.mp4", "a.lrf", "sub/b.lrf", "sub/é.mp4", "sub/deep/c.lrf", "sub/deep/d.mp4"]
    touch(os.fsencode(root), *(os.fsencode(path) for path in tree))
    assert sorted(left_out(root, exclude=(pattern,))) == expected


def test_the_last_pattern_that_fits_decides_and_what_is_in_a_folder_left_out_stays_so(root: Path) -> None:
    touch(os.fsencode(root), b"a.mp4", b"keep/a.mp4", b"drop/keep.mp4")
    assert left_out(root, exclude=("*.mp4", "!/keep/*.mp4")) == ["a.mp4", "drop/keep.mp4"]
    assert left_out(root, exclude=("drop/", "!keep.mp4")) == ["drop"]
    assert left_out(root, exclude=("*", "!keep/", "!*.mp4")) == ["drop"]


def test_include_leaves_only_what_it_selects_and_exclude_takes_from_that(root: Path) -> None:
    touch(os.fsencode(root), b"a.mxf", b"a.mp4", b"news/a.mp4", b"news/raw/a.mp4", b"sport/a.mp4")
    at = os.fsencode(root)
    assert found(at, include=("*.mxf", "news/")) == {b"a.mxf", b"news/a.mp4", b"news/raw/a.mp4"}
    assert found(at, include=("*.mxf", "news/"), exclude=("raw/",)) == {b"a.mxf", b"news/a.mp4"}
    assert left_out(root, include=("*.mxf", "news/"), exclude=("raw/",)) == ["a.mp4", "news/raw", "sport/a.mp4"]
    assert found(at, include=("", "# a comment")) == files_in(at)


def test_a_folder_that_is_left_out_is_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(os.fsencode(root), b"a.mp4", b"proxies/1/a.mp4", b"news/a.mp4")
    opened = []

    def scandir(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
        opened.append(os.path.relpath(os.fsdecode(folder), root))
        return real(folder)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert left_out(root, exclude=("proxies/",)) == ["proxies"]
    assert opened == [".", "news"]


def test_names_that_are_not_utf8_are_left_out_as_others_are(root: Path) -> None:
    try:
        touch(os.fsencode(root), b"caf\xe9.mp4", b"caf\xe9/a.mp4", "café.mp4".encode())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    at = os.fsencode(root)
    assert found(at, exclude=("caf*.mp4",)) == {b"caf\xe9/a.mp4"}
    assert found(at, exclude=("caf?/", "café.mp4")) == {b"caf\xe9.mp4"}
    assert found(at, include=(os.fsdecode(b"caf\xe9*"),)) == {b"caf\xe9.mp4", b"caf\xe9/a.mp4"}


def test_a_link_counts_under_its_own_name(root: Path, tmp_path: Path) -> None:
    touch(os.fsencode(tmp_path), b"root/objects/1.mp4", b"outside/a.mp4")
    (root / "named.mp4").symlink_to("objects/1.mp4")
    (root / "other.mp4").symlink_to(tmp_path / "outside" / "a.mp4")
    (root / "folder").symlink_to(tmp_path / "outside")
    assert found(os.fsencode(root), exclude=("objects/",)) == {b"named.mp4", b"other.mp4"}
    assert found(os.fsencode(root), exclude=("other.mp4",)) == {b"objects/1.mp4"}
    for exclude, expected in ((("folder/",), {"folder"}), (("folder/a*",), {"folder/a.mp4"})):
        entries = walk(root, follow=True, selection=Selection(root, (), exclude))
        out = {entry.path for entry in entries if isinstance(entry, Skipped) and entry.reason == "excluded"}
        assert out == {str(root / path) for path in expected}


def test_patterns_may_count_from_a_folder_above_the_root(root: Path) -> None:
    touch(os.fsencode(root), b"news/raw/a.mp4", b"news/a.mp4", b"raw/a.mp4")
    below = os.fsencode(root / "news")
    assert found(below, exclude=("/raw/",)) == {b"a.mp4"}
    assert found(below, exclude=("/raw/",), base=root) == {b"a.mp4", b"raw/a.mp4"}
    assert found(below, exclude=("/news/raw/",), base=root) == {b"a.mp4"}
    assert found(below, exclude=("news/",), base=root) == set()
    assert found(below, include=("news/raw/",), base=root) == {b"raw/a.mp4"}
    with pytest.raises(InputError, match="can't count from"):
        found(below, base=root / "raw")


@pytest.mark.parametrize("text", ["a[", "[!", "[[:colour:]]", "a\\", "!", "/", "!/"])
def test_a_text_that_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no pattern"):
        Selection(Path("/"), (), (text,))
