"""A new generation of a space's index: built aside, tried, and switched to if it finds what an exact scan finds."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vidx.errors import StoreError, StoreLocked, StoreMissing, VidxError
from vidx.plugins import load
from vidx.schema.files import make_durable
from vidx.schema.live import Clips, live_ranges, read_into
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search.probes import probe_queries
from vidx.vectors import Index, _generations

FLAT_CLIPS = 250_000  # up to here an exact scan is fast enough: 25 ms on two cores at 512 dimensions
GATE = 0.95  # recall@10 that a generation must prove
_AIM = 0.97  # that its width is chosen for, on other queries than prove it
_FEW_CLIPS = 5_000  # so many are read from the store about as fast as from an index
_TAIL_SHARE, _MOST_TAIL = 0.2, 100_000  # clips beside an index before it is built again
_BLOCK_ROWS = 32_768


@dataclass(frozen=True)
class Built:
    """What became of a new generation."""

    name: str | None  # None: it was not switched to
    tier: str
    n_clips: int
    seconds: float
    recall: float | None  # recall@10 against an exact scan; None where the tier is exact
    queries: str  # what was asked, in words


def is_due(store: Store, space: Space) -> bool:
    """Whether so many clips are beside the index that building it again pays."""
    generation, _ = _generations.open_current(index_folder(store, space))
    live, _ = live_ranges(Snapshot(store), space)
    if generation is None:
        return live.n_clips > _FEW_CLIPS
    covered = int(live.counts[live.also_in(generation.ranges)].sum())
    dead = generation.ranges.n_clips - covered
    share = min(_TAIL_SHARE * covered, _MOST_TAIL)
    return max(live.n_clips - covered, dead) > max(_FEW_CLIPS, share)


def keep_up(store: Store, space: Space, tell: Callable[[str], None]) -> None:
    """Build the index again if that is due, and say so. Trouble with it is told and no error: searches do without."""
    try:
        if is_due(store, space):
            tell(told(rebuild(store, space, tier=_chosen_tier(store, space))))
    except VidxError as error:
        tell(f"the index was not built: {error}; {error.hint}")


def told(built: Built) -> str:
    """What became of a generation, for people."""
    recall = "" if built.recall is None else f", recall@10 {built.recall:.3f} on {built.queries}"
    what = f"{built.n_clips} clips, {built.tier}{recall}, {built.seconds:.1f} s"
    if built.name is None:
        return f"the new index is not good enough ({what}; {GATE} is wanted) and was not switched to"
    return f"index {built.name}: {what}"


def index_folder(store: Store, space: Space) -> Path:
    return store.path / "index" / space.name


def rebuild(store: Store, space: Space, *, tier: str | None = None, seed: int = 0) -> Built:
    """Build a generation over everything committed, and switch to it if its recall@10 is at least GATE.

    Searches and index runs go on meanwhile. `tier` is one of `vidx.vectors`; None: exact while that is fast enough.
    Raises UnknownChoice for another tier, StoreMissing where the space has no clip, StoreLocked where another process
    builds, StoreError where the disk refuses.
    """
    began = time.monotonic()
    parent = index_folder(store, space)
    if tier is not None:
        load("vectors", tier)
    with _building(parent) as folder:
        snapshot = Snapshot(store)
        ranges, _ = live_ranges(snapshot, space)
        if ranges.n_clips == 0:
            raise StoreMissing(f"no video is indexed with {space.encoder} yet", hint="run `vidx index FOLDER` first")
        clips = _generations.new_arrays(folder, ranges, space.dim)
        read_into(clips, snapshot, space, ranges)
        return complete(folder, space, clips, tier=tier, seed=seed, began=began)


def complete(folder: Path, space: Space, clips: Clips, *, tier: str | None, seed: int, began: float) -> Built:
    """Make a generation of the clips in a folder below the index's, try it, and switch to it if it is good enough."""
    n = len(clips.ids)
    chosen = tier or ("flat" if n <= FLAT_CLIPS else "ivf")
    index = load("vectors", chosen).build(clips.vectors, seed)
    recall, asked = None, "none: every vector is compared"
    if load("vectors", chosen).NEEDS_GATE:
        queries, asked = probe_queries(space, clips.vectors, seed)
        index, recall = _proved(index, clips.vectors, queries)
    name = None
    if recall is None or recall >= GATE:
        meta = _meta(space, chosen, n, recall, asked, time.monotonic() - began)
        meta["tier_is_chosen"] = tier is not None
        total = sums(clips.vectors)
        make_durable(folder)  # before CURRENT can name it
        name = _generations.finish(folder, folder.parent, index, total, meta)
    return Built(name, chosen, n, time.monotonic() - began, recall, asked)


def _chosen_tier(store: Store, space: Space) -> str | None:
    """The tier of the index in use, if it was named and not left to the number of clips."""
    generation, _ = _generations.open_current(index_folder(store, space))
    return generation.meta["tier"] if generation is not None and generation.meta["tier_is_chosen"] else None


def roll_back(store: Store, space: Space) -> str:
    """Switch to the other generation that is kept, if it opens; returns its name. Raises StoreError, StoreLocked."""
    parent = index_folder(store, space)
    with _building(parent):
        current = _generations.current_name(parent)
        others = [name for name in _generations.names(parent) if name != current]
        if not others:
            raise StoreError("there is no other generation of the index", hint="run `vidx index --rebuild-index`")
        _generations.open_generation(parent / others[-1])
        _generations.switch(parent, others[-1])
        return others[-1]


def recall_at_10(index: Index, queries: np.ndarray, tenth_best: np.ndarray) -> float:
    """The share of the exact ten best that an index finds, mean over queries; of equal scores either counts."""
    scores, _ = index.search(queries, 10)
    return float((scores >= tenth_best[:, None] - 1e-6).mean())


def tenth_best(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The exact tenth best score of each query, float32 (Q,); of the worst where there are fewer vectors."""
    best = np.empty((len(queries), 0), np.float32)
    for at in range(0, len(vectors), _BLOCK_ROWS):
        best = np.concatenate([best, queries @ vectors[at : at + _BLOCK_ROWS].T], axis=1)
        if best.shape[1] > 10:
            best = -np.partition(-best, 9, axis=1)[:, :10]
    lowest: np.ndarray = best.min(axis=1)
    return lowest


def sums(vectors: np.ndarray) -> np.ndarray:
    """Sum of vectors, and below it the sum of their outer products, float64 (dim + 1, dim)."""
    total = np.zeros((vectors.shape[1] + 1, vectors.shape[1]))
    for at in range(0, len(vectors), _BLOCK_ROWS):
        block = np.asarray(vectors[at : at + _BLOCK_ROWS])
        total[0] += block.sum(axis=0, dtype=np.float64)
        total[1:] += block.T @ block
    return total


def _proved(index: Any, vectors: np.ndarray, queries: np.ndarray) -> tuple[Index, float]:
    """The narrowest of an index's widths that does on half of the queries, and its recall on the other half."""
    exact = tenth_best(vectors, queries)
    widths = index.widths()
    wide = next((i for i in widths if recall_at_10(i, queries[::2], exact[::2]) >= _AIM), widths[-1])
    return wide, recall_at_10(wide, queries[1::2], exact[1::2])


def _meta(space: Space, tier: str, n: int, recall: float | None, queries: str, seconds: float) -> dict[str, Any]:
    return {
        "space": space.name,
        "tier": tier,
        "n_clips": n,
        "recall_at_10": recall,
        "queries": queries,
        "build_s": round(seconds, 3),
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def _building(parent: Path) -> Iterator[Path]:
    """A folder to build in that nobody else uses, gone at the end unless it was renamed; what was left before goes."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / "lock", timeout=0):
            for left in parent.glob("building-*"):
                shutil.rmtree(left, ignore_errors=True)
            folder = parent / f"building-{secrets.token_hex(4)}"
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise StoreLocked(f"the index in {parent} is being built by another process", hint="wait for it") from None
    except OSError as error:
        raise StoreError(
            f"can't write the index in {parent}: {error.strerror or error}", hint="mend that; searches go on without"
        ) from error
