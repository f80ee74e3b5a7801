"""Exact cosines, the same to the last bit whichever way a row was found."""

from __future__ import annotations

import numpy as np

_BLOCK_ROWS = 16_384  # gathered at once; 32 MB at 512 dimensions


def scores_of(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products float32 (n,) of float32 (n, dim) and (dim,), equal for equal rows, which those of BLAS are not."""
    return np.einsum("nd,d->n", vectors, query)


def best_of(
    vectors: np.ndarray, query: np.ndarray, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the rows int64 (n,), or of all: scores (m,) and rows (m,), best first, ties by row."""
    if rows is None:
        scores, rows = scores_of(vectors, query), np.arange(len(vectors))
    else:
        parts = [scores_of(vectors[rows[at : at + _BLOCK_ROWS]], query) for at in range(0, len(rows), _BLOCK_ROWS)]
        scores = np.concatenate([np.empty(0, np.float32), *parts])
    if 0 < k < len(scores):  # sorting all of a million takes longer than scoring them
        near = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        scores, rows = scores[near], rows[near]
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]
