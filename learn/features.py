"""Features of whole videos, computed once for each encoder and way of looking, and kept in the store's folder.

They lie in `features/ENCODER-DIGEST/*.parquet`, a row for each video. A file is written whole or not at all, so a run
that ends early loses at most what it did in the last seconds, and texts can be tried again without any decoding.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders import VideoTextEncoder, check_vectors
from vidx.errors import StoreDamaged
from vidx.export import written
from vidx.indexer.frames import Look, Looked, looked_at
from vidx.schema.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_VIEWS_AT_ONCE = 16  # through an encoder
_FLUSH_S = 20.0
_FLUSH_BYTES = 64 * 2**20
_KEY = ("path", "size", "mtime_ns")

Key = tuple[bytes, int, int]


@dataclass(frozen=True)
class Featured:
    """Of one video: `rows` float32 (views, R, dim) as `features` gives them, `indices` int (clips, T) of the frames."""

    rows: np.ndarray
    indices: np.ndarray
    n_frames: int


class Features:
    """What one encoder makes of videos looked at in one way."""

    def __init__(self, store: Store, encoder: VideoTextEncoder, look: Look) -> None:
        self.encoder, self.look = encoder, look
        facts = {
            "space": json.loads(encoder.spec.space.canonical_json()),
            "sampling": asdict(look.sampling),
            "preprocess": asdict(look.preprocess),
        }
        self.facts = json.dumps(facts, sort_keys=True)
        safe = re.sub(r"[^a-z0-9]+", "-", encoder.spec.name.lower()).strip("-")
        digest = hashlib.sha256(self.facts.encode()).hexdigest()
        self.folder = store.path / "features" / f"{safe}-{digest[:12]}"
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes, self._written_at = 0, time.monotonic()

    def known(self) -> set[Key]:
        """The videos whose features are there. Raises StoreDamaged."""
        return {
            key
            for table in self._tables(_KEY)
            for key in zip(*(table.column(name).to_pylist() for name in _KEY), strict=True)
        }

    def read(self, wanted: dict[Key, int]) -> Iterator[tuple[int, Featured]]:
        """The features of videos that are there, each once, with the number it is wanted by. Raises StoreDamaged."""
        left = dict(wanted)
        for table in self._tables(None):
            keys = zip(*(table.column(name).to_pylist() for name in _KEY), strict=True)
            for row, key in enumerate(keys):
                if (number := left.pop(key, None)) is not None:
                    yield number, _featured(table, row)

    def add(self, key: Key, featured: Featured) -> None:
        """Keep those of one more video; they are on the disk after the next `flush`."""
        shape = (*featured.rows.shape, *featured.indices.shape)
        row = {"n_frames": featured.n_frames, "shape": shape, "indices": featured.indices.ravel().tolist()}
        self._waiting.append({**dict(zip(_KEY, key, strict=True)), **row, "features": featured.rows.ravel()})
        self._waiting_bytes += featured.rows.nbytes
        if time.monotonic() - self._written_at > _FLUSH_S or self._waiting_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises InputError where it can't be written."""
        import pyarrow as pa
        from pyarrow import parquet

        if self._waiting:
            self.folder.mkdir(parents=True, exist_ok=True)
            columns = {name: [row[name] for row in self._waiting] for name in _schema().names}
            arrays = [_array(columns[field.name], field.type) for field in _schema()]
            table = pa.table(arrays, schema=_schema().with_metadata({"look": self.facts}))
            with written(self.folder / f"{secrets.token_hex(8)}.parquet") as out:
                parquet.write_table(table, out, compression="none")
        self._waiting, self._waiting_bytes, self._written_at = [], 0, time.monotonic()

    def _tables(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        import pyarrow as pa
        from pyarrow import parquet

        for path in sorted(self.folder.glob("*.parquet")):
            try:
                yield parquet.read_table(path, columns=None if columns is None else [*columns], partitioning=None)
            except (OSError, pa.ArrowException) as error:
                raise StoreDamaged(
                    f"{path} can't be read ({error})", hint="remove it; its videos are looked at again"
                ) from error


def compute(
    each: Sequence[Features], paths: Sequence[Path], tell: Callable[[int, int], None]
) -> tuple[dict[Path, Key], dict[Path, str]]:
    """Have the features of all videos there, each video decoded once for all that lack it.

    Returns the keys of those that are there, and for others why not. `tell` hears how many are done, of how many.
    """
    keys, failed = _keys(paths)
    known = [features.known() for features in each]
    lacking = {
        path: lacks for path, key in keys.items() if (lacks := [n for n, have in enumerate(known) if key not in have])
    }
    batches: list[list[tuple[Key, Looked, int]]] = [[] for _ in each]
    try:
        asked = ((path, [each[n].look for n in lacks]) for path, lacks in lacking.items())
        for done, (path, looked) in enumerate(zip(lacking, looked_at(asked), strict=False)):
            tell(done, len(lacking))
            if looked.reason is not None and not looked.views:
                failed[path] = looked.reason
                continue
            for place, n in enumerate(lacking[path]):
                batches[n].append((keys[path], looked, place))
                if sum(len(other.views[at]) for _, other, at in batches[n]) >= _VIEWS_AT_ONCE:
                    _encode(each[n], batches[n])
        for features, batch in zip(each, batches, strict=True):
            _encode(features, batch)
        if lacking:
            tell(len(lacking), len(lacking))
    finally:
        for features in each:
            features.flush()
    return {path: key for path, key in keys.items() if path not in failed}, failed


def _keys(paths: Sequence[Path]) -> tuple[dict[Path, Key], dict[Path, str]]:
    keys, failed = dict[Path, Key](), dict[Path, str]()
    for path in paths:
        try:
            facts = os.stat(path)
            keys[path] = (os.fsencode(path.absolute()), facts.st_size, facts.st_mtime_ns)
        except OSError as error:
            failed[path] = f"can't be read: {error.strerror}"
    return keys, failed


def _encode(features: Features, batch: list[tuple[Key, Looked, int]]) -> None:
    """Encode the views of some videos together, and empty the batch."""
    if not batch:
        return
    frames = np.concatenate([looked.views[place] for _, looked, place in batch])
    rows = features_of(features.encoder, frames)
    check_vectors(_unit(rows[:, 0]), frames, features.encoder.spec.name)
    at = 0
    for key, looked, place in batch:
        n = len(looked.views[place])
        assert looked.facts is not None
        features.add(key, Featured(rows[at : at + n], looked.indices[place], looked.facts.n_frames))
        at += n
    batch.clear()


def features_of(encoder: VideoTextEncoder, frames: np.ndarray) -> np.ndarray:
    """uint8 (B, T, side, side, 3) to float32 (B, R, dim), not normalised where the encoder shows what it has before."""
    if hasattr(encoder, "features"):
        rows: np.ndarray = encoder.features(frames)
        return rows
    return encoder.encode_video(frames)[:, None]


def _unit(rows: np.ndarray) -> np.ndarray:
    result: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return result


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.binary()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("n_frames", pa.int64()),
            ("shape", pa.list_(pa.int32())),  # views, R, dim, clips, T
            ("indices", pa.list_(pa.int64())),
            ("features", pa.large_list(pa.float32())),
        ]
    )


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if not pa.types.is_large_list(kind):
        return pa.array(values, kind)
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int64)
    return pa.LargeListArray.from_arrays(offsets, np.concatenate(values))


def _featured(table: pa.Table, row: int) -> Featured:
    views, of_view, dim, clips, frames = table.column("shape")[row].as_py()
    rows = table.column("features")[row].values.to_numpy(zero_copy_only=False)
    indices = np.array(table.column("indices")[row].as_py(), np.int64)
    return Featured(
        rows.reshape(views, of_view, dim), indices.reshape(clips, frames), table.column("n_frames")[row].as_py()
    )
