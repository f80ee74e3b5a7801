"""The one writer of a store: its lock, its clip ids, its commits, compaction.

Delta is atomic per table only, so a commit writes thumbnails, clips, videos, indexed, files in that order: what is
claimed by a later table is already in the earlier ones. A clip counts once its `indexed` row says so.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from filelock import FileLock, Timeout

from vidx.errors import StoreError, StoreLocked
from vidx.schema import tables
from vidx.schema.files import make_durable, write_atomically
from vidx.schema.spaces import Space, write_space
from vidx.schema.store import Store

_ID_BLOCK = 10_000
_SMALL_FILES = 8  # a table in more files than this is compacted at the end of a run
_RETENTION_HOURS = 24  # readers keep files of snapshots this old


@dataclass
class Commit:
    """Rows of one commit, as dictionaries by column name; `clips` hold `vector` as a float32 array."""

    thumbnails: list[dict[str, Any]] = field(default_factory=list)
    clips: list[dict[str, Any]] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    indexed: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.thumbnails, self.clips, self.videos, self.indexed, self.files))


@contextmanager
def writing(store: Store) -> Iterator[StoreWriter]:
    """Hold the store's write lock. Raises StoreLocked, naming the holder, when another process has it.

    The lock is the operating system's and dies with its process; lock.json is information for people.
    """
    lock = FileLock(store.path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLocked(
            f"the store at {store.path} is being written by {_holder(store)}", hint="wait for it to end"
        ) from None
    except OSError as error:
        raise StoreError(
            f"can't write to the store at {store.path}: {error.strerror}", hint="name another with --store"
        ) from error
    try:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": datetime.now(UTC).isoformat(),
        }
        write_atomically(store.path / "lock.json", json.dumps(holder).encode())
        yield StoreWriter(store)
    finally:
        (store.path / "lock.json").unlink(missing_ok=True)
        lock.release()


class StoreWriter:
    """Writes to a store whose lock is held; get one from `writing`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._facts = store.facts()
        self._next_clip_id = self._facts.next_clip_id

    def add_space(self, space: Space) -> None:
        """Make a space known and its clips table; the first one becomes the store's default."""
        with self._told():
            tables.create_table(self.store.path / "clips" / space.name, tables.CLIPS)
            write_space(self.store.path / "spaces", space)
        if self._facts.default_space is None:
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

    def commit(self, space: str, commit: Commit) -> None:
        """Write one batch, table by table in the order that keeps readers consistent.

        Raises StoreError where the disk refuses; what earlier commits wrote is not touched.
        """
        with self._told():
            self._append("thumbnails", tables.THUMBNAILS, commit.thumbnails)
            if commit.clips:
                write_deltalake(self._open(f"clips/{space}"), tables.clips_table(commit.clips), mode="append")
            self._append("videos", tables.VIDEOS, commit.videos)
            make_durable(self.store.path)  # before anything claims it
            self._append("indexed", tables.INDEXED, commit.indexed)
            if commit.files:
                _upsert_files(self._open("files"), tables.table(tables.FILES, commit.files))
            make_durable(self.store.path)

    def record_run(self, row: dict[str, Any]) -> None:
        """Append one row to the runs table. Raises StoreError."""
        with self._told():
            self._append("runs", tables.RUNS, [row])

    def compact(self) -> None:
        """Merge tables that have become many small files, and drop files no snapshot of the last day can need."""
        names = [*tables.SINGLE, *(f"clips/{space}" for space in self.store.spaces())]
        for name in names:
            table = self._open(name)
            if len(table.file_uris()) > _SMALL_FILES:
                with self._told():
                    table.optimize.compact()
                    table.create_checkpoint()
                    table.vacuum(_RETENTION_HOURS, dry_run=False, enforce_retention_duration=False)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a refusal of the disk or of Delta into a StoreError."""
        try:
            yield
        except (OSError, DeltaError) as error:
            raise StoreError(
                f"can't write to the store at {self.store.path}: {error}",
                hint="free some space or mend the disk, then run the same command again: it goes on where it stopped",
            ) from error

    def _append(self, name: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
        if rows:
            write_deltalake(self._open(name), tables.table(schema, rows), mode="append")

    def _open(self, name: str) -> DeltaTable:
        return DeltaTable(self.store.path / name)

    def _write_facts(self, **changes: Any) -> None:
        facts = replace(self._facts, **changes)
        with self._told():
            self.store.write_facts(facts)
        self._facts = facts


def _upsert_files(table: DeltaTable, rows: pa.Table) -> None:
    """One row a path: replace what is known of a path, add what is new."""
    merge = table.merge(rows, "old.path_bytes = new.path_bytes", source_alias="new", target_alias="old")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()


def _holder(store: Store) -> str:
    try:
        holder = json.loads((store.path / "lock.json").read_text())
        return f"process {holder['pid']} on {holder['host']}, started {holder['started_at'][:19]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
