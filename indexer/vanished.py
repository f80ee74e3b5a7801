"""Rows of the files table whose file is gone: missing where it may come back, forgotten where nothing is lost.

A row is forgotten if its content is at another path now (it was moved), or if it never had a content to be found by.

A drive that is unplugged leaves an empty mount point or none. What is recorded of a file says which device it was on;
where its folder, or the nearest one above that is left, is on another device, nothing is known to have moved.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidx.indexer.walk import storable_mtime_ns
from vidx.schema.records import FoundFile
from vidx.schema.snapshot import Snapshot

_PAGE = 10_000  # rows looked at together


@dataclass(frozen=True)
class Vanished:
    """A recorded file that is not there now."""

    file: FoundFile
    video_id: str | None
    forget: bool
    is_news: bool  # not yet recorded as missing


class Unchanged:
    """Paths that the run has found as they are recorded, so that they need no second look; eight bytes for each.

    That a path which is gone has the eight bytes of one among ten million is a chance of less than one in 10^12; it
    counts as there then, until the next run.
    """

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, path: bytes) -> None:
        self._hashes.append(hash(path))

    def sorted(self) -> np.ndarray:
        """int64 (n,)."""
        return np.sort(np.frombuffer(self._hashes, np.int64))


def knows(snapshot: Snapshot, root: bytes) -> bool:
    """Whether any file below `root` is recorded."""
    first, beyond = _range(root)
    query = "SELECT 1 FROM files WHERE path_bytes >= $first AND path_bytes < $beyond LIMIT 1"
    return bool(snapshot.rows(query, {"first": first, "beyond": beyond}))


def vanished(snapshot: Snapshot, root: bytes, unchanged: Unchanged, *, online: bool) -> Iterator[Vanished]:
    """Recorded files below `root` that are not there. With `online` false the root itself is absent or empty."""
    after, beyond = _range(root)
    met = unchanged.sorted()
    while page := snapshot.rows(_RECORDED, {"after": after, "beyond": beyond, "limit": _PAGE}):
        after = page[-1][1]
        gone = [row for row in _not_in(met, page) if not _is_there(row[1], (row[2], row[3]))]
        elsewhere = _elsewhere(snapshot, {row[5] for row in gone}) if online else set()
        for file_root, path, size, mtime_ns, device, video_id, state in gone:
            needless = video_id is None or video_id in elsewhere
            forget = online and needless and nearest_device(os.path.dirname(path)) == device
            yield Vanished(FoundFile(file_root, path, size, mtime_ns, device), video_id, forget, state != "missing")


def _not_in(met: np.ndarray, page: list[Any]) -> list[Any]:
    """Rows whose path is not one of those met."""
    if not len(met):
        return page
    hashes = np.fromiter((hash(row[1]) for row in page), np.int64, len(page))
    is_met = met[np.minimum(np.searchsorted(met, hashes), len(met) - 1)] == hashes
    return [page[at] for at in np.flatnonzero(~is_met)]


def _elsewhere(snapshot: Snapshot, video_ids: set[str | None]) -> set[str]:
    """Those contents that are at some recorded path now."""
    rows = snapshot.rows(
        "SELECT video_id, path_bytes, size, mtime_ns FROM files WHERE list_contains($ids, video_id)",
        {"ids": sorted(video_id for video_id in video_ids if video_id is not None)},
    )
    return {video_id for video_id, path, *recorded in rows if _is_there(path, tuple(recorded))}


def _is_there(path: bytes, recorded: tuple[int, ...]) -> bool:
    """Whether a file is there; one that can't be looked at is not known to be gone.

    A link in its place must lead to a file of the `recorded` size and modification time.
    """
    try:
        facts = os.stat(path)
        same = recorded == (facts.st_size, storable_mtime_ns(facts))
        is_link = not same and os.path.islink(path)  # asked only where it matters: a call for each file of an archive
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return stat.S_ISREG(facts.st_mode) and not is_link


def nearest_device(folder: bytes) -> int | None:
    """st_dev of a folder, or of the nearest one above it that is there; None where that can't be looked at."""
    while True:
        try:
            return os.stat(folder).st_dev
        except (FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(folder)
        except OSError:
            return None


def _range(root: bytes) -> tuple[bytes, bytes]:
    """Path bytes p below a root are those with first <= p < beyond."""
    prefix = root.rstrip(b"/") + b"/"
    return prefix, prefix[:-1] + b"0"  # the byte after the slash


_RECORDED = """
SELECT root, path_bytes, size, mtime_ns, device, video_id, state FROM files
WHERE path_bytes > $after AND path_bytes < $beyond ORDER BY path_bytes LIMIT $limit
"""
