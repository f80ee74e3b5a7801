"""Arrow schemas of every table of the store. Fixed-size lists and float16 are not Delta types, hence list<float>."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from vidx.errors import StoreDamaged
from vidx.schema.delta_log import read_log

_TIME = pa.timestamp("us", tz="UTC")

FILES = pa.schema(
    [
        ("root", pa.string()),  # folder given to `vidx index`, absolute
        ("path", pa.string()),  # absolute, printable
        ("path_bytes", pa.binary()),  # absolute, exact: the key
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("device", pa.int64()),  # st_dev, to tell an unplugged drive from an emptied folder
        ("video_id", pa.string()),  # null where the file could not even be read
        ("state", pa.string()),  # present | missing | unreadable
        ("reason", pa.string()),  # why unreadable
    ]
)

VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),
        ("size_bytes", pa.int64()),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("pixel_format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation", pa.int32()),
        ("sar_num", pa.int32()),
        ("sar_den", pa.int32()),
        ("frame_rate", pa.float64()),
        ("n_frames", pa.int64()),
        ("duration_s", pa.float64()),
        ("first_s", pa.float64()),
        ("time_origin_s", pa.float64()),
        ("time_base_num", pa.int64()),
        ("time_base_den", pa.int64()),
        ("stream_index", pa.int32()),
        ("has_audio", pa.bool_()),
        ("timecode", pa.string()),
        ("created_at", pa.string()),
        ("announced_s", pa.float64()),  # as the header has it; only of files whose fingerprint is a sample
        ("announced_frames", pa.int64()),
    ]
)

# The newest row of a (video_id, space) is the one with the largest first_clip_id: every attempt draws at least one id.
INDEXED = pa.schema(
    [
        ("video_id", pa.string()),
        ("space", pa.string()),
        ("state", pa.string()),  # ok | partial | failed | not_video
        ("reason", pa.string()),
        ("first_bad_s", pa.float64()),
        ("plan", pa.string()),  # JSON
        ("decoder", pa.string()),
        ("decode_mode", pa.string()),  # exact | fast | keyframes
        ("versions", pa.string()),  # JSON, library name to version
        ("device", pa.string()),
        ("precision", pa.string()),
        ("first_clip_id", pa.int64()),
        ("n_clips", pa.int64()),
        ("run_id", pa.string()),
        ("indexed_at", _TIME),
    ]
)

CLIPS = pa.schema(
    [
        ("clip_id", pa.int64()),
        ("video_id", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frame_pts", pa.list_(pa.int64())),  # stream ticks of the frames that were embedded
        ("frame_pts_s", pa.list_(pa.float64())),
        ("vector", pa.list_(pa.float32())),  # unit norm
    ]
)

THUMBNAILS = pa.schema(
    [("video_id", pa.string()), ("frame_pts", pa.int64()), ("image", pa.binary())]  # JPEG, at most 4 kB
)

TAGS = pa.schema(
    [
        ("video_id", pa.string()),
        ("clip_id", pa.int64()),  # null for segments and videos
        ("level", pa.string()),  # clip | segment | video
        ("path", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("probability", pa.float32()),
        ("threshold", pa.float32()),
        ("rank", pa.int32()),
        ("encoder", pa.string()),
        ("weights_digest", pa.string()),
        ("prompts_digest", pa.string()),
        ("tag_set", pa.string()),
        ("run_id", pa.string()),
    ]
)

SEARCHES = "searches"  # the set of tags that hits of searches get

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("command", pa.string()),
        ("options", pa.string()),  # JSON
        ("encoder", pa.string()),
        ("space", pa.string()),
        ("weights_digest", pa.string()),
        ("vidx_version", pa.string()),
        ("started_at", _TIME),
        ("finished_at", _TIME),
        ("state", pa.string()),  # done | interrupted | error
        ("counts", pa.string()),  # JSON, as in the `done` event
    ]
)

# Tables there is one of. clips/<space> and tags/<set> come one per space and set.
SINGLE = {"files": FILES, "videos": VIDEOS, "indexed": INDEXED, "thumbnails": THUMBNAILS, "runs": RUNS}


_MESSAGE_LENGTH = 160  # Delta prints whole structures
LOG_CONFIG = {"delta.checkpointInterval": "100"}  # commits between checkpoints of a table's log


def create_table(path: Path, schema: pa.Schema) -> None:
    """Make an empty Delta table; one that is there is kept."""
    DeltaTable.create(path, schema=schema, mode="ignore", configuration=LOG_CONFIG)


def open_table(path: Path) -> DeltaTable:
    """The newest version of a table. Raises StoreDamaged, in one line, whatever is wrong with its log."""
    try:
        log = read_log(path / "_delta_log")
        opened = DeltaTable(path)
        if opened.version() == log.version and log.n_files not in (None, len(opened.file_uris())):
            raise ValueError("its log names other files than it says")
        return opened
    except FileNotFoundError:
        raise _damaged(path, "it is missing, or its log is") from None
    except (DeltaError, OSError, ValueError) as error:
        raise _damaged(path, str(error).splitlines()[0][:_MESSAGE_LENGTH]) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust; it is no Exception and has no importable name
            raise
        raise _damaged(path, "its log is garbled") from error


def _damaged(path: Path, what: str) -> StoreDamaged:
    return StoreDamaged(
        f"table {path.name} of the store can't be opened: {what}", hint=f"restore {path} from a backup of the store"
    )


def table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows to an Arrow table of exactly `schema`; a missing column is an error, not a null."""
    return pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in schema}, schema=schema)


def clips_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Like `table` for CLIPS, with `vector` given as float32 arrays and copied once."""
    vectors = np.stack([row["vector"] for row in rows]).astype(np.float32, copy=False)
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * vectors.shape[1]
    columns = {f.name: pa.array([row[f.name] for row in rows], f.type) for f in CLIPS if f.name != "vector"}
    columns["vector"] = pa.ListArray.from_arrays(offsets, vectors.reshape(-1))
    return pa.table(columns, schema=CLIPS)
