"""The exact tier on a GPU, for readers that stay open and are asked often: one pass over half-precision vectors.

FAISS's indexes on a GPU are not safe for several threads even where they only read, can't remove, and the classic ones
take an id selector and never look at it. So searches queue at a lock, and whatever has a filter goes to the CPU.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np

from vidx.errors import VidxError
from vidx.vectors import Index
from vidx.vectors._exact import best_of
from vidx.vectors._selection import each
from vidx.vectors.flat import CANDIDATES, ROUNDING

_MOST_CANDIDATES = 2048  # that a classic index on a GPU gives
_BLOCK_ROWS = 262_144


def on_gpu(index: Index, vectors: np.ndarray) -> GpuFlatIndex:
    """An index that scans float32 (N, dim) unit vectors on the first GPU; `index`, over the same, takes the rest.

    Raises VidxError where there is no GPU, or too little memory on it: it takes 2 bytes a number.
    """
    if not hasattr(faiss, "GpuIndexFlat") or faiss.get_num_gpus() == 0:
        raise VidxError("FAISS finds no GPU here", hint="search on the CPU")
    configuration = faiss.GpuIndexFlatConfig()
    configuration.useFloat16 = True
    configuration.use_cuvs = "CUVS" in faiss.get_compile_options()
    try:
        resources = faiss.StandardGpuResources()
        codes = faiss.GpuIndexFlat(resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, configuration)
        codes.reserveMemory(len(vectors))
        for at in range(0, len(vectors), _BLOCK_ROWS):
            codes.add(np.ascontiguousarray(vectors[at : at + _BLOCK_ROWS]))
    except RuntimeError as error:
        raise VidxError(
            f"the vectors do not go onto the GPU ({str(error).splitlines()[0]})", hint="search on the CPU"
        ) from error
    return GpuFlatIndex(codes, resources, index, vectors)


class GpuFlatIndex:
    """See `vidx.vectors.Index`. Exact, as `vidx.vectors.flat` is and for the same reason."""

    def __init__(self, codes: Any, resources: Any, on_cpu: Index, vectors: np.ndarray) -> None:
        self._codes, self._resources, self._on_cpu, self._vectors = codes, resources, on_cpu, vectors
        self._alone = Lock()
        self.settings = on_cpu.settings

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `vidx.vectors.Index.search`."""
        if allowed is not None or CANDIDATES * k > _MOST_CANDIDATES:
            return self._on_cpu.search(queries, k, allowed)
        return each(queries, min(k, len(self._vectors)), self._search_one)

    def save(self, path: Path) -> None:
        """Write what the index on the CPU writes."""
        self._on_cpu.save(path)

    def _search_one(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        n, wanted = len(self._vectors), CANDIDATES * k
        while wanted <= _MOST_CANDIDATES:
            with self._alone:
                [coarse], [rows] = self._codes.search(query[None], min(wanted, n))
            exact, best = best_of(self._vectors, query, k, rows)
            if wanted >= n or exact[-1] > coarse[-1] + ROUNDING:
                return exact, best
            wanted *= 2
        [scores], [rows] = self._on_cpu.search(query[None], k)
        return scores, rows
