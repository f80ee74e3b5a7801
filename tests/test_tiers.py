"""Every tier keeps the contract of `vidx.vectors.Index`: k rows or all there are, filters, saving, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.plugins import available, load
from vidx.vectors import Index, _selection
from vidx.vectors.ivf import IvfIndex, n_clusters

TIERS = available("vectors")


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def clustered(n: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, dim))
    return unit(centres[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, dim)))


def wide(index: Index) -> Index:
    """The index, looking everywhere: what an approximate one finds then is exact."""
    if isinstance(index, IvfIndex):
        return IvfIndex(index._codes, index._vectors, index._codes.nlist)
    return index


@pytest.fixture(scope="module", params=TIERS)
def built(request: pytest.FixtureRequest) -> tuple[str, Index, np.ndarray]:
    vectors = clustered(4000, 48, 1)
    return request.param, load("vectors", request.param).build(vectors), vectors


Built = tuple[str, Index, np.ndarray]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.sampled_from([0.0, 0.0005, 0.01, 0.3, 0.9, 1.0]), st.integers(0), st.booleans())
def test_a_filter_leaves_the_best_of_what_is_left(
    built: Built, k: int, share: float, seed: int, is_scanned: bool
) -> None:
    """Whether the rows are scored one by one or FAISS is told which to leave out."""
    _, index, vectors = built
    rng = np.random.default_rng(seed)
    allowed, queries = rng.random(len(vectors)) < share, unit(rng.standard_normal((2, 48)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_selection, "_SMALL_ROWS", 10**6 if is_scanned else -1)
        patch.setattr(_selection, "_SMALL_SHARE", -1)
        scores, rows = wide(index).search(queries, k, allowed)
    assert scores.shape == rows.shape == (2, min(k, allowed.sum()))
    assert allowed[rows].all()
    expected = -np.sort(-(queries @ vectors[allowed].T), axis=1)[:, :k]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 10, 300, 5000])
def test_there_are_as_many_rows_as_asked_for_or_as_there_are(built: Built, k: int) -> None:
    """Also where the clusters that are scanned first hold fewer."""
    _, index, vectors = built
    allowed = np.zeros(len(vectors), bool)
    allowed[::3] = True
    for mask, n in ((None, len(vectors)), (allowed, int(allowed.sum()))):
        scores, rows = index.search(vectors[:3], k, mask)
        assert rows.shape == (3, min(k, n))
        assert all(len(set(row)) == len(row) for row in rows.tolist())
        assert (np.diff(scores, axis=1) <= 0).all()


def test_scores_are_those_of_the_vectors_and_not_of_the_codes(built: Built) -> None:
    _, index, vectors = built
    scores, rows = index.search(vectors[:20], 10)
    np.testing.assert_array_equal(scores, np.einsum("qd,qkd->qk", vectors[:20], vectors[rows]))


def test_what_is_saved_answers_the_same_from_its_file(built: Built, tmp_path: Path) -> None:
    tier, index, vectors = built
    index.save(tmp_path / "index")
    opened = load("vectors", tier).opened(tmp_path / "index", vectors, index.settings)
    queries = unit(np.random.default_rng(5).standard_normal((10, 48)))
    for found, expected in zip(opened.search(queries, 20), index.search(queries, 20), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_reading_ahead_looks_at_any_file_and_changes_none(tmp_path: Path) -> None:
    for n_bytes in (0, 1, 63, 5 * 2**20):
        path = tmp_path / str(n_bytes)
        path.write_bytes(bytes(n_bytes))
        for _ in range(2):
            _selection.read_ahead(path)
        assert path.read_bytes() == bytes(n_bytes)


def test_several_threads_get_the_answers_of_one(built: Built) -> None:
    _, index, vectors = built
    allowed = np.arange(len(vectors)) % 2 == 0
    queries = unit(np.random.default_rng(6).standard_normal((60, 1, 48)))

    def rows(query: np.ndarray) -> list[list[int]]:
        return [index.search(query, 10, mask)[1][0].tolist() for mask in (None, allowed)]

    alone = [rows(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(rows, queries)) == alone


def test_a_wider_scan_finds_more_and_all_clusters_find_all() -> None:
    vectors = clustered(6000, 48, 2)
    index = load("vectors", "ivf").build(vectors)
    queries = unit(np.random.default_rng(7).standard_normal((40, 48)))
    exact = -np.sort(-(queries @ vectors.T), axis=1)[:, :10]

    def recall(tried: Index) -> float:
        return float((tried.search(queries, 10)[0] >= exact[:, -1:] - 1e-6).mean())

    narrow, *_, widest = (recall(tried) for tried in [IvfIndex(index._codes, vectors, 1), *index.widths(), wide(index)])
    assert narrow < 0.9
    assert widest == 1.0
    assert [tried.settings["n_probed"] for tried in index.widths()] == [16, 24, 32, 48, 64]


@pytest.mark.parametrize(
    ("n", "clusters"),
    [
        *[(1, 1), (9, 9), (16, 16), (10_000, 512), (1_000_000, 4096)],
        *[(10_000_000, 32_768), (36_000_000, 65_536), (1_000_000_000, 65_536)],
    ],
)
def test_clusters_grow_with_the_square_root_and_faster_beyond_a_million(n: int, clusters: int) -> None:
    assert n_clusters(n) == clusters
