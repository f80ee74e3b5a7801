"""The hits of an answer as a table, for formats that write any."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import pyarrow as pa
from pyarrow import json as arrow_json

from vidx.schema.records import Answer

_SCHEMA = pa.schema(
    [
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("calibrated", pa.float64()),
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("paths", pa.list_(pa.string())),
        ("online", pa.bool_()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("peak_s", pa.float64()),
        ("clip_ids", pa.list_(pa.int64())),
    ]
)


def hit_rows(answer: Answer) -> pa.RecordBatchReader:
    """One row for each hit: columns in the order of `vidx.schema.records.Hit`."""
    if not answer.hits:
        return pa.RecordBatchReader.from_batches(_SCHEMA, [])
    lines = "".join(json.dumps(asdict(hit)) + "\n" for hit in answer.hits).encode()
    # Not pa.array, which imports pandas where there is one; that takes longer than the search.
    fields = arrow_json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="error")
    at_once = arrow_json.ReadOptions(block_size=len(lines) + 1)  # no hit may be longer than a block
    return arrow_json.read_json(io.BytesIO(lines), at_once, fields).to_reader()
