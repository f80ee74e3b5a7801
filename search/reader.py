"""A space of a store that stays open: for programs that ask many times."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from threading import Lock

import numpy as np

from vidx.errors import InputError
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search.collection import Collection, open_collection

_UNIT = 1e-3  # that a norm may be from 1


class Reader:
    """Searches see what was committed when the reader was opened or last refreshed. Safe for any number of threads.

    A search waits for nobody: it works on the collection there is, and `refresh` puts the next one in its place. With
    `gpu` the index is held in the memory of the first GPU, where searches without a filter take turns.
    """

    def __init__(self, store: Store, space: Space, *, gpu: bool = False) -> None:
        """Raises StoreDamaged; VidxError where `gpu` is asked for and can't be had."""
        self._store, self._space, self._gpu = store, space, gpu
        self._refreshing = Lock()
        self.collection: Collection = self._placed(open_collection(Snapshot(store), space))

    def refresh(self) -> None:
        """See what was committed since; what is known already is not read again. Raises StoreDamaged."""
        with self._refreshing:
            self.collection = self._placed(open_collection(Snapshot(self._store), self._space, self.collection))

    def _placed(self, collection: Collection) -> Collection:
        """With its index where searches are to run."""
        generation = collection.generation
        if not self._gpu or generation is None:
            return collection
        from vidx.vectors._gpu import GpuFlatIndex, on_gpu

        if isinstance(generation.index, GpuFlatIndex):
            return collection
        index = on_gpu(generation.index, generation.clips.vectors)
        return replace(collection, generation=replace(generation, index=index))

    def retrieve(self, vector: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The k best clips for a unit vector float32 (dim,): cosines float32 (m,) and clip ids int64 (m,).

        Best first, ties by clip id; m is k, or the number of clips where that is smaller. Raises InputError for what is
        no unit vector of the space, and for a k below 1.
        """
        collection, query = self.collection, np.asarray(vector)
        if query.shape != (self._space.dim,) or query.dtype.kind != "f":
            raise InputError(
                f"a query is a vector of {self._space.dim} floats, not {query.dtype} of shape {query.shape}"
            )
        query = query.astype(np.float32, copy=False)
        if not abs(float(np.linalg.norm(query)) - 1) <= _UNIT:
            raise InputError("a query is of unit norm", hint="divide it by its norm")
        if not isinstance(k, Integral) or k < 1:
            raise InputError(f"k can't be {k!r}", hint="give a whole number from 1")
        return collection.search(query, int(k))
