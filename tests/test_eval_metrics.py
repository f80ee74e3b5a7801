"""Figures of merit, each beside a plain loop written anew from its definition."""

from __future__ import annotations

import math
import statistics
import tracemalloc
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.learn.metrics import (
    Span,
    average_precision,
    bootstrap_interval,
    confusion,
    detection_ap,
    mean_and_deviation,
    mean_class_accuracy,
    ranks,
    retrieval,
    top_k,
)

NAN = float("nan")
few = st.integers(0, 3)  # so that many are equal


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy = few) -> np.ndarray:
    """A table of 1 to 6 rows and 1 to 12 columns."""
    n_rows, n_columns = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    return np.array(
        draw(st.lists(st.lists(values, min_size=n_columns, max_size=n_columns), min_size=n_rows, max_size=n_rows))
    )


@given(tables(), st.data())
def test_a_rank_counts_what_a_stable_sort_puts_before_the_right_class(scores: np.ndarray, data: st.DataObject) -> None:
    n, n_classes = scores.shape
    labels = data.draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n))
    found = ranks(scores.astype(np.float32) / 3, np.array(labels, np.int32))
    expected = [
        sorted(range(n_classes), key=lambda c: -row[c]).index(label) for row, label in zip(scores, labels, strict=True)
    ]
    assert found.tolist() == expected
    assert (found.dtype, found.shape) == (np.int64, (n,))
    for k in (1, 5):
        assert top_k(found, k) == pytest.approx(sum(rank < k for rank in expected) / n)


pairs = st.lists(st.tuples(few, few), min_size=1, max_size=30)


@given(pairs)
def test_mean_class_accuracy_is_the_mean_over_the_classes_that_occur(pairs: list[tuple[int, int]]) -> None:
    shares = []
    for label in {label for _, label in pairs}:
        given = [prediction for prediction, other in pairs if other == label]
        shares.append(Fraction(given.count(label), len(given)))
    found = mean_class_accuracy(*map(np.array, zip(*pairs, strict=True)))
    assert found == pytest.approx(float(statistics.mean(shares)))


@given(pairs)
def test_confusion_counts_predictions_by_row_of_the_truth(pairs: list[tuple[int, int]]) -> None:
    expected = np.zeros((5, 5), np.int64)
    for prediction, label in pairs:
        expected[label, prediction] += 1
    found = confusion(*map(np.array, zip(*pairs, strict=True)), 5)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def _resampled(values: np.ndarray, seed: int, resamples: int, level: float) -> list[float]:
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    return [float(np.quantile(means, (1 + sign * level) / 2)) for sign in (-1, 1)]


@pytest.mark.parametrize(("n", "resamples"), [(1, 10), (7, 500), (30_000, 80)])
def test_the_bootstrap_draws_items_with_replacement(n: int, resamples: int) -> None:
    correct = np.random.default_rng(3).random(n) < 0.7
    found = bootstrap_interval(correct, seed=5, resamples=resamples, level=0.9)
    assert found == pytest.approx(_resampled(correct, 5, resamples, 0.9), abs=1e-12)
    assert found == bootstrap_interval(correct, seed=5, resamples=resamples, level=0.9)


def test_the_bootstrap_of_many_items_is_near_the_normal_interval() -> None:
    correct = np.arange(2000) % 4 > 0
    spread = 1.96 * math.sqrt(0.75 * 0.25 / 2000)
    assert bootstrap_interval(correct) == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.003)
    assert bootstrap_interval(correct, seed=1) != bootstrap_interval(correct)
    assert bootstrap_interval(np.ones(50, bool)) == (1, 1)


def test_the_bootstrap_holds_few_of_its_resamples_at_a_time() -> None:
    correct = np.ones(20_000, bool)
    tracemalloc.start()
    try:
        bootstrap_interval(correct, resamples=300)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300 * 20_000 * 8 / 2  # half of what the indices alone would take


@given(tables(), st.data())
def test_retrieval_is_by_the_best_relevant_candidate(similarities: np.ndarray, data: st.DataObject) -> None:
    n, n_candidates = similarities.shape
    rows = st.lists(st.booleans(), min_size=n_candidates, max_size=n_candidates).filter(any)
    relevant = np.array(data.draw(st.lists(rows, min_size=n, max_size=n)))
    best, precisions = [], []
    for row, wanted in zip(similarities, relevant, strict=True):
        order = sorted(range(n_candidates), key=lambda c: (-row[c], c))
        places = [place for place, candidate in enumerate(order, 1) if wanted[candidate]]
        best.append(min(places))
        precisions.append(statistics.mean(sum(p <= place for p in places) / place for place in places))
    found = retrieval(similarities.astype(np.float32), relevant)
    assert [found.r1, found.r5, found.r10] == pytest.approx([sum(b <= k for b in best) / n for k in (1, 5, 10)])
    assert (found.median_rank, found.mean_rank) == pytest.approx((statistics.median(best), statistics.mean(best)))
    assert (found.mean_ap, found.n) == (pytest.approx(statistics.mean(precisions)), n)


def _area_under_envelope(right: list[bool], n_truths: int) -> float:
    """Of detections by falling score: at each recall reached, the best precision at that recall or a higher one."""
    points = [(sum(right[:n]), sum(right[:n]) / n) for n in range(1, len(right) + 1)]
    best = [max((p for found, p in points if found >= level), default=0.0) for level in range(1, n_truths + 1)]
    return sum(best) / n_truths


@given(st.lists(st.tuples(few, st.booleans()), max_size=20), few)
def test_average_precision_is_the_area_under_the_precision_envelope(
    detections: list[tuple[int, bool]], missed: int
) -> None:
    n_truths = sum(right for _, right in detections) + missed or 1
    by_score = [right for _, right in sorted(detections, key=lambda detection: -detection[0])]
    scores, is_right = ([detection[n] for detection in detections] for n in (0, 1))
    found = average_precision(np.array(scores, np.float32), np.array(is_right, bool), n_truths)
    assert found == pytest.approx(_area_under_envelope(by_score, n_truths))


def test_average_precision_of_an_example_by_hand() -> None:
    # precision 1, 1/2, 1/3, 2/4, 3/5 of four truths; the envelope is 1 once, then 3/5 twice, the last is not found
    is_right = np.array([False, True, True, False, True])
    scores = np.array([0.8, 0.5, 0.9, 0.7, 0.6])
    assert average_precision(scores, is_right, 4) == pytest.approx((1 + 3 / 5 + 3 / 5) / 4)


spans = st.builds(
    lambda video, start_s, length_s, score: Span(video, start_s, start_s + length_s, score / 2),
    st.sampled_from("ab"),
    st.integers(0, 6),
    few,
    few,
)


def _overlap(one: Span, other: Span) -> float:
    both = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return both / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s)) if both > 0 else 0


@given(st.lists(spans, max_size=12), st.lists(spans, min_size=1, max_size=8), st.sampled_from([0.25, 0.5, 2 / 3, 1]))
def test_detections_take_the_truth_they_overlap_most(predicted: list[Span], truths: list[Span], iou: float) -> None:
    taken: set[int] = set()
    right = []
    for span in sorted(predicted, key=lambda span: -span.score):
        free = [n for n, truth in enumerate(truths) if truth.video == span.video and n not in taken]
        fitting = [n for n in free if _overlap(span, truths[n]) >= iou]
        right.append(bool(fitting))
        if fitting:
            taken.add(min(fitting, key=lambda n: (-_overlap(span, truths[n]), n)))
    expected = _area_under_envelope(right, len(truths))
    assert detection_ap(predicted, truths, iou) == pytest.approx(expected)


def test_detections_of_an_example_by_hand() -> None:
    truths = [Span("a", 0, 10), Span("a", 8, 20), Span("b", 0, 4)]
    first, second = Span("a", 0, 10, 0.9), Span("a", 1, 11, 0.8)  # the second comes too late for the first truth
    third, elsewhere = Span("a", 8, 14, 0.7), Span("c", 0, 4, 0.95)
    assert detection_ap([third, second, first], truths, 0.5) == pytest.approx((1 + 2 / 3) / 3)
    assert detection_ap([third, second, first], truths, 0.51) == pytest.approx(1 / 3)
    assert detection_ap([first, elsewhere], truths, 0.5) == pytest.approx(1 / 2 / 3)
    assert detection_ap([], truths, 0.5) == 0


@given(st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), min_size=1, max_size=10))
def test_the_deviation_is_that_of_the_population(values: list[float]) -> None:
    expected = statistics.fmean(values), statistics.pstdev(values)
    assert mean_and_deviation(values) == pytest.approx(expected, abs=1e-9)


NONE, ONE, TWO = np.zeros(0), np.zeros(1, int), np.zeros(2, int)
YES = np.ones((1, 2), bool)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ranks(np.zeros((0, 3)), TWO[:0]),
        lambda: ranks(np.zeros((2, 0)), TWO),
        lambda: ranks(np.zeros(2), TWO),
        lambda: ranks(np.zeros((2, 3)), ONE),
        lambda: ranks(np.zeros((1, 3)), ONE + 3),
        lambda: ranks(np.zeros((1, 3)), ONE - 1),
        lambda: ranks(np.array([[NAN, 1.0]]), ONE),
        lambda: top_k(TWO[:0], 1),
        lambda: top_k(TWO, 0),
        lambda: mean_class_accuracy(ONE, TWO),
        lambda: mean_class_accuracy(TWO[:0], TWO[:0]),
        lambda: mean_class_accuracy(ONE, ONE + 0.5),
        lambda: confusion(ONE, TWO, 3),
        lambda: confusion(TWO + 3, TWO, 3),
        lambda: confusion(TWO - 1, TWO, 3),
        lambda: bootstrap_interval(NONE),
        lambda: bootstrap_interval(np.array([0, NAN])),
        lambda: bootstrap_interval(TWO, level=1),
        lambda: bootstrap_interval(TWO, resamples=0),
        lambda: retrieval(np.zeros((1, 3)), YES),
        lambda: retrieval(np.zeros((1, 2)), ~YES),
        lambda: retrieval(np.zeros((1, 2)), YES.astype(int)),
        lambda: retrieval(np.full((1, 2), NAN), YES),
        lambda: retrieval(np.zeros((0, 2)), YES[:0]),
        lambda: average_precision(np.zeros(2), YES[0], 0),
        lambda: average_precision(np.zeros(2), YES[0], 1),
        lambda: average_precision(np.zeros(3), YES[0], 3),
        lambda: average_precision(np.zeros(2), np.array([1, 0]), 3),
        lambda: average_precision(np.array([NAN, 1]), YES[0], 3),
        lambda: detection_ap([], [], 0.5),
        lambda: detection_ap([], [Span("a", 0, 1)], 0),
        lambda: detection_ap([], [Span("a", 0, 1)], 1.5),
        lambda: detection_ap([Span("a", 2, 1)], [Span("a", 0, 1)], 0.5),
        lambda: detection_ap([Span("a", 0, 1, NAN)], [Span("a", 0, 1)], 0.5),
        lambda: detection_ap([], [Span("a", 0, NAN)], 0.5),
        lambda: mean_and_deviation([]),
        lambda: mean_and_deviation(np.zeros((2, 2))),
    ],
)
def test_what_can_not_be_measured_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()
