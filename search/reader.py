"""A space of a store that stays open: for programs that ask many times."""

from __future__ import annotations

from threading import Lock

import numpy as np

from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search.collection import Collection, open_collection


class Reader:
    """Searches see what was committed when the reader was opened or last refreshed. Safe for any number of threads.

    A search waits for nobody: it works on the collection there is, and `refresh` puts the next one in its place.
    """

    def __init__(self, store: Store, space: Space) -> None:
        self._store, self._space = store, space
        self._refreshing = Lock()
        self.collection: Collection = open_collection(Snapshot(store), space)

    def refresh(self) -> None:
        """See what was committed since; what is known already is not read again. Raises StoreDamaged."""
        with self._refreshing:
            self.collection = open_collection(Snapshot(self._store), self._space, self.collection)

    def retrieve(self, vector: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The k best clips for a unit vector float32 (dim,): cosines float32 (m,) and clip ids int64 (m,).

        Best first, ties by clip id; m is k, or the number of clips where that is smaller.
        """
        return self.collection.search(vector, k)
