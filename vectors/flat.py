"""Exact search: FAISS scans half-precision codes for candidates, which are scored again in single precision.

Half precision alone changes the order of close scores. A rounded unit vector is at most 2^-11 of its length away, so by
Cauchy and Schwarz its score is off by no more; the candidates are doubled until no vector outside can belong to the
answer (docs/explanation/search.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vidx.vectors._exact import best_of
from vidx.vectors._selection import Selection, each, read_ahead, read_mapped

NEEDS_GATE = False

CANDIDATES = 4  # times k, to begin with
ROUNDING = 2.0**-11 + 1e-5  # half precision, and room for the order of single-precision sums
_BLOCK_ROWS = 65_536


def build(vectors: np.ndarray, seed: int = 0) -> FlatIndex:
    """Index float32 (N, dim) unit vectors. Nothing is drawn at random."""
    codes = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    codes.train(np.zeros((1, vectors.shape[1]), np.float32))
    for at in range(0, len(vectors), _BLOCK_ROWS):
        codes.add(np.ascontiguousarray(vectors[at : at + _BLOCK_ROWS]))
    return FlatIndex(codes, vectors)


def opened(path: Path, vectors: np.ndarray, settings: dict[str, Any]) -> FlatIndex:
    """The index that was saved at `path`, its codes mapped into memory, over the vectors it was built of."""
    read_ahead(path)
    return FlatIndex(read_mapped(path), vectors)


class FlatIndex:
    """See `vidx.vectors.Index`. The vectors are not copied."""

    def __init__(self, codes: faiss.IndexScalarQuantizer, vectors: np.ndarray) -> None:
        self.settings: dict[str, Any] = {}
        self._codes, self._vectors = codes, vectors

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `vidx.vectors.Index.search`."""
        selection = Selection(len(self._vectors), allowed)
        return each(queries, min(k, selection.n), lambda query, k: self._search_one(query, k, selection))

    def save(self, path: Path) -> None:
        """Write the codes, half as large as the vectors."""
        faiss.write_index(self._codes, str(path))

    def _search_one(self, query: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        if selection.is_small:
            return best_of(self._vectors, query, k, selection.rows)
        parameters = faiss.SearchParameters(sel=selection.selector) if selection.selector else None
        wanted = CANDIDATES * k
        while True:
            [coarse], [rows] = self._codes.search(query[None], min(wanted, selection.n), params=parameters)
            exact, best = best_of(self._vectors, query, k, rows)
            if wanted >= selection.n or exact[-1] > coarse[-1] + ROUNDING:
                return exact, best
            wanted *= 2
