"""Comma-separated values as RFC 4180 has them: a line of names, CRLF at the end of every line, UTF-8.

A null is an empty field, an empty text is `""`. A list is one field, a JSON array: no separator is safe in file names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa

CELLS = "text"


def write(rows: pa.RecordBatchReader, out: BinaryIO) -> None:
    """Write columns of texts, numbers, truth values, and lists of these."""
    out.write(_line(rows.schema.names))
    for batch in rows:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            out.write(_line(row))


def _line(row: Iterable[Any]) -> bytes:
    return (",".join(map(_field, row)) + "\r\n").encode()


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | list):
        value = json.dumps(value, ensure_ascii=False)
    text = str(value)
    if text == "" or any(special in text for special in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
