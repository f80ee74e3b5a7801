"""SQL of users over a snapshot: the views there are, and one SELECT over them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from vidx.errors import InputError
from vidx.schema import tables
from vidx.schema.snapshot import Snapshot, as_told

_T = TypeVar("_T")

# Name and columns of each.
VIEWS = {
    "files": tables.FILES.names,
    "videos": tables.VIDEOS.names,
    "indexed": tables.INDEXED.names,
    "newest": tables.INDEXED.names,
    "clips": ["space", *tables.CLIPS.names],
    "thumbnails": tables.THUMBNAILS.names,
    "runs": tables.RUNS.names,
    "tags": tables.TAGS.names,
}
_BATCH_ROWS = 10_000  # with a vector in each, as JSON, some 80 MB
_SHOWN_ITEMS = 3  # of a long list
_SHOWN_BYTES = 256  # more than a path has, and less than a picture


def select(snapshot: Snapshot, query: str, cells: str = "values") -> pa.RecordBatchReader:
    """Run one SELECT over VIEWS; rows come as they are made, so that a result of any size needs little memory.

    `cells` is `values` for columns of their own types, or says how DuckDB is to write each of them as a string: `text`,
    with lists and the like as JSON; `json`; or `short`, as `text` with long lists and blobs abbreviated. Columns of the
    same name get a number. Raises InputError where the query is wrong, here or while rows are read; StoreDamaged.
    """

    def explain(text: str) -> InputError:
        return _explained(snapshot, query, text)

    snapshot.define("clips", snapshot.clips_of_all_spaces())
    with told(explain):
        relation = snapshot.select(readable(query))
        names = _distinct(relation.columns)
        columns = [
            f'{_cell(f"#{number}", str(kind), cells)} AS "{_doubled(name)}"'
            for number, (name, kind) in enumerate(zip(names, relation.types, strict=True), 1)
        ]
        reader = _waited_for(snapshot, relation.project(", ".join(columns)).to_arrow_reader, _BATCH_ROWS)

    def batches() -> Iterator[pa.RecordBatch]:
        with told(explain):
            while (batch := _waited_for(snapshot, next, reader, None)) is not None:
                yield batch

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _waited_for(snapshot: Snapshot, function: Callable[..., _T], *arguments: Any) -> _T:
    """Call in a thread, and wait where Ctrl-C is heard: Arrow does not listen while DuckDB works for it."""
    with ThreadPoolExecutor(1) as worker:
        running = worker.submit(function, *arguments)
        try:
            return running.result()
        except KeyboardInterrupt:
            snapshot.interrupt()
            raise


@contextmanager
def told(explain: Callable[[str], InputError]) -> Iterator[None]:
    """Raise what a user can understand for what DuckDB raises, or Arrow on its behalf."""
    try:
        yield
    except (duckdb.Error, RuntimeError, OSError, pa.ArrowException) as error:
        raise as_told(str(error)) or explain(str(error)) from error


def plain(text: str) -> str:
    """A message of DuckDB without its kind, its suggestions and its picture of the query."""
    first = re.split(r"\n\s*\n|\n\s*(?:LINE |Did you mean|Candidate)|\. Use | - file system operations", text)[0]
    return " ".join(re.sub(r"^[A-Z][\w -]* Error: ", "", first).split()).rstrip("!. ")


def readable(text: str) -> str:
    """The text itself. Raises InputError where it is no Unicode."""
    if text.encode("utf-8", "replace").decode() != text:
        raise InputError("the query is not readable text", hint="check the terminal's encoding; vidx takes UTF-8")
    return text


def _explained(snapshot: Snapshot, query: str, text: str) -> InputError:
    """What is wrong with a query, and the names there are: columns where one is missing, else views."""
    hint = f"views: {', '.join(VIEWS)}"
    if "column" in text.lower():
        [(tree,)] = snapshot.rows("SELECT json_serialize_sql($query::VARCHAR)", {"query": query})
        named = {name for name in VIEWS if f'"table_name":{json.dumps(name)}' in tree}
        hint = "; ".join(f"columns of {name}: {', '.join(VIEWS[name])}" for name in sorted(named)) or hint
    return InputError(f"the query is wrong: {plain(text)}", hint=hint)


def _distinct(names: list[str]) -> list[str]:
    """The names, the second `a` as `a_1`; case does not tell two apart."""
    taken: list[str] = []
    for name in names:
        free = (f"{name}_{number}" if number else name for number in range(len(names)))
        taken.append(next(other for other in free if other.lower() not in map(str.lower, taken)))
    return taken


def _cell(column: str, kind: str, cells: str) -> str:
    """SQL of what is shown of a column of a DuckDB type."""
    if cells == "values":
        return column
    if cells == "short" and kind.endswith("]"):
        items = f"({column})::{kind[: kind.rindex('[')]}[]"
        some = f"array_to_string(({items})[1:{_SHOWN_ITEMS}]::VARCHAR[], ', ')"
        long = f"'[' || {some} || ', … ' || len({items}) || ' in all]'"
        return f"CASE WHEN len({items}) > {_SHOWN_ITEMS + 1} THEN {long} ELSE to_json({column})::VARCHAR END"
    if cells == "short" and kind == "BLOB":
        size = f"octet_length({column})"
        return f"CASE WHEN {size} > {_SHOWN_BYTES} THEN {size} || ' bytes' ELSE {column}::VARCHAR END"
    nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))
    return f"to_json({column})::VARCHAR" if nested or cells == "json" else f"{column}::VARCHAR"


def _doubled(name: str) -> str:
    return name.replace('"', '""')
