"""Approximate search: clusters of half-precision codes, of which only those nearest to the query are scanned.

Sivic and Zisserman 2003; Jegou et al. 2011 ("Product quantization for nearest neighbor search", section 4.1). What the
scan finds is scored again from the vectors. Texts are far from all clips (best cosines of 0.2 to 0.35), so more
clusters have to be scanned for them than for clips; how many is measured on such queries when an index is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vidx.vectors._exact import best_of
from vidx.vectors._selection import Selection, each, read_mapped

NEEDS_GATE = True

_CANDIDATES = 4  # times k; half precision swaps only close scores
_TRAINED_ON, _ROUNDS = 32, 4  # vectors a cluster, and how often centres are moved
_VECTORS_A_CLUSTER = 256
_LEAST_CLUSTERS, _MOST_CLUSTERS = 16, 65_536
_BLOCK_ROWS = 65_536
_ROTATED_DIM, _REFINED = 128, 64  # how centres are found while building


def build(vectors: np.ndarray, seed: int = 0) -> IvfIndex:
    """Index float32 (N, dim) unit vectors, N at least 1; `seed` decides which of them the clusters are learnt from."""
    n, dim = vectors.shape
    clusters = n_clusters(n)
    codes = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, clusters, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    codes.cp.seed, codes.cp.niter, codes.cp.min_points_per_centroid = seed + 1, _ROUNDS, 1
    codes.cp.max_points_per_centroid = _TRAINED_ON
    codes.cp.spherical = False  # scaled centres rank loose clusters too high, and fill them unevenly
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[: clusters * _TRAINED_ON])
    codes.clustering_index = nearest = _quick_nearest(dim, seed)
    codes.train(np.ascontiguousarray(vectors[chosen]))
    nearest.reset()
    nearest.add(codes.quantizer.reconstruct_n(0, clusters))
    for at in range(0, n, _BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[at : at + _BLOCK_ROWS])
        _, into = nearest.search(block, 1)
        codes.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(into))
    return IvfIndex(codes, vectors, n_probed=min(16, clusters))


def _quick_nearest(dim: int, seed: int) -> faiss.Index:
    """An index that finds the nearest of thousands of centres in half the time: a few by fewer numbers, then exactly.

    A random rotation keeps scores nearly (Johnson and Lindenstrauss 1984).
    """
    if dim < 2 * _ROTATED_DIM:
        return faiss.IndexFlatIP(dim)
    rotation = faiss.RandomRotationMatrix(dim, _ROTATED_DIM)
    rotation.init(seed + 1)
    nearest = faiss.IndexRefineFlat(faiss.IndexPreTransform(rotation, faiss.IndexFlatIP(rotation.d_out)))
    nearest.k_factor = _REFINED
    return nearest


def n_clusters(n: int) -> int:
    """A power of two near four times the square root of how many vectors there are, and for large archives one for 256.

    An archive has the more scenes the larger it is, and a scene that shares its centre with others is not found.
    """
    wanted = 2 ** round(np.log2(max(4 * np.sqrt(n), n / _VECTORS_A_CLUSTER, 1)))
    return int(min(np.clip(wanted, _LEAST_CLUSTERS, _MOST_CLUSTERS), max(n, 1)))


def opened(path: Path, vectors: np.ndarray, settings: dict[str, Any]) -> IvfIndex:
    """The index that was saved at `path`, its lists mapped into memory, over the vectors it was built of."""
    return IvfIndex(read_mapped(path), vectors, **settings)


class IvfIndex:
    """See `vidx.vectors.Index`. The vectors are not copied."""

    def __init__(self, codes: faiss.IndexIVF, vectors: np.ndarray, n_probed: int) -> None:
        self._codes, self._vectors, self._n_probed = codes, vectors, n_probed

    @property
    def settings(self) -> dict[str, Any]:
        return {"n_probed": self._n_probed}

    def widths(self) -> list[IvfIndex]:
        """The same index scanning 16, 24, 32, 48 ... clusters, up to a quarter: beyond, an exact scan is as quick."""
        steps = [n for power in range(4, 16) for n in (2**power, 3 * 2 ** (power - 1))]
        most = max(16, self._codes.nlist // 4)
        return [IvfIndex(self._codes, self._vectors, min(n, self._codes.nlist)) for n in steps if n <= most]

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `vidx.vectors.Index.search`; the nearest rows are found with the recall that the index proved."""
        selection = Selection(len(self._vectors), allowed)
        return each(queries, min(k, selection.n), lambda query, k: self._search_one(query, k, selection))

    def save(self, path: Path) -> None:
        """Write clusters and codes, half as large as the vectors."""
        faiss.write_index(self._codes, str(path))

    def _search_one(self, query: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        if selection.is_small:
            return best_of(self._vectors, query, k, selection.rows)
        n_probed = self._n_probed
        while True:  # until the scanned clusters hold as many as are asked for
            parameters = faiss.SearchParametersIVF(nprobe=n_probed, sel=selection.selector)
            _, [rows] = self._codes.search(query[None], min(_CANDIDATES * k, selection.n), params=parameters)
            rows = rows[rows >= 0]
            if len(rows) >= k or n_probed >= self._codes.nlist:
                return best_of(self._vectors, query, k, rows)
            n_probed = min(4 * n_probed, self._codes.nlist)
