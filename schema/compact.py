"""Tidying a store at the end of a run: rows that no longer count go, and many small files become few."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deltalake import DeltaTable

from vidx.schema import tables
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.unfinished import Unfinished

_SMALL_FILES = 8  # a table in more files than this is merged
_RETENTION_HOURS = 24  # readers keep files of snapshots this old
_RANGES = 200  # of clip ids that one deletion names


def compact_tables(store: Store, unfinished: list[Unfinished]) -> None:
    """Delete dead clips and their pictures, merge small files, drop files no snapshot of the last day can need.

    Dead are clips outside the newest attempt at their content, unless they are of an `unfinished` one that can be
    resumed. Only files that
    hold dead rows are rewritten. Only the holder of the write lock may call this. Raises OSError, DeltaError.
    """
    snapshot = Snapshot(store)
    dead = {space: ranges for space in store.spaces() if (ranges := _dead_ranges(snapshot, space, unfinished))}
    if dead:  # pictures first: those of dead clips can be told from others as long as the clips are there
        _drop_dead_thumbnails(store, snapshot, _dead_videos(snapshot, dead), unfinished)
    for space, ranges in dead.items():
        _drop_clips(store, space, ranges)
    for name in [*tables.SINGLE, *(f"clips/{space}" for space in store.spaces())]:
        folder = store.path / name
        table = tables.open_table(folder)
        if is_scattered := len(table.file_uris()) > _SMALL_FILES:
            table.optimize.compact()
        if is_scattered or _is_due(folder, table):
            _clean(table)


def _dead_ranges(snapshot: Snapshot, space: str, unfinished: list[Unfinished]) -> list[tuple[int, int]]:
    """First and last ids of runs of dead clips; no other clip lies between them."""
    # Between two kept ranges no id is in use but dead ones, so each gap is one range.
    return snapshot.rows(
        f"""
        SELECT min(c.clip_id), max(c.clip_id)
        FROM {snapshot.all_clips(space)} c ASOF LEFT JOIN ({_kept_ranges(space, unfinished)}) k ON c.clip_id >= k.first
        WHERE k.stop IS NULL OR c.clip_id >= k.stop GROUP BY k.first ORDER BY 1"""
    )


def _dead_videos(snapshot: Snapshot, dead: dict[str, list[tuple[int, int]]]) -> list[str]:
    """The contents that dead clips are of."""
    found: set[str] = set()
    for space, ranges in dead.items():
        for within in _named(ranges):
            rows = snapshot.rows(f"SELECT DISTINCT video_id FROM {snapshot.all_clips(space)} WHERE {within}")
            found |= {video_id for (video_id,) in rows}
    return sorted(found)


def _drop_clips(store: Store, space: str, ranges: list[tuple[int, int]]) -> None:
    table = tables.open_table(store.path / "clips" / space)
    for within in _named(ranges):
        table.delete(within)
    _clean(table)


def _named(ranges: list[tuple[int, int]]) -> Iterator[str]:
    """SQL conditions that together hold for the clips of those ranges."""
    for at in range(0, len(ranges), _RANGES):
        yield " OR ".join(f"(clip_id >= {first} AND clip_id <= {last})" for first, last in ranges[at : at + _RANGES])


def _drop_dead_thumbnails(store: Store, snapshot: Snapshot, videos: list[str], unfinished: list[Unfinished]) -> None:
    """Delete the pictures of those contents that belong to no clip that is kept in any space."""
    kept = " UNION ALL ".join(
        f"""
        SELECT c.video_id, c.frame_pts[len(c.frame_pts) // 2 + 1] AS frame_pts
        FROM {snapshot.all_clips(space)} c ASOF JOIN ({_kept_ranges(space, unfinished)}) k ON c.clip_id >= k.first
        WHERE c.clip_id < k.stop AND list_contains($videos, c.video_id)"""
        for space in store.spaces()
    )
    dead = snapshot.arrow(
        f"""
        SELECT DISTINCT t.video_id, t.frame_pts FROM thumbnails t ANTI JOIN ({kept}) k USING (video_id, frame_pts)
        WHERE list_contains($videos, t.video_id)""",
        {"videos": videos},
    )
    if dead.num_rows:
        table = tables.open_table(store.path / "thumbnails")
        same = "t.video_id = dead.video_id AND t.frame_pts = dead.frame_pts"
        table.merge(dead, same, source_alias="dead", target_alias="t").when_matched_delete().execute()
        _clean(table)


def _kept_ranges(space: str, unfinished: list[Unfinished]) -> str:
    """SQL of the ranges [first, stop) of clip ids of a space that count, or may come to count."""
    resumable = [
        (a.first_clip_id, a.first_clip_id + a.n_planned) for a in unfinished if a.space == space and a.resumable
    ]
    listed = "".join(f" UNION ALL SELECT {first}, {stop}" for first, stop in resumable)
    return f"""
        SELECT first_clip_id AS first, first_clip_id + n_clips AS stop FROM newest
        WHERE space = '{space}' AND n_clips > 0 {listed}"""


def _is_due(folder: Path, table: DeltaTable) -> bool:
    """Whether there are files that no snapshot of the last day can need; those removed already are listed as well."""
    listed = table.vacuum(_RETENTION_HOURS, dry_run=True, enforce_retention_duration=False)
    return any((folder / name).exists() for name in listed)


def _clean(table: DeltaTable) -> None:
    table.create_checkpoint()
    table.vacuum(_RETENTION_HOURS, dry_run=False, enforce_retention_duration=False)
