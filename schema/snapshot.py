"""A consistent read-only view of a store: table versions pinned in the reverse of the order they are written in.

A row of a later table then never names something that an earlier one does not hold yet. DuckDB reads the very Parquet
files of the pinned versions; its own Delta extension would have to be downloaded.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from vidx.errors import InputError, StoreDamaged, VidxError
from vidx.schema import tables
from vidx.schema.store import Store

_PIN_TRIES = 20  # a run commits twice a minute
_PIN_ORDER = ("files", "indexed", "videos")  # reverse of the write order; clips, thumbnails and the rest follow


class Snapshot:
    """SQL over one moment of a store. Views: files, videos, indexed, newest, runs, thumbnails, tags; `clips(space)`.

    Not safe for several threads at once; snapshots are cheap, take one each.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._spaces = store.spaces()
        self._tag_sets = store.tag_sets()
        self._tables: dict[str, DeltaTable] = {}
        for _ in range(_PIN_TRIES):
            self._pin_all()
            # Compaction deletes clips that no longer count, and what counts is decided by `indexed`.
            if tables.open_table(store.path / "indexed").version() == self._tables["indexed"].version():
                break
        with _told():
            self._db = self._connect()

    def _pin_all(self) -> None:
        for name in _PIN_ORDER:
            self._pin(name)
        for space in self._spaces:
            self._pin(f"clips/{space}")
        for name in ("thumbnails", "runs", *(f"tags/{tag_set}" for tag_set in self._tag_sets)):
            self._pin(name)

    def _pin(self, name: str) -> None:
        self._tables[name] = tables.open_table(self.store.path / name)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        db = duckdb.connect(
            ":memory:",
            config={
                "autoload_known_extensions": "false",
                "autoinstall_known_extensions": "false",
                "python_enable_replacements": "false",  # a table that is not there is not looked for among variables
                "temp_directory": _spill_directory(),
            },
        )
        db.execute(f"SET allowed_directories = [{_quoted(str(self.store.path))}]")
        db.execute("SET enable_external_access = false")
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET enable_progress_bar = false")  # in a Python shell it is drawn into the output
        db.execute("SET lock_configuration = true")
        for name, schema in tables.SINGLE.items():
            self._define(db, name, name, schema)
        db.execute("CREATE SCHEMA stored")
        for number, space in enumerate(self._spaces):
            self._define(db, f"clips/{space}", f"stored.clips_{number}", tables.CLIPS)
        for number, tag_set in enumerate(self._tag_sets):
            self._define(db, f"tags/{tag_set}", f"stored.tags_{number}", tables.TAGS)
        each = [f"SELECT * FROM stored.tags_{number}" for number in range(len(self._tag_sets))]
        db.execute(f"CREATE VIEW tags AS {' UNION ALL '.join(each) or _no_rows(tables.TAGS)}")
        db.execute(_NEWEST)
        return db

    def _define(self, db: duckdb.DuckDBPyConnection, name: str, view: str, schema: pa.Schema) -> None:
        """A view of exactly the columns of `schema`; a file that an earlier version wrote may lack some."""
        source = _no_rows(schema)
        if uris := self._tables[name].file_uris():
            listed = ", ".join(_quoted(unquote(uri.removeprefix("file://"))) for uri in uris)
            source += f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name = true)"
        db.execute(f"CREATE VIEW {view} AS {source}")

    def newest_tag_set(self) -> str | None:
        """The set of tags that was written to last, None where there is none; SEARCHES only where it is alone."""
        written = {name: self._tables[f"tags/{name}"].history(1)[0]["timestamp"] for name in self._tag_sets}
        return max(written, key=lambda name: (name != tables.SEARCHES, written[name], name), default=None)

    def versions(self) -> dict[str, int]:
        """The pinned Delta version of each table."""
        return {name: table.version() for name, table in self._tables.items()}

    def rows(self, query: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one SELECT; rows as tuples."""
        with _told():
            return self.select(query, parameters).fetchall()

    def arrow(self, query: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """Run one SELECT; an Arrow table."""
        with _told():
            return self.select(query, parameters).to_arrow_table()

    def batches(self, query: str, n_rows: int) -> Iterator[pa.RecordBatch]:
        """Run one SELECT; Arrow batches of about n_rows rows, each made when the one before was taken."""
        with _told():
            yield from self.select(query).to_arrow_reader(n_rows)

    def with_rows(self, view: str, rows: pa.Table) -> None:
        """Make an Arrow table visible to later queries under a name, to join with."""
        self._db.register(view, rows)

    def clips(self, space: str) -> str:
        """SQL of the live clips of a space: those in the id range of the newest attempt at their content.

        A content left without any path is retired and not among them.
        """
        return f"""(
            SELECT c.* FROM {self.all_clips(space)} c
            JOIN newest n ON n.video_id = c.video_id AND n.space = {_quoted(space)}
            AND c.clip_id >= n.first_clip_id AND c.clip_id < n.first_clip_id + n.n_clips
            WHERE c.video_id IN (SELECT video_id FROM files)
        )"""

    def all_clips(self, space: str) -> str:
        """Name of the view of all clip rows of a space, those that no longer count or do not yet included."""
        return f"stored.clips_{self._spaces.index(space)}"

    def clips_of_all_spaces(self) -> str:
        """SQL of the live clips of every space, with its name in a first column `space`."""
        each = [f"SELECT {_quoted(space)} AS space, * FROM {self.clips(space)}" for space in self._spaces]
        return " UNION ALL ".join(each) or _no_rows(tables.CLIPS.insert(0, pa.field("space", pa.string())))

    def select(self, query: str, parameters: dict[str, Any] | None = None) -> duckdb.DuckDBPyRelation:
        """One SELECT that runs when it is asked for its rows.

        DuckDB may write where it may read, so anything else is refused. Raises InputError, and what DuckDB raises.
        """
        kinds = [statement.type for statement in self._db.extract_statements(query)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise InputError("one SELECT statement is run, and nothing else", hint="only vidx itself changes a store")
        return self._db.sql(query, params=parameters)

    def interrupt(self) -> None:
        """Have a query that runs in another thread end with an error."""
        self._db.interrupt()

    def define(self, view: str, query: str) -> None:
        """Give a SELECT of ours a name that later queries know it by."""
        with _told():
            self._db.execute(f"CREATE OR REPLACE VIEW {view} AS {query}")


@contextmanager
def _told() -> Iterator[None]:
    """Turn what DuckDB raises over a query of ours into a VidxError: our SQL is right, so the store's files are not."""
    try:
        yield
    except (duckdb.Error, RuntimeError) as error:
        if (trouble := as_told(str(error))) is None:
            raise
        raise trouble from error


def as_told(text: str) -> BaseException | None:
    """The store's or the machine's trouble behind a message of DuckDB; None where the query is to blame."""
    kind, is_of_duckdb, _ = text.partition(" Error: ")
    if "Query interrupted" in text:
        return KeyboardInterrupt()
    if kind == "Out of Memory":
        return VidxError("the query needs more memory than there is", hint="ask for less at once")
    # What comes from inside the Parquet reader has no kind, or one that says little.
    garbled = kind == "Invalid Input" and re.search(r"\.parquet|Parquet metadata is corrupt", text)
    if kind in ("IO", "Serialization") or not is_of_duckdb or garbled:
        return StoreDamaged(
            f"a file of the store can't be read: {text.splitlines()[0]}",
            hint="if a run is compacting it now, try again; else restore it from a backup",
        )
    return None


def _spill_directory() -> str:
    """Where DuckDB puts what memory can't hold; it is made when needed and removed. Empty for nowhere."""
    try:
        return str(Path(tempfile.gettempdir()) / f"vidx-{secrets.token_hex(8)}")
    except OSError:  # nothing here can be written
        return ""


def _no_rows(schema: pa.Schema) -> str:
    """SELECT of a table of that schema without rows. Registering an empty Arrow table would do, but imports pandas."""
    return (
        "SELECT " + ", ".join(f'NULL::{_sql_type(field.type)} AS "{field.name}"' for field in schema) + " WHERE false"
    )


def _sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of ours."""
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMPTZ"
    return _SQL_TYPES[kind]


_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_NEWEST = """
CREATE VIEW newest AS SELECT * FROM indexed
QUALIFY row_number() OVER (PARTITION BY video_id, space ORDER BY first_clip_id DESC) = 1
"""
