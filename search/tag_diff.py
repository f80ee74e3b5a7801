"""What a new set of tags changed: labels gained and lost, and those whose probability moved: `vidx tag --diff`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import parquet

from vidx.errors import InputError, VidxError
from vidx.schema.tables import TAGS
from vidx.search._tag_files import HINT, connect, named, unreadable

CHANGES = ("added", "removed", "changed")
SCHEMA = pa.schema(
    [
        ("change", pa.string()),  # one of CHANGES
        *(TAGS.field(name) for name in ("level", "video_id", "path", "start_s", "end_s", "label")),
        ("old_probability", pa.float32()),  # null where added
        ("new_probability", pa.float32()),  # null where removed
        ("old_rank", pa.int32()),
        ("new_rank", pa.int32()),
    ]
)
_NEEDED = {  # with DuckDB's names of their types
    **dict.fromkeys(("level", "video_id", "path", "label"), "VARCHAR"),
    **{"start_s": "DOUBLE", "end_s": "DOUBLE", "probability": "FLOAT", "rank": "INTEGER"},
}
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class LabelChanges:
    """How many rows of a difference are of one label."""

    label: str
    added: int
    removed: int
    changed: int

    @property
    def total(self) -> int:
        return self.added + self.removed + self.changed


@dataclass(frozen=True)
class Summary:
    """How many rows a difference has, and of which labels; the one that changed most often first."""

    added: int
    removed: int
    changed: int
    labels: list[LabelChanges]


def diff(old: Sequence[Path], new: Sequence[Path], least_change: float = 0.1) -> pa.RecordBatchReader:
    """The labels that differ between two sets of tags, as rows of SCHEMA by path, start, level and label.

    A label is the same where video, level, start, end and name agree. It has changed where its probability moved by
    `least_change` or more, or where it became the first of its clip or no longer is. Each side is one or more Parquet
    files with the needed columns of `vidx.schema.tables.TAGS`, or the parts of a folder partitioned by label. The
    rows are found when the first is asked for. Raises InputError, here or then, for a file that can't be read or lacks
    a column.
    """
    sides = [_source(old), _source(new)]
    db = connect({file.absolute().parent for file in (*old, *new)})
    query = _DIFFERENCE.format(old=sides[0], new=sides[1], least_change=float(least_change))

    def batches() -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(1) as worker:  # DuckDB works there, so that Ctrl-C is heard here
            try:
                reader = worker.submit(lambda: db.sql(query).to_arrow_reader(_BATCH_ROWS)).result()
                while (batch := worker.submit(next, reader, None).result()) is not None:
                    yield batch
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                raise _as_told(error, [*old, *new]) from error
            except KeyboardInterrupt:
                db.interrupt()
                raise

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def summary(rows: pa.RecordBatchReader | pa.Table) -> Summary:
    """Count the rows of a difference; a reader is read to its end."""
    counts: Counter[tuple[str, str]] = Counter()
    for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows:
        found = pa.Table.from_batches([batch]).group_by(["label", "change"]).aggregate([([], "count_all")])
        for row in found.to_pylist():
            counts[row["label"], row["change"]] += row["count_all"]
    labels = [
        LabelChanges(label, *(counts[label, change] for change in CHANGES)) for label in {key[0] for key in counts}
    ]
    labels.sort(key=lambda row: (-row.total, row.label))
    added, removed, changed = (sum(getattr(row, change) for row in labels) for change in CHANGES)
    return Summary(added, removed, changed, labels)


def check_files(files: Sequence[Path]) -> None:
    """Raises InputError, naming the file, for what can't be compared."""
    _source(files)


def _source(files: Sequence[Path]) -> str:
    """SQL of the rows of some files. Raises InputError, naming the one that can't be read or lacks a column."""
    if not files:
        raise InputError("there is no Parquet file to compare", hint=HINT)
    columns = {file: _columns(file) for file in files}
    # The parts of a partitioned folder have their label in its name.
    in_parts = all(
        file.absolute().parent.name.startswith("label=") and "label" not in columns[file].names for file in files
    )
    for file in files:
        for needed in (TAGS.field(name) for name in _NEEDED if not (name == "label" and in_parts)):
            if needed.name not in columns[file].names:
                raise InputError(f"{file} has no column {needed.name!r}", hint=HINT)
            kind = columns[file].field(needed.name).type
            if _is_text(kind) != _is_text(needed.type):
                raise InputError(f"{file}: its column {needed.name!r} is {kind}, not {needed.type}", hint=HINT)
    listed = ", ".join(named(file) for file in files)
    of_folders = "true, hive_types = {'label': VARCHAR}" if in_parts else "false"
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = {of_folders})"


def _columns(file: Path) -> pa.Schema:
    try:
        str(file).encode()  # DuckDB takes no other names
        with open(file, "rb") as opened:
            return parquet.read_schema(opened)
    except (OSError, ValueError) as error:  # pa.ArrowInvalid is a ValueError
        raise unreadable(file, error) from error


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _as_told(error: Exception, files: Sequence[Path]) -> VidxError:
    """What a user can understand: the damaged file, which DuckDB does not always name, or the machine's trouble."""
    for file in files:
        try:
            with parquet.ParquetFile(file) as source:
                for _ in source.iter_batches(columns=list(_NEEDED)):
                    pass
        except (OSError, ValueError) as damage:
            return unreadable(file, damage)
    line = str(error).splitlines()[0]
    return VidxError(f"the tags can't be compared: {line}", hint="it may need more memory, or more disk under TMPDIR")


_COLUMNS = ", ".join(f"{name}::{kind} AS {name}" for name, kind in _NEEDED.items())
# Paths stand apart, as texts among what is aggregated can't be laid aside on the disk.
_DIFFERENCE = f"""
WITH tags AS (
    SELECT {_COLUMNS}, false AS is_new FROM {{old}} WHERE label IS NOT NULL
    UNION ALL
    SELECT {_COLUMNS}, true AS is_new FROM {{new}} WHERE label IS NOT NULL
), videos AS (
    SELECT video_id, coalesce(min(path) FILTER (is_new), min(path)) AS path FROM tags GROUP BY video_id
), labels AS (
    SELECT level, video_id, start_s, end_s, label, bool_or(NOT is_new) AS in_old, bool_or(is_new) AS in_new,
        max(probability) FILTER (NOT is_new) AS old_probability, max(probability) FILTER (is_new) AS new_probability,
        min(rank) FILTER (NOT is_new) AS old_rank, min(rank) FILTER (is_new) AS new_rank
    FROM tags GROUP BY level, video_id, start_s, end_s, label
)
SELECT CASE WHEN NOT in_old THEN 'added' WHEN NOT in_new THEN 'removed' ELSE 'changed' END AS change,
    level, video_id, path, start_s, end_s, label, old_probability, new_probability, old_rank, new_rank
FROM labels JOIN videos USING (video_id)
WHERE NOT (in_old AND in_new)
    OR round(abs(new_probability::DOUBLE - old_probability::DOUBLE), 6) >= {{least_change}}  -- 0.9 is less as a FLOAT
    OR (old_rank = 1) IS DISTINCT FROM (new_rank = 1)
ORDER BY path, start_s, level, label, end_s, video_id
"""
