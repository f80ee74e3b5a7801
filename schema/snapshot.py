"""A consistent read-only view of a store: table versions pinned in the reverse of the order they are written in.

A row of a later table then never names something that an earlier one does not hold yet. DuckDB reads the very Parquet
files of the pinned versions; its own Delta extension would have to be downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from vidx.errors import InputError, StoreDamaged
from vidx.schema import tables
from vidx.schema.store import Store

_PIN_ORDER = ("files", "indexed", "videos")  # reverse of the write order; clips, thumbnails and the rest follow


class Snapshot:
    """SQL over one moment of a store. Views: files, videos, indexed, newest, runs, thumbnails; `clips(space)` by name.

    Not safe for several threads at once; snapshots are cheap, take one each.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._spaces = store.spaces()
        self._tables: dict[str, DeltaTable] = {}
        for name in _PIN_ORDER:
            self._pin(name)
        for space in self._spaces:
            self._pin(f"clips/{space}")
        for name in ("thumbnails", "runs"):
            self._pin(name)
        with _told():
            self._db = self._connect()

    def _pin(self, name: str) -> None:
        path = self.store.path / name
        try:
            self._tables[name] = DeltaTable(path)
        except TableNotFoundError:
            if not name.startswith("clips/"):  # a space whose first commit never came has no table yet
                raise StoreDamaged(
                    f"table {name} of the store is missing: {path}", hint="restore it from a backup of the store"
                ) from None
        except (DeltaError, OSError) as error:
            raise StoreDamaged(
                f"table {name} of the store can't be opened: {str(error).splitlines()[0]}",
                hint=f"restore {path} from a backup of the store",
            ) from error

    def _connect(self) -> duckdb.DuckDBPyConnection:
        db = duckdb.connect(
            ":memory:", config={"autoload_known_extensions": "false", "autoinstall_known_extensions": "false"}
        )
        db.execute(f"SET allowed_directories = [{_quoted(str(self.store.path))}]")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        for name, schema in tables.SINGLE.items():
            self._define(db, name, name, schema)
        for number, space in enumerate(self._spaces):
            self._define(db, f"clips/{space}", f"all_clips_{number}", tables.CLIPS)
        db.execute(_NEWEST)
        return db

    def _define(self, db: duckdb.DuckDBPyConnection, name: str, view: str, schema: pa.Schema) -> None:
        """A view of exactly the columns of `schema`; a file that an earlier version wrote may lack some."""
        source = ", ".join(f'NULL::{_sql_type(field.type)} AS "{field.name}"' for field in schema) + " WHERE false"
        if name in self._tables and (uris := self._tables[name].file_uris()):
            listed = ", ".join(_quoted(unquote(uri.removeprefix("file://"))) for uri in uris)
            source += f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name = true)"
        db.execute(f"CREATE VIEW {view} AS SELECT {source}")

    def versions(self) -> dict[str, int]:
        """The pinned Delta version of each table."""
        return {name: table.version() for name, table in self._tables.items()}

    def rows(self, query: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one SELECT; rows as tuples."""
        with _told():
            return self._select(query, parameters).fetchall()

    def arrow(self, query: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """Run one SELECT; an Arrow table."""
        with _told():
            return self._select(query, parameters).to_arrow_table()

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
        return f"all_clips_{self._spaces.index(space)}"

    def _select(self, query: str, parameters: dict[str, Any] | None) -> duckdb.DuckDBPyRelation:
        """DuckDB may write where it may read, so anything but a SELECT is refused here. Raises InputError."""
        kinds = [statement.type for statement in self._db.extract_statements(query)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise InputError("a snapshot takes one SELECT statement", hint="the store is changed by vidx alone")
        return self._db.sql(query, params=parameters)


@contextmanager
def _told() -> Iterator[None]:
    """Turn a failed read of the store's files into a StoreError."""
    try:
        yield
    except duckdb.IOException as error:
        raise StoreDamaged(
            f"a file of the store can't be read: {str(error).splitlines()[0]}",
            hint="if a run is compacting it now, try again; else restore it from a backup",
        ) from error


def _sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of ours. Registering an empty Arrow table would do, but imports pandas."""
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
