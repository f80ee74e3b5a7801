"""Exact search equals a full scan in single precision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.vectors import flat


def brute_force(vectors: np.ndarray, clip_ids: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """The definition: score everything, sort by score, ties by number."""
    scores = queries @ vectors.T
    order = np.stack([np.lexsort((clip_ids, -row))[:k] for row in scores])
    return np.take_along_axis(scores, order, axis=1), clip_ids[order]


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 80), st.integers(1, 40), st.integers(1, 100), st.integers(1, 80), st.integers(1, 3), st.integers(0)
)
def test_equals_brute_force_with_ties_by_row(
    n: int, dim: int, k: int, n_distinct: int, n_queries: int, seed: int
) -> None:
    """Entries are small whole numbers: half and single precision are exact, so equal scores are really equal."""
    rng = np.random.default_rng(seed)
    distinct = rng.integers(-2, 3, (n_distinct, dim)).astype(np.float32)
    vectors = distinct[rng.integers(0, n_distinct, n)]
    queries = rng.integers(-2, 3, (n_queries, dim)).astype(np.float32)
    scores, ids = flat.build(vectors).search(queries, k)
    expected_scores, expected_ids = brute_force(vectors, np.arange(n), queries, k)
    assert np.array_equal(scores, expected_scores)
    assert np.array_equal(ids, expected_ids)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 300), st.integers(2, 512), st.integers(1, 50), st.integers(0))
def test_random_unit_vectors_are_ranked_as_by_brute_force(n: int, dim: int, k: int, seed: int) -> None:
    """Summing in another order moves a score by about 1e-7, so scores are compared and not positions."""
    rng = np.random.default_rng(seed)
    vectors, queries = unit(rng.standard_normal((n, dim))), unit(rng.standard_normal((2, dim)))
    scores, ids = flat.build(vectors).search(queries, k)
    assert scores.shape == ids.shape == (2, min(n, k))
    np.testing.assert_allclose(scores, brute_force(vectors, np.arange(n), queries, k)[0], atol=1e-6)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, ids, axis=1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-3])
def test_scores_too_close_for_half_precision_are_still_ranked_right(k: int, spread: float) -> None:
    """A fixed camera gives hundreds of clips that differ less than half precision can tell."""
    rng = np.random.default_rng(7)
    scene = unit(rng.standard_normal(384))
    vectors = unit(scene + spread * rng.standard_normal((2000, 384)))
    queries = unit(rng.standard_normal((20, 384)))
    scores, _ = flat.build(vectors).search(queries, k)
    np.testing.assert_allclose(scores, brute_force(vectors, np.arange(2000), queries, k)[0], atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 10, 50, 60])
def test_of_many_equal_vectors_the_first_rows_come_first(k: int) -> None:
    vectors = np.tile(np.eye(4, dtype=np.float32)[:1], (50, 1))
    scores, ids = flat.build(vectors).search(vectors[:1], k)
    assert ids.tolist() == [list(range(50))[:k]]
    assert set(scores[0].tolist()) == {1.0}


def test_more_than_there_is_gives_all_there_is() -> None:
    vectors = np.eye(3, dtype=np.float32)
    scores, ids = flat.build(vectors).search(vectors[1:2], 1000)
    assert ids.tolist() == [[1, 0, 2]]
    assert scores.tolist() == [[1.0, 0.0, 0.0]]
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64


def test_an_empty_index_answers_with_nothing() -> None:
    index = flat.build(np.empty((0, 4), np.float32))
    scores, ids = index.search(np.eye(4, dtype=np.float32)[:2], 5)
    assert scores.shape == ids.shape == (2, 0)


def test_no_queries_are_answered_with_no_rows() -> None:
    scores, ids = flat.build(np.eye(4, dtype=np.float32)).search(np.empty((0, 4), np.float32), 2)
    assert scores.shape == ids.shape == (0, 2)


def test_several_threads_get_the_answers_of_one() -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((3000, 64)))
    queries = unit(rng.standard_normal((64, 1, 64)))
    index = flat.build(vectors)
    alone = [index.search(query, 10)[1].tolist() for query in queries]
    with ThreadPoolExecutor(8) as pool:
        together = [ids.tolist() for _, ids in pool.map(lambda query: index.search(query, 10), queries)]
    assert together == alone
