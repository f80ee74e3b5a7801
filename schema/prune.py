"""Dropping what is stored of paths and contents, in an order that a kill at any instant leaves whole.

Rows of `files` go first: a content without one counts nowhere, and is dropped by whoever comes next. Its tags follow,
then its `indexed` rows, pictures, clips and facts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidx.errors import StoreDamaged
from vidx.schema import tables
from vidx.schema.store import Store
from vidx.schema.tag_tables import METADATA_KEY, NUMBERED, TagWriter, files_of
from vidx.schema.writer import StoreWriter


def drop(writer: StoreWriter, tags: TagWriter, paths: list[bytes], video_ids: list[str]) -> None:
    """Remove rows of `files`, and all rows of contents that no path leads to then. Raises StoreError.

    Both may be empty: what a killed run left is tidied up then, and old files are removed.
    """
    writer.drop_paths(paths)
    if video_ids:
        _drop_tags(writer.store, tags, pa.array(video_ids))
    writer.drop_contents(video_ids)


def _drop_tags(store: Store, tags: TagWriter, video_ids: pa.Array) -> None:
    """Write sets of tags again without those contents.

    The set written to last is the one that searches take, so the sets that are newer than a changed one are written
    again too, in the order of their age.
    """
    folder = store.path / "tags"
    written = {name: tables.open_table(folder / name).history(1)[0]["timestamp"] for name in store.tag_sets()}
    changed = False
    for name in sorted(written, key=lambda name: (written[name], name)):
        try:
            parts = files_of(store, name)
            changed = changed or any(_names_any(part, video_ids) for part in parts)
            if changed:
                facts = json.loads((pq.read_metadata(parts[0]).metadata or {}).get(METADATA_KEY, b"{}"))
                tags.replace(name, uuid4().hex, _kept(parts, video_ids), facts)
        except (pa.ArrowException, ValueError) as error:
            raise StoreDamaged(
                f"the tags {name!r} can't be read: {error}", hint=f"`vidx tag --set {name}` makes them anew"
            ) from error


def _names_any(part: Path, video_ids: pa.Array) -> bool:
    return pc.any(pc.is_in(pq.read_table(part, columns=["video_id"])["video_id"], video_ids)).as_py() is True


def _kept(parts: list[Path], video_ids: pa.Array) -> Iterator[pa.RecordBatch]:
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches():
            rows = pa.Table.from_batches([batch.filter(pc.invert(pc.is_in(batch["video_id"], video_ids)))])
            yield from rows.cast(NUMBERED).to_batches()
