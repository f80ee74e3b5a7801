"""The clips of a space that count, as ranges of ids: which there are, and their rows.

An attempt takes its ids in one run, so what is live in a store of millions of clips is known from one small row for
each attempt, without reading a clip. A range is live as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vidx.errors import StoreDamaged
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space

_BATCH_ROWS = 8192
_SPANS = 40  # that one query names; Parquet's statistics leave out what lies between them


@dataclass(frozen=True)
class Ranges:
    """Ranges of clip ids in ascending order: `firsts` and `counts` int64 (R,), counts above 0."""

    firsts: np.ndarray
    counts: np.ndarray

    @property
    def n_clips(self) -> int:
        return int(self.counts.sum())

    @property
    def offsets(self) -> np.ndarray:
        """Where each range begins when all are laid end to end, int64 (R,)."""
        return np.cumsum(self.counts) - self.counts

    def ids(self) -> np.ndarray:
        """All ids, ascending, int64 (n_clips,)."""
        return np.arange(self.n_clips) + np.repeat(self.firsts - self.offsets, self.counts)

    def place(self, ids: np.ndarray) -> np.ndarray:
        """The range of each id, int64 (n,); -1 where none holds it."""
        if len(self.firsts) == 0:
            return np.full(len(ids), -1)
        found = np.searchsorted(self.firsts, ids, side="right") - 1
        return np.where((found >= 0) & (ids < self.firsts[found] + self.counts[found]), found, -1)

    def at(self, chosen: np.ndarray) -> Ranges:
        """Those of a mask bool (R,) or of ascending positions."""
        return Ranges(self.firsts[chosen], self.counts[chosen])

    def also_in(self, other: Ranges) -> np.ndarray:
        """Mask bool (R,) of the ranges that the other has too."""
        if len(self.firsts) == 0 or len(other.firsts) == 0:
            return np.zeros(len(self.firsts), bool)
        near = np.minimum(np.searchsorted(other.firsts, self.firsts), len(other.firsts) - 1)
        same: np.ndarray = (other.firsts[near] == self.firsts) & (other.counts[near] == self.counts)
        return same


@dataclass(frozen=True)
class Clips:
    """Rows in the order of their ids: ids int64 (n,), starts and ends float64 (n, 2), vectors float32 (n, dim)."""

    ids: np.ndarray
    times_s: np.ndarray
    vectors: np.ndarray

    @classmethod
    def empty(cls, n: int, dim: int) -> Clips:
        return cls(np.empty(n, np.int64), np.empty((n, 2)), np.empty((n, dim), np.float32))


def live_ranges(snapshot: Snapshot, space: Space) -> tuple[Ranges, pa.ChunkedArray]:
    """The live ranges of a space, and the video_id of each. A content that no path leads to is not live."""
    rows = snapshot.arrow(
        f"SELECT first_clip_id, n_clips, video_id FROM newest WHERE space = '{space.name}' AND n_clips > 0"
        " AND video_id IN (SELECT video_id FROM files) ORDER BY first_clip_id"
    )
    return Ranges(_array(rows["first_clip_id"]), _array(rows["n_clips"])), rows["video_id"]


def read_into(clips: Clips, snapshot: Snapshot, space: Space, ranges: Ranges) -> None:
    """Fill arrays of `ranges.n_clips` rows, which may be mapped files; a few thousand rows are in memory at once.

    Raises StoreDamaged where rows are missing, or are not what they must be.
    """
    clips.ids[:] = ranges.ids()
    seen, n_read = np.zeros(ranges.n_clips, bool), 0
    for ids, times_s, vectors in batches(snapshot, space, ranges):
        place = ranges.place(ids)
        kept = place >= 0
        rows = (ranges.offsets[place] + ids - ranges.firsts[place])[kept]
        clips.times_s[rows], clips.vectors[rows] = times_s[kept], vectors[kept]
        seen[rows] = True
        n_read += len(rows)
    if not seen.all() or n_read != len(seen):
        raise StoreDamaged(
            f"the clips of {space.name} are not whole: {len(seen)} are recorded and {n_read} can be read",
            hint="restore the store from a backup",
        )


def batches(snapshot: Snapshot, space: Space, ranges: Ranges) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids, times and vectors as `Clips` has them, a few thousand rows at a time, in any order, others among them.

    Raises StoreDamaged where vectors have another length.
    """
    if ranges.n_clips == 0:
        return
    within = " OR ".join(f"clip_id BETWEEN {first} AND {last}" for first, last in _spans(ranges))
    query = f"SELECT clip_id, start_s, end_s, vector FROM {snapshot.all_clips(space.name)} WHERE {within}"
    for batch in snapshot.batches(query, _BATCH_ROWS):
        ids, starts_s, ends_s, flat = (_array(batch[name]) for name in ("clip_id", "start_s", "end_s", "vector"))
        if len(flat) != len(ids) * space.dim:
            raise StoreDamaged(
                f"vectors of {space.name} are not of {space.dim} numbers", hint="restore the store from a backup"
            )
        yield ids, np.stack([starts_s, ends_s], axis=1), flat.reshape(len(ids), space.dim)


def _spans(ranges: Ranges) -> list[tuple[int, int]]:
    """First and last ids of at most _SPANS spans that cover the ranges."""
    lasts = ranges.firsts + ranges.counts - 1
    cuts = np.sort(np.argsort(lasts[:-1] - ranges.firsts[1:], kind="stable")[: _SPANS - 1])  # the widest gaps
    return list(zip(ranges.firsts[[0, *(cuts + 1)]].tolist(), lasts[[*cuts, len(lasts) - 1]].tolist(), strict=True))


def _array(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column as an array, lists flattened. Raises StoreDamaged where a value is missing."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise StoreDamaged("clips of the store lack values", hint="restore the store from a backup")
    # Arrow's own to_numpy would import pandas.
    found: np.ndarray = np.from_dlpack(column.flatten() if pa.types.is_list(column.type) else column)
    return found
