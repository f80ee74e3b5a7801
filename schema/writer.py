"""The one writer of a store: its clip ids and its commits.

Delta is atomic per table only, so a commit writes thumbnails, clips, videos, indexed, files in that order: what is
claimed by a later table is already in the earlier ones. A clip counts once its `indexed` row says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from vidx.errors import StoreError
from vidx.schema import tables
from vidx.schema.compact import compact_tables
from vidx.schema.files import make_durable
from vidx.schema.lock import locked
from vidx.schema.spaces import Space, write_space
from vidx.schema.store import Store
from vidx.schema.unfinished import Unfinished, read_unfinished, without_outcome, write_unfinished

_ID_BLOCK = 10_000


@dataclass
class Commit:
    """Rows of one commit, as dictionaries by column name; `clips`, by the name of the space, have float32 vectors.

    `unfinished` are the attempts that any of the clips belong to. A row of `files` whose state is
    `forgotten` is removed.
    """

    unfinished: list[Unfinished] = field(default_factory=list)
    thumbnails: list[dict[str, Any]] = field(default_factory=list)
    clips: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    videos: list[dict[str, Any]] = field(default_factory=list)
    indexed: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.thumbnails, self.n_clips, self.videos, self.indexed, self.files))

    @property
    def n_clips(self) -> int:
        return sum(map(len, self.clips.values()))


@contextmanager
def writing(store: Store, *, break_lock: bool = False) -> Iterator[StoreWriter]:
    """Hold the store's write lock. Raises StoreLocked; see `vidx.schema.lock`."""
    with locked(store, break_lock=break_lock):
        yield StoreWriter(store)


class StoreWriter:
    """Writes to a store whose lock is held; get one from `writing`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._facts = store.facts()
        self._next_clip_id = self._facts.next_clip_id
        self._noted = read_unfinished(store.path)
        self._unfinished = {attempt.key: attempt for attempt in self._noted}

    def add_space(self, space: Space) -> None:
        """Make a space known and its clips table; the first one becomes the store's default.

        Raises StoreDamaged where the space is known and its table can't be opened.
        """
        if space.name in self.store.spaces():
            self._open(f"clips/{space.name}")
        else:
            with self._told():
                tables.create_table(self.store.path / "clips" / space.name, tables.CLIPS)
                write_space(self.store.path / "spaces", space)
        if self._facts.default_space is None:
            self._write_facts(default_space=space.name)

    def use_space(self, space: Space) -> None:
        """Make a known space the default of the store. Raises StoreError."""
        self._write_facts(default_space=space.name)

    def reserve_clip_ids(self, n: int) -> int:
        """Take n consecutive clip ids for good and return the first.

        The high-water mark is made durable, a block ahead, before an id below it is used; what a run leaves of its
        last block is never used.
        """
        first = self._next_clip_id
        self._next_clip_id += n
        if self._next_clip_id > self._facts.next_clip_id:
            self._write_facts(next_clip_id=self._next_clip_id + _ID_BLOCK)
        return first

    def commit(self, commit: Commit) -> None:
        """Write one batch, table by table in the order that keeps readers consistent.

        Raises StoreError where the disk refuses; what earlier commits wrote is not touched.
        """
        self._unfinished |= {attempt.key: attempt for attempt in commit.unfinished}
        with self._told():
            self._note_unfinished()
            self._append("thumbnails", tables.THUMBNAILS, commit.thumbnails)
            for space, clips in commit.clips.items():
                if clips:
                    write_deltalake(self._open(f"clips/{space}"), tables.clips_table(clips), mode="append")
            self._append("videos", tables.VIDEOS, commit.videos)
            make_durable(self.store.path)  # before anything claims it
            self._append("indexed", tables.INDEXED, commit.indexed)
            if commit.files:
                _upsert_files(self._open("files"), tables.table(tables.FILES, commit.files))
            make_durable(self.store.path)
        for row in commit.indexed:  # struck out on disk by the next commit, or at the end
            self._unfinished.pop((row["video_id"], row["space"]), None)

    def drop_paths(self, paths: list[bytes]) -> None:
        """Remove rows of `files`; a content that no path leads to then is retired. Raises StoreError."""
        with self._told():
            _delete(self._open("files"), "path_bytes", paths)
            make_durable(self.store.path)

    def drop_contents(self, video_ids: list[str]) -> None:
        """Remove all rows of retired contents, but those of tags. Raises StoreError.

        Readers take clips for lost that a row of `indexed` claims, so that goes first; and `videos` last, which tells
        whoever goes on behind a kill what is to be removed.
        """
        gone = set(video_ids)
        self._unfinished = {key: attempt for key, attempt in self._unfinished.items() if attempt.video_id not in gone}
        with self._told():
            self._note_unfinished()
            _delete(self._open("indexed"), "video_id", video_ids)
            make_durable(self.store.path)
        self.compact()
        with self._told():
            _delete(self._open("videos"), "video_id", video_ids)
            make_durable(self.store.path)

    def record_runs(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to the runs table. Raises StoreError."""
        with self._told():
            self._append("runs", tables.RUNS, rows)

    def compact(self) -> None:
        """At the end of a run: drop what no longer counts, merge small files, strike out what is settled."""
        with self._told():
            self._unfinished = {attempt.key: attempt for attempt in self.without_outcome()}
            compact_tables(self.store, list(self._unfinished.values()))
            self._unfinished = {key: attempt for key, attempt in self._unfinished.items() if attempt.resumable}
            self._note_unfinished()

    def without_outcome(self) -> list[Unfinished]:
        """Attempts that have clips in the store and no outcome. Raises StoreDamaged."""
        return without_outcome(self.store, self._unfinished)

    def _note_unfinished(self) -> None:
        if (now := list(self._unfinished.values())) != self._noted:
            write_unfinished(self.store.path, now)
            self._noted = now

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a refusal of the disk or of Delta into a StoreError."""
        try:
            yield
        except (OSError, DeltaError) as error:
            raise StoreError(
                f"can't write to the store at {self.store.path}: {str(error).splitlines()[0]}",
                hint="free some space or mend the disk, then run the same command again: it goes on where it stopped",
            ) from error

    def _append(self, name: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
        if rows:  # a column that an earlier version did not know is added
            write_deltalake(self._open(name), tables.table(schema, rows), mode="append", schema_mode="merge")

    def _open(self, name: str) -> DeltaTable:
        return tables.open_table(self.store.path / name)

    def _write_facts(self, **changes: Any) -> None:
        facts = replace(self._facts, **changes)
        with self._told():
            self.store.write_facts(facts)
        self._facts = facts


def _upsert_files(table: DeltaTable, rows: pa.Table) -> None:
    """One row a path: replace what is known of a path, add what is new, remove what is forgotten."""
    merge = table.merge(rows, "old.path_bytes = new.path_bytes", source_alias="new", target_alias="old")
    merge = merge.when_matched_delete("new.state = 'forgotten'").when_matched_update_all()
    merge.when_not_matched_insert_all("new.state <> 'forgotten'").execute()


def _delete(table: DeltaTable, key: str, values: list[Any]) -> None:
    """Delete the rows whose key is one of the distinct values."""
    if values:
        rows = pa.table({key: values})
        merge = table.merge(rows, f"old.{key} = gone.{key}", source_alias="gone", target_alias="old")
        merge.when_matched_delete().execute()
