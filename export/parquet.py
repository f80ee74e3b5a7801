"""Parquet, columns in their own types: lists stay lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from vidx.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

CELLS = "values"
BINARY = True


def write(rows: pa.RecordBatchReader, out: BinaryIO) -> None:
    """Write any table. Raises InputError for a type that Parquet does not know."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetWriter(out, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
    except pa.ArrowNotImplementedError as error:
        raise InputError(
            f"Parquet can't hold this: {error}", hint="cast the column, for instance to VARCHAR"
        ) from error
