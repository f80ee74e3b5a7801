"""Tags as a folder of Parquet files by label, named as Hive, DuckDB, Spark, pandas and Polars know it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb
from pyarrow import parquet

from vidx.errors import InputError
from vidx.schema.tag_tables import METADATA_KEY
from vidx.search._tag_files import connect, named, quoted


def write_partitioned(files: Sequence[Path], folder: Path) -> None:
    """Write the rows of Parquet files of tags, at least one file, as `label=LABEL/part-N.parquet` in `folder`.

    The parts have all columns but `label`, in any order of rows, and the metadata of the first file; rows without a
    label are in `label=__HIVE_DEFAULT_PARTITION__`. The folder gets its name when it is whole. Raises InputError where
    it is there and not empty, or can't be written.
    """
    target = Path(os.path.realpath(folder))
    aside = target.with_name(f".vidx-{secrets.token_hex(8)}")
    try:
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{folder} is there already", hint="name a new folder")
        aside.mkdir()
        try:
            (aside / "parts").mkdir()  # DuckDB may write below a folder that it is allowed, not to it
            _copy(files, aside / "parts")
            os.replace(aside / "parts", target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except (OSError, duckdb.Error) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"can't write {folder}: {why}", hint="name another folder, or a FILE.parquet") from error


def _copy(files: Sequence[Path], folder: Path) -> None:
    schema = parquet.read_schema(files[0])
    facts = (schema.metadata or {}).get(METADATA_KEY, b"{}").decode()
    db = connect({folder.parent, *(file.absolute().parent for file in files)})
    source = f"read_parquet([{', '.join(map(named, files))}])"
    if not db.sql(f"SELECT 1 FROM {source} LIMIT 1").fetchall():  # so that the columns are known
        part = folder / "label=__HIVE_DEFAULT_PARTITION__"
        part.mkdir()
        empty = schema.remove(schema.get_field_index("label")).empty_table()
        parquet.write_table(empty, part / "part-0.parquet", store_schema=False)
        return
    options = "FORMAT parquet, COMPRESSION zstd, PARTITION_BY (label), FILENAME_PATTERN 'part-{i}', OVERWRITE_OR_IGNORE"
    db.execute(
        f"COPY (SELECT * FROM {source}) TO {quoted(str(folder))} ({options}, KV_METADATA {{vidx: {quoted(facts)}}})"
    )
