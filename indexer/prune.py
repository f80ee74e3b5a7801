"""What a store holds of files that have vanished: found, and dropped.

Only files whose folder is there are taken for deleted. A root that is absent or empty, or whose nearest folder is on
another device than the file was, may be a drive that is unplugged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa

from vidx.indexer.vanished import nearest_device
from vidx.indexer.walk import is_online
from vidx.schema.prune import drop
from vidx.schema.records import printable
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.tag_tables import tagging
from vidx.schema.writer import writing

_PAGE = 10_000  # rows looked at together


@dataclass
class Share:
    """What goes of one root, or of contents that no path leads to; a content counts at its first path."""

    paths: list[str] = field(default_factory=list)
    videos: int = 0
    clips: int = 0
    hours: float = 0.0


@dataclass
class Prunable:
    """What can be dropped, by root (None: contents that no path leads to), and what is left for being offline."""

    paths: list[bytes] = field(default_factory=list)
    video_ids: list[str] = field(default_factory=list)
    shares: dict[str | None, Share] = field(default_factory=dict)
    offline: dict[str, int] = field(default_factory=dict)  # missing files by root

    def __bool__(self) -> bool:
        return bool(self.paths or self.video_ids)

    def total(self) -> Share:
        """Of all roots; without paths."""
        shares = self.shares.values()
        return Share([], sum(s.videos for s in shares), sum(s.clips for s in shares), sum(s.hours for s in shares))


def prunable(store: Store, folder: Path | None = None, *, offline_too: bool = False) -> Prunable:
    """Files recorded as missing (below a folder) that are not there now, and contents that no path leads to then.

    `offline_too` takes files of roots that may be unplugged as well. Raises StoreError.
    """
    return _prunable(Snapshot(store), folder, offline_too, None)


def prune(store: Store, found: Prunable, folder: Path | None = None, *, offline_too: bool = False) -> Prunable:
    """Drop what `prunable` found with the same arguments and what still is so; returns that.

    Raises StoreLocked where another process writes to the store or to its tags, StoreError where the disk refuses.
    """
    with writing(store) as writer, tagging(store) as tags:
        now = _prunable(Snapshot(store), folder, offline_too, found)
        drop(writer, tags, now.paths, now.video_ids)
    return now


def _prunable(snapshot: Snapshot, folder: Path | None, offline_too: bool, within: Prunable | None) -> Prunable:
    """`within`: nothing but what was found before."""
    found, seen = Prunable(), _Disk()
    known = None if within is None else set(within.paths)
    for root, path, device in _missing(snapshot, folder):
        if seen.is_there(path):
            continue
        if not offline_too and seen.may_be_unplugged(root, path, device):
            found.offline[root] = found.offline.get(root, 0) + 1
        elif known is None or path in known:
            found.paths.append(path)
            found.shares.setdefault(root, Share()).paths.append(printable(path))
    _add_contents(snapshot, found, None if within is None else set(within.video_ids))
    return found


def _missing(snapshot: Snapshot, folder: Path | None) -> Iterator[tuple[str, bytes, int]]:
    """Root, path and device of files recorded as missing, in the order of their paths."""
    prefix = b"/" if folder is None else os.fsencode(folder).rstrip(b"/") + b"/"
    after, beyond = prefix, prefix[:-1] + b"0"  # the byte after the slash
    while page := snapshot.rows(_MISSING, {"after": after, "beyond": beyond, "limit": _PAGE}):
        yield from page
        after = page[-1][1]


def _add_contents(snapshot: Snapshot, found: Prunable, known: Collection[str] | None) -> None:
    """The contents that only the paths found lead to, and those that no path leads to anyway."""
    snapshot.with_rows("going", pa.table({"path_bytes": pa.array(found.paths, pa.binary())}))
    for video_id, root, clips, duration_s in snapshot.rows(_CONTENTS):
        if known is None or video_id in known:
            found.video_ids.append(video_id)
            share = found.shares.setdefault(root, Share())
            share.videos += 1
            share.clips += clips
            share.hours += duration_s / 3600


class _Disk:
    """What is there now; each folder is looked at once."""

    def __init__(self) -> None:
        self._device_at = cache(nearest_device)
        self._is_online = cache(lambda root: is_online(Path(os.fsdecode(root))))

    def is_there(self, path: bytes) -> bool:
        """Whether there is a file, whatever is in it; one that can't be looked at is not known to be gone."""
        try:
            return stat.S_ISREG(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def may_be_unplugged(self, root: str, path: bytes, device: int) -> bool:
        """Whether a file that is not there may only be out of reach."""
        folder = os.path.dirname(path)
        if self._device_at(folder) != device:
            return True
        while folder != b"/" and printable(folder) != root:
            folder = os.path.dirname(folder)
        return not self._is_online(folder)


_MISSING = """
SELECT root, path_bytes, device FROM files
WHERE state = 'missing' AND path_bytes > $after AND path_bytes < $beyond ORDER BY path_bytes LIMIT $limit
"""
_CONTENTS = """
SELECT lost.video_id, placed.root, coalesce(claimed.n_clips, 0)::BIGINT, coalesce(facts.duration_s, 0) FROM (
    SELECT video_id FROM videos UNION SELECT video_id FROM indexed
) lost
ANTI JOIN (SELECT video_id FROM files ANTI JOIN going USING (path_bytes)) kept USING (video_id)
LEFT JOIN (
    SELECT video_id, arg_min(root, path_bytes) AS root FROM files GROUP BY video_id
) placed USING (video_id)
LEFT JOIN (SELECT video_id, sum(n_clips) AS n_clips FROM newest GROUP BY video_id) claimed USING (video_id)
LEFT JOIN (SELECT video_id, any_value(duration_s) AS duration_s FROM videos GROUP BY video_id) facts USING (video_id)
ORDER BY lost.video_id
"""
