"""The exact tier on a GPU: on a real one where there is one, its guards everywhere."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
import pytest

from vidx.errors import VidxError
from vidx.vectors import flat
from vidx.vectors._gpu import GpuFlatIndex, on_gpu

HAS_GPU = hasattr(faiss, "GpuIndexFlat") and faiss.get_num_gpus() > 0


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


VECTORS = unit(np.random.default_rng(0).standard_normal((3000, 32)))
QUERIES = unit(np.random.default_rng(1).standard_normal((40, 32)))


class OneAtATime:
    """Half-precision codes, as on a GPU: of several threads at once it makes nonsense, and it knows no selector."""

    def __init__(self) -> None:
        self._codes = flat.build(VECTORS)._codes
        self._busy = threading.Lock()
        self.searches = 0

    def search(self, queries: np.ndarray, k: int, **others: Any) -> tuple[np.ndarray, np.ndarray]:
        assert not others, "a classic index on a GPU would not look at this"
        assert k <= 2048, "more than a classic index on a GPU gives"
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            self.searches += 1
            time.sleep(0.001)
            found: tuple[np.ndarray, np.ndarray] = self._codes.search(queries, k)
            return found
        finally:
            self._busy.release()


@pytest.fixture(params=["guards", pytest.param("gpu", marks=pytest.mark.skipif(not HAS_GPU, reason="no CUDA here"))])
def index(request: pytest.FixtureRequest) -> GpuFlatIndex:
    on_cpu = flat.build(VECTORS)
    return on_gpu(on_cpu, VECTORS) if request.param == "gpu" else GpuFlatIndex(OneAtATime(), None, on_cpu, VECTORS)


@pytest.mark.parametrize("k", [1, 10, 600, 5000])
def test_it_finds_what_the_exact_tier_on_the_cpu_finds(index: GpuFlatIndex, k: int) -> None:
    for found, expected in zip(index.search(QUERIES, k), flat.build(VECTORS).search(QUERIES, k), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_filter_is_kept(index: GpuFlatIndex) -> None:
    allowed = np.arange(len(VECTORS)) % 3 == 0
    for found, expected in zip(
        index.search(QUERIES, 10, allowed), flat.build(VECTORS).search(QUERIES, 10, allowed), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_threads_take_turns(index: GpuFlatIndex) -> None:
    alone = [index.search(query[None], 10)[1].tolist() for query in QUERIES]
    with ThreadPoolExecutor(8) as pool:
        assert [rows.tolist() for _, rows in pool.map(lambda query: index.search(query[None], 10), QUERIES)] == alone


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_without_a_gpu_that_is_said() -> None:
    with pytest.raises(VidxError, match="no GPU here"):
        on_gpu(flat.build(VECTORS), VECTORS)
