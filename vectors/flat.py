"""Exact search: FAISS scans half-precision codes for candidates, which are scored again in single precision.

Half precision alone changes the order of close scores. A rounded unit vector is at most 2^-11 of its length away, so by
Cauchy and Schwarz its score is off by no more; the candidates are doubled until no vector outside can belong to the
answer (docs/explanation/search.md).
"""

from __future__ import annotations

import faiss
import numpy as np

_CANDIDATES = 4  # times k, to begin with
_ROUNDING = 2.0**-11 + 1e-5  # half precision, and room for the order of single-precision sums


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
        scores, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for number, query in enumerate(np.ascontiguousarray(queries, np.float32)):
            scores[number], ids[number] = self._search_one(query, k)
        return scores, ids

    def _search_one(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        n, wanted = len(self._clip_ids), _CANDIDATES * k
        while True:
            [coarse], [rows] = self._codes.search(query[None], min(wanted, n))
            exact = np.einsum("nd,d->n", self._vectors[rows], query)  # unlike BLAS, the same for equal rows
            best = np.lexsort((self._clip_ids[rows], -exact))[:k]
            if wanted >= n or exact[best[-1]] > coarse[-1] + _ROUNDING:
                return exact[best], self._clip_ids[rows][best]
            wanted *= 2
