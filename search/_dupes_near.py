"""Which videos hold clips that are near one another: the first look of `vidx dupes`, over all clips of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vidx.plugins import load
from vidx.schema.live import Clips
from vidx.search.collection import Collection
from vidx.vectors._generations import Generation

MOST_VIDEOS = 20  # a clip that is near clips of more other videos than this is a hub
_QUERIES, _BLOCK_ROWS = 256, 8192  # clips compared at once; 8 MB of scores
_FIRST_K, _MOST_K = 32, 2048  # neighbours asked of an approximate index: more while all of them are near
_ROUNDING = 1e-5  # of single-precision products, which `align` decides on in its own order


class Near(NamedTuple):
    """`pairs` int64 (P, 2) of live ranges, the first below the second; `hubs` int64 (H,), ids of clips, ascending."""

    pairs: np.ndarray
    hubs: np.ndarray


def near_videos(collection: Collection, least: float, tell: Callable[[int, int], None]) -> Near:
    """Pairs of videos with clips of a cosine of at least `least` of which one at least is no hub.

    Every pair of clips is compared where the index is exact or there is none; an approximate one is asked for each
    clip's nearest. Memory grows with the pairs found, at most MOST_VIDEOS a clip. `tell` hears how many clips of how
    many are done.
    """
    n_videos, ids = len(collection.live.firsts), collection.live.ids()
    pairs, hubs = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for at in range(0, len(ids), _QUERIES):
        block = ids[at : at + _QUERIES]
        queries, own = collection.clips(block).vectors, collection.live.place(block)
        parts = list(_neighbours(collection, queries, least - _ROUNDING))
        rows, videos = np.divmod(np.unique(np.concatenate(parts)), n_videos)
        rows, videos = rows[videos != own[rows]], videos[videos != own[rows]]
        is_hub = np.bincount(rows, minlength=len(block)) > MOST_VIDEOS
        hubs.append(block[is_hub])
        rows, videos = rows[~is_hub[rows]], videos[~is_hub[rows]]
        first, second = np.minimum(own[rows], videos), np.maximum(own[rows], videos)
        pairs.append(np.unique(first * n_videos + second))
        tell(min(at + _QUERIES, len(ids)), len(ids))
    return Near(np.stack(np.divmod(np.unique(np.concatenate(pairs)), max(n_videos, 1)), axis=1), np.concatenate(hubs))


def _neighbours(collection: Collection, queries: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """Keys int64, query * number of videos + live range, of the videos with a near clip; some more than once."""
    yield from _compared(collection, collection.tail, queries, least)
    generation = collection.generation
    if generation is None:
        return
    if load("vectors", generation.meta["tier"]).NEEDS_GATE:
        yield from _asked(collection, generation, queries, least)
    else:
        yield from _compared(collection, generation.clips, queries, least)


def _compared(collection: Collection, clips: Clips, queries: np.ndarray, least: float) -> Iterator[np.ndarray]:
    for at in range(0, len(clips.ids), _BLOCK_ROWS):
        rows, found = np.nonzero(queries @ clips.vectors[at : at + _BLOCK_ROWS].T >= least)
        yield _keys(collection, rows, collection.live.place(clips.ids[at : at + _BLOCK_ROWS])[found])


def _asked(collection: Collection, generation: Generation, queries: np.ndarray, least: float) -> Iterator[np.ndarray]:
    open_rows, k = np.arange(len(queries)), _FIRST_K
    while len(open_rows):
        scores, found = generation.index.search(queries[open_rows], k)
        near = scores >= least
        rows = np.broadcast_to(open_rows[:, None], near.shape)[near]
        keys = _keys(collection, rows, collection.live.place(generation.clips.ids[found[near]]))
        yield keys
        n_videos = np.bincount(keys // len(collection.live.firsts), minlength=len(queries))[open_rows]
        may_have_more = near.all(axis=1) & (n_videos <= MOST_VIDEOS + 1)  # its own video is among them
        if found.shape[1] < k or k >= _MOST_K:
            return
        open_rows, k = open_rows[may_have_more], 4 * k


def _keys(collection: Collection, rows: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Each (row, video) once; clips that are no longer live, of no video, are left out."""
    keys: np.ndarray = np.unique(rows[videos >= 0] * len(collection.live.firsts) + videos[videos >= 0])
    return keys
