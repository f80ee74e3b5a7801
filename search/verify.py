"""Whether the index of a space is what was built, holds what the store holds, and still finds what it should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidx.errors import StoreDamaged
from vidx.schema.live import batches
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.search.probes import probe_queries
from vidx.search.rebuild import GATE, index_folder, recall_at_10, tenth_best
from vidx.vectors import _generations
from vidx.vectors._generations import Generation

_SEED = 1  # other queries than those that the index was built with, where they are drawn


def index_troubles(snapshot: Snapshot, space: Space) -> Iterator[str]:
    """What is wrong with the generations that are kept, in words; nothing where there is no index."""
    folder = index_folder(snapshot.store, space)
    current = _generations.current_name(folder)
    names = _generations.names(folder)
    if current is None and names:
        yield f"CURRENT of the index of {space.name} names no generation"
    if current is not None and current not in names:
        yield f"the index of {space.name} should be {current}, which is not there"
    for name in names:
        yield from (f"{name} of {space.name}: {what}" for what in _troubles(snapshot, space, folder / name))


def _troubles(snapshot: Snapshot, space: Space, folder: Path) -> Iterator[str]:
    try:
        if altered := _generations.altered_files(folder):
            yield f"{', '.join(altered)} is not what was built"
        generation = _generations.open_generation(folder)
    except (StoreDamaged, OSError, ValueError, KeyError, TypeError) as error:
        yield str(error)
        return
    if differing := _differing(snapshot, space, generation):
        yield f"{differing} of its clips differ from the store's"
    queries, asked = probe_queries(space, generation.clips.vectors, _SEED)
    recall = recall_at_10(generation.index, queries, tenth_best(generation.clips.vectors, queries))
    if recall < GATE:
        yield f"it finds {recall:.3f} of the ten best (asked: {asked}); {GATE} is wanted"


def _differing(snapshot: Snapshot, space: Space, generation: Generation) -> int:
    """How many clips of a generation have other times or vectors in the store; those that are gone there are none."""
    clips, ranges, differing = generation.clips, generation.ranges, 0
    for ids, times_s, vectors in batches(snapshot, space, ranges):
        place = ranges.place(ids)
        kept = place >= 0
        rows = (ranges.offsets[place] + ids - ranges.firsts[place])[kept]
        same = (clips.vectors[rows] == vectors[kept]).all(axis=1) & (clips.times_s[rows] == times_s[kept]).all(axis=1)
        differing += int(np.count_nonzero(~same | (clips.ids[rows] != ids[kept])))
    return differing
