"""Exact search: FAISS scans half-precision codes for 4k candidates, which are scored again in single precision.

Half precision alone changes the order of close scores; with the second look the answer equals a full float32 scan on
all but pathological data, at half the memory traffic (docs/explanation/search.md).
"""

from __future__ import annotations

import faiss
import numpy as np

_CANDIDATES = 4  # times k


def build(vectors: np.ndarray, clip_ids: np.ndarray) -> FlatIndex:
    """Index float32 (N, dim) unit vectors under int64 (N,) clip ids."""
    return FlatIndex(vectors, clip_ids)


class FlatIndex:
    """See `vidx.vectors.Index`. Searches from several threads are safe; the vectors are not copied."""

    def __init__(self, vectors: np.ndarray, clip_ids: np.ndarray) -> None:
        self._vectors, self._clip_ids = vectors, clip_ids
        self._codes = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._codes.train(vectors[:1])
        self._codes.add(vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `vidx.vectors.Index.search`."""
        n = len(self._clip_ids)
        k = min(k, n)
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        _, rows = self._codes.search(np.ascontiguousarray(queries, np.float32), min(_CANDIDATES * k, n))
        scores = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        for number, (query, found) in enumerate(zip(queries, rows, strict=True)):
            exact = self._vectors[found] @ query
            best = np.lexsort((self._clip_ids[found], -exact))[:k]
            scores[number], ids[number] = exact[best], self._clip_ids[found][best]
        return scores, ids
