"""The live clips of a space at one moment: a generation of the index, and the tail of clips that it does not cover.

A collection never changes, so any number of threads may search it at once. `refreshed` makes the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from vidx.schema.live import Clips, Ranges, live_ranges, read_into
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.vectors import _generations
from vidx.vectors._exact import best_of, scores_of
from vidx.vectors._generations import Generation

_ROUNDING = 1e-8  # of a variance that is a difference of sums of single-precision products


class Background(NamedTuple):
    """How the clips of a whole collection score for a query."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Collection:
    """Get one from `open_collection`."""

    space: Space
    live: Ranges
    video_ids: pa.ChunkedArray  # of each live range
    generation: Generation | None
    dead: np.ndarray  # rows int64 of the generation that do not count at this moment
    tail_ranges: Ranges
    tail: Clips
    trouble: str  # what was wrong with an index that could not be used; empty: nothing

    def search(self, query: np.ndarray, k: int, kept: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k best clips for a unit vector float32 (dim,): scores float32 (m,) and clip ids int64 (m,).

        `kept`, ascending ids int64 (n,), leaves only those. m is k, or the number of clips where that is smaller.
        Best first, ties by clip id.
        """
        rows = None if kept is None else _positions(self.tail.ids, kept)
        scores, rows = best_of(self.tail.vectors, query, k, rows)
        ids = self.tail.ids[rows]
        if self.generation is not None:
            [more], [found] = self.generation.index.search(query[None], k, self._allowed(kept))
            scores, ids = np.concatenate([scores, more]), np.concatenate([ids, self.generation.clips.ids[found]])
            best = np.lexsort((ids, -scores))[:k]
            scores, ids = scores[best], ids[best]
        return scores, ids

    def clips(self, ids: np.ndarray) -> Clips:
        """Rows of live clips in the order of the ids int64 (n,)."""
        tail = self.tail_ranges.place(ids) >= 0
        rows = Clips.empty(len(ids), self.space.dim)
        rows.ids[:] = ids
        for chosen, part in ((tail, self.tail), (~tail, self.generation.clips if self.generation else None)):
            if part is not None and chosen.any():
                at = np.searchsorted(part.ids, ids[chosen])
                rows.times_s[chosen], rows.vectors[chosen] = part.times_s[at], part.vectors[at]
        return rows

    def of_video(self, live_range: int, kept: np.ndarray | None = None) -> Clips:
        """The clips of a live range in the order of time; of ascending ids `kept` only, where they are given."""
        ids = self.live.at(np.array([live_range])).ids()
        clips = self.clips(ids if kept is None else np.intersect1d(ids, kept, assume_unique=True))
        order = np.lexsort((clips.ids, clips.times_s[:, 0]))
        return Clips(clips.ids[order], clips.times_s[order], clips.vectors[order])

    def video_id(self, live_range: int) -> str:
        """The content that a live range is of."""
        return str(self.video_ids[live_range].as_py())

    def background(self, query: np.ndarray) -> Background:
        """Mean and standard deviation of the scores of all live clips, whatever a filter leaves of them."""
        scores = scores_of(self.tail.vectors, query).astype(np.float64)
        total, squares = scores.sum(), (scores**2).sum()
        if self.generation is not None:
            wide = query.astype(np.float64)
            dead = scores_of(self.generation.clips.vectors[self.dead], query).astype(np.float64)
            total += self.generation.sums[0] @ wide - dead.sum()
            squares += wide @ self.generation.sums[1:] @ wide - (dead**2).sum()
        mean = total / self.live.n_clips
        variance = squares / self.live.n_clips - mean**2
        return Background(float(mean), float(np.sqrt(variance)) if variance > _ROUNDING else 0.0)

    def _allowed(self, kept: np.ndarray | None) -> np.ndarray | None:
        """Mask bool over the generation's rows, None where all of them count."""
        assert self.generation is not None
        n_rows = self.generation.ranges.n_clips
        if kept is None:
            if len(self.dead) == 0:
                return None
            allowed = np.ones(n_rows, bool)
        else:
            allowed = np.zeros(n_rows, bool)
            allowed[_positions(self.generation.clips.ids, kept)] = True
        allowed[self.dead] = False
        return allowed


def open_collection(snapshot: Snapshot, space: Space, before: Collection | None = None) -> Collection:
    """The clips of a space that a snapshot sees. What `before` has read already is not read again.

    Raises StoreDamaged where clips are missing.
    """
    live, video_ids = live_ranges(snapshot, space)
    # After the snapshot: what a newer generation covers beyond it is dead to this collection.
    generation, trouble = _current(snapshot, space, before)
    covered = live.also_in(generation.ranges) if generation else np.zeros(len(live.firsts), bool)
    tail_ranges = live.at(~covered)
    return Collection(
        space=space,
        live=live,
        video_ids=video_ids,
        generation=generation,
        dead=_dead_rows(generation, live),
        tail_ranges=tail_ranges,
        tail=_tail(snapshot, space, tail_ranges, before),
        trouble=trouble,
    )


def _current(snapshot: Snapshot, space: Space, before: Collection | None) -> tuple[Generation | None, str]:
    folder = snapshot.store.path / "index" / space.name
    if before is not None and before.generation and _generations.current_name(folder) == before.generation.name:
        return before.generation, ""
    return _generations.open_current(folder)


def _dead_rows(generation: Generation | None, live: Ranges) -> np.ndarray:
    if generation is None:
        return np.empty(0, np.int64)
    dead = ~generation.ranges.also_in(live)
    offsets, counts = generation.ranges.offsets[dead], generation.ranges.counts[dead]
    return np.concatenate(
        [np.empty(0, np.int64), *(np.arange(at, at + n) for at, n in zip(offsets, counts, strict=True))]
    )


def _tail(snapshot: Snapshot, space: Space, ranges: Ranges, before: Collection | None) -> Clips:
    tail = Clips.empty(ranges.n_clips, space.dim)
    known = ranges.also_in(before.tail_ranges) if before is not None else np.zeros(len(ranges.firsts), bool)
    tail.ids[:] = ranges.ids()
    if before is not None and known.any():
        old = before.clips(ranges.at(known).ids())
        rows = np.searchsorted(tail.ids, old.ids)
        tail.times_s[rows], tail.vectors[rows] = old.times_s, old.vectors
    new = ranges.at(~known)
    fresh = tail if not known.any() else Clips.empty(new.n_clips, space.dim)
    read_into(fresh, snapshot, space, new)
    if fresh is not tail:
        rows = np.searchsorted(tail.ids, fresh.ids)
        tail.times_s[rows], tail.vectors[rows] = fresh.times_s, fresh.vectors
    return tail


def _positions(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where those of `wanted` that are among ascending `ids` are, ascending."""
    if len(ids) == 0:
        return np.empty(0, np.int64)
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    found: np.ndarray = at[ids[at] == wanted]
    return found
