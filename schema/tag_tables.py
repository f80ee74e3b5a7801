"""Writing sets of tags: a whole set at once, streamed into one Parquet file, then put in place of the one before.

Nothing else writes to `tags`, so a lock of its own is enough, and tagging need not wait for an index run: the row that
it appends to `runs` is no trouble for Delta.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions
from filelock import FileLock, Timeout

from vidx.errors import InputError, StoreDamaged, StoreError, StoreLocked
from vidx.schema import tables
from vidx.schema.files import make_durable, write_atomically
from vidx.schema.store import Store

METADATA_KEY = b"vidx"  # of the Parquet files' key-value metadata: JSON of how the tags were made
_STRINGS = pa.dictionary(pa.int32(), pa.string())
# What is written: each string once and its number in the rows. Readers of the files see TAGS.
NUMBERED = pa.schema([field.with_type(_STRINGS) if field.type == pa.string() else field for field in tables.TAGS])
_ROW_GROUP = 131_072
_RETENTION_HOURS = 24  # readers keep files of snapshots this old


@contextmanager
def tagging(store: Store) -> Iterator[TagWriter]:
    """Hold the lock of the sets of tags. Raises StoreLocked, or StoreError where the store can't be written."""
    lock = FileLock(store.path / "tags" / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLocked(f"another `vidx tag` is writing to {store.path}", hint="wait for it to end") from None
    except OSError as error:
        raise _refused(store, error) from error
    try:
        yield TagWriter(store)
    finally:
        lock.release()


class TagWriter:
    """Get one from `tagging`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def replace(self, tag_set: str, run_id: str, batches: Iterable[pa.RecordBatch], facts: dict[str, Any]) -> int:
        """Make the rows of `batches`, of schema NUMBERED, all that a set holds; returns how many they are.

        Readers see the old set until the new one is whole and on the disk. `facts` go into the file's metadata. Raises
        StoreError where the disk refuses.
        """
        folder = self._store.path / "tags" / tag_set
        part = folder / f"part-{run_id}.parquet"
        try:
            folder.mkdir(exist_ok=True)
            n_rows = _write(part, batches, facts)
            make_durable(self._store.path)
            _commit(folder, part, n_rows)
            make_durable(self._store.path)
        except (OSError, DeltaError) as error:
            raise _refused(self._store, error) from error
        finally:
            if tag_set not in self._store.tag_sets() or part not in files_of(self._store, tag_set):
                part.unlink(missing_ok=True)
                with suppress(OSError):  # it holds an older set
                    folder.rmdir()
        with suppress(OSError, DeltaError):  # what killed runs left, and rows replaced long ago
            tables.open_table(folder).vacuum(
                _RETENTION_HOURS, dry_run=False, enforce_retention_duration=False, full=True
            )
        return n_rows

    def relabel(self, tag_set: str, label: str, run_id: str, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        """Make rows of schema TAGS those of one label of a set; its other labels stay. Raises StoreError."""
        held = [tables.table(tables.TAGS, rows)]
        if tag_set in self._store.tag_sets():
            old = pq.read_table(files_of(self._store, tag_set), schema=tables.TAGS)
            held.insert(0, old.filter(pc.not_equal(old["label"], label)))
        everything = pa.concat_tables(held).cast(NUMBERED)
        self.replace(tag_set, run_id, everything.to_batches(), facts)

    def record_run(self, row: dict[str, Any]) -> None:
        """Append one row to the runs table. Raises StoreError."""
        try:
            rows = tables.table(tables.RUNS, [row])
            write_deltalake(tables.open_table(self._store.path / "runs"), rows, mode="append", schema_mode="merge")
        except (OSError, DeltaError) as error:
            raise StoreError(
                f"the tags are written, but not the row of this run in {self._store.path / 'runs'}:"
                f" {str(error).splitlines()[0]}",
                hint="free some space or mend the disk",
            ) from error

    def write_calibration(self, tag_set: str, fields: dict[str, Any]) -> None:
        """Keep what was learnt of a set's probabilities for later runs. Raises StoreError."""
        try:
            write_atomically(_calibration_path(self._store, tag_set), json.dumps(fields).encode())
        except OSError as error:
            raise _refused(self._store, error) from error


def _commit(folder: Path, part: Path, n_rows: int) -> None:
    """Make a file all that a set holds, in one commit."""
    facts = part.stat()
    added = AddAction(
        part.name, facts.st_size, {}, int(facts.st_mtime * 1000), True, json.dumps({"numRecords": n_rows})
    )
    if any((folder / "_delta_log").glob("*.json")):
        tables.open_table(folder).create_write_transaction([added], "overwrite", tables.TAGS)
    else:
        schema = Schema.from_arrow(tables.TAGS)
        create_table_with_add_actions(str(folder), schema, [added], configuration=tables.LOG_CONFIG)


def files_of(store: Store, tag_set: str) -> list[Path]:
    """The Parquet files of a set's rows as they are now. Raises InputError where there is no such set."""
    if tag_set not in (known := store.tag_sets()):
        raise InputError(f"no set of tags called {tag_set!r}", hint=f"there are: {', '.join(known) or 'none'}")
    table = DeltaTable(store.path / "tags" / tag_set)
    return [Path(unquote(uri.removeprefix("file://"))) for uri in table.file_uris()]


def read_calibration(store: Store, tag_set: str) -> dict[str, Any] | None:
    """What `write_calibration` kept, None where it did not. Raises StoreDamaged."""
    path = _calibration_path(store, tag_set)
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it is no object")
        return fields
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{path} can't be read ({error})", hint="remove it, and calibrate again") from error


def _write(path: Path, batches: Iterable[pa.RecordBatch], facts: dict[str, Any]) -> int:
    """Rows into a new Parquet file, a row group at a time; returns how many."""
    n_rows, held = 0, []
    # Without Arrow's own schema, so that its readers don't get dictionaries either.
    with pq.ParquetWriter(path, NUMBERED, compression="zstd", store_schema=False) as writer:
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(facts, ensure_ascii=False).encode()})
        for batch in batches:
            held.append(batch)
            if sum(part.num_rows for part in held) >= _ROW_GROUP:
                n_rows += _flush(writer, held)
        n_rows += _flush(writer, held)
    return n_rows


def _flush(writer: pq.ParquetWriter, held: list[pa.RecordBatch]) -> int:
    if not held:
        return 0
    rows = pa.Table.from_batches(held)
    writer.write_table(rows, rows.num_rows)
    held.clear()
    return int(rows.num_rows)


def _calibration_path(store: Store, tag_set: str) -> Path:
    return store.path / "tags" / f"{tag_set}.json"


def _refused(store: Store, error: Exception) -> StoreError:
    return StoreError(
        f"can't write tags to the store at {store.path}: {str(error).splitlines()[0]}",
        hint="free some space or mend the disk, then run the same command again; the tags before are untouched",
    )
