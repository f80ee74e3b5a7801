"""One JSON object an answer, or one object a line for each row of a table.

The fields of an answer are those of schema.records; `version` changes when their meaning does.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

from vidx.schema.records import Answer

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
CELLS = "json"


def to_text(answer: Answer) -> str:
    """The answer as one line of JSON."""
    fields = asdict(answer)
    del fields["thumbnails"], fields["notes"]
    return json.dumps({"version": VERSION, **fields}, ensure_ascii=False)


def write(rows: pa.RecordBatchReader, out: BinaryIO) -> None:
    """Rows of JSON texts, null for a null, as one object a line with the columns in their order."""
    names = [json.dumps(name, ensure_ascii=False) for name in rows.schema.names]
    for batch in rows:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            fields = (f"{name}: {_strict(cell)}" for name, cell in zip(names, row, strict=True))
            out.write(("{" + ", ".join(fields) + "}\n").encode())


def _strict(cell: str | None) -> str:
    """A JSON text without numbers that JSON does not know: NaN and the infinities become null."""
    if cell is None:
        return "null"
    if "NaN" in cell or "Infinity" in cell:
        return json.dumps(json.loads(cell, parse_constant=lambda _: None), ensure_ascii=False)
    return cell
