"""Walk a folder: every regular file once, in a stable order, and every entry that is passed over with its reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidx.config import IndexOptions
from vidx.errors import InputError
from vidx.indexer.patterns import Selection
from vidx.schema.records import FoundFile, printable

_STORE = {b"store.json", b"files", b"videos", b"indexed"}  # a folder with these in it is a store
_EXCLUDED = "excluded"


@dataclass(frozen=True)
class Skipped:
    """An entry that is not looked at: hidden, excluded, special, a link already covered, an unreadable folder."""

    path: str
    reason: str


def absolute_root(root: Path) -> Path:
    """The absolute form of a folder the user named, links in it kept as the user knows them. Raises InputError."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file", hint="name the folder it is in")
    return Path(os.path.abspath(root))


def is_online(root: Path) -> bool:
    """Whether there is anything below a root; an absent or empty one may be a drive that is unplugged."""
    return root.is_dir() and next(walk(root), None) is not None


def no_files(root: Path) -> InputError:
    """The error for a root that has no files and never had any."""
    if root.is_dir():
        return InputError(f"{root} is empty: there is no file to index", hint="check that the drive is mounted")
    return InputError(f"no folder {root}", hint="check the spelling, or whether the drive is plugged in")


def walk(root: Path, *, follow: bool = False, selection: Selection | None = None) -> Iterator[FoundFile | Skipped]:
    """Depth first, names in byte order. Links to files come last, so that a file under its own name wins.

    Links to folders are not followed: what they reach inside the root is met anyway, and nothing leaves the root. With
    `follow` those that lead out of it are, each folder once. Stores that lie inside the archive are skipped whole, and
    so are folders that a selection leaves out.
    """
    bytes_root = os.fsencode(root)
    text_root = printable(bytes_root)
    wanted = selection or Selection(root, (), ())
    links: list[bytes] = []
    walked: set[tuple[int, int]] | None = set() if follow else None
    yield from _walk_folder(bytes_root, text_root, links, walked, wanted)
    real_root = os.path.realpath(bytes_root)
    seen: set[tuple[int, int]] = set()
    for path in links:  # grows while folders behind links are walked
        is_folder = follow and os.path.isdir(path)
        if wanted.leaves_out(path, is_folder=is_folder):
            yield Skipped(printable(path), _EXCLUDED)
        elif is_folder:
            yield from _walk_folder(path, text_root, links, walked, wanted)
        else:
            yield _follow(path, real_root, bytes_root, seen, wanted)


def _walk_folder(
    folder: bytes, root: str, links: list[bytes], walked: set[tuple[int, int]] | None, wanted: Selection
) -> Iterator[FoundFile | Skipped]:
    pending = [folder]
    while pending:
        folder = pending.pop()
        try:
            if walked is not None and _is_walked(folder, walked):
                yield Skipped(printable(folder), "a folder that is walked already")
                continue
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(printable(folder), f"unreadable folder: {error.strerror}")
            continue
        if {entry.name for entry in entries} >= _STORE:
            yield Skipped(printable(folder), "a vidx store")
            continue
        folders: list[bytes] = []
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name.startswith(b"."):
                yield Skipped(printable(entry.path), "hidden")
            elif entry.is_symlink():
                links.append(entry.path)
            elif wanted.leaves_out(entry.path, is_folder=is_folder):
                yield Skipped(printable(entry.path), _EXCLUDED)
            elif is_folder:
                folders.append(entry.path)
            else:
                yield _regular(entry.path, root)
        pending.extend(reversed(folders))


def _is_walked(folder: bytes, walked: set[tuple[int, int]]) -> bool:
    """Whether a folder was met before under whatever name; from now on it was. Raises OSError."""
    facts = os.stat(folder)
    identity = (facts.st_dev, facts.st_ino)
    met = identity in walked
    walked.add(identity)
    return met


def _regular(path: bytes, root: str) -> FoundFile | Skipped:
    try:
        facts = os.stat(path)
    except OSError as error:
        return Skipped(printable(path), f"gone or dangling: {error.strerror}")
    if not stat.S_ISREG(facts.st_mode):
        return Skipped(printable(path), "not a regular file")
    return FoundFile(root, path, facts.st_size, storable_mtime_ns(facts), facts.st_dev)


def storable_mtime_ns(facts: os.stat_result) -> int:
    """Modification time, within what an int64 holds: a wrong clock can set any year."""
    return max(-(2**63), min(facts.st_mtime_ns, 2**63 - 1))


def _follow(
    path: bytes, real_root: bytes, root: bytes, seen: set[tuple[int, int]], wanted: Selection
) -> FoundFile | Skipped:
    try:
        facts = os.stat(path)
    except OSError as error:
        return Skipped(printable(path), f"dangling link: {error.strerror}")
    if stat.S_ISDIR(facts.st_mode):
        return Skipped(printable(path), "link to a folder")
    if _is_walked_to(os.path.realpath(path), real_root, root, wanted) or (facts.st_dev, facts.st_ino) in seen:
        return Skipped(printable(path), "second link to a file")
    seen.add((facts.st_dev, facts.st_ino))
    return _regular(path, printable(root))


def _is_walked_to(target: bytes, real_root: bytes, root: bytes, wanted: Selection) -> bool:
    """Whether the walk hands a file on under its own name, which has no links in it."""
    if not target.startswith(real_root.rstrip(b"/") + b"/"):
        return False
    below = target[len(real_root) :].lstrip(b"/")
    hidden = any(part.startswith(b".") for part in below.split(b"/"))
    return not hidden and not wanted.leaves_out(os.path.join(root, below))


def count_files(root: Path, options: IndexOptions) -> int:
    """How many files a run with these options will look at; for progress bars."""
    selection = Selection(root, options.include, options.exclude, options.patterns_from)
    return sum(isinstance(entry, FoundFile) for entry in walk(root, follow=options.follow, selection=selection))
