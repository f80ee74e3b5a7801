"""Figures of merit: of classification, of retrieval and of detection in time.

Every function raises ValueError for shapes that don't fit, for NaN, and where there is nothing to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CHUNK = 1_000_000  # items drawn at a time: 8 MB of indices, and as much again of values


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """0-based rank of the right class, int64 (n,), of scores (n, classes) and labels int (n,).

    Equal scores rank by class index, as in a stable descending sort.
    """
    scores, labels = _numbers(scores, 2), _classes(labels)
    _require(len(scores) == len(labels), f"{len(scores)} rows of scores and {len(labels)} labels")
    _require(labels.max() < scores.shape[1], f"label {labels.max()} of {scores.shape[1]} classes")
    right = np.take_along_axis(scores, labels[:, None], axis=1)
    first = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > right) | ((scores == right) & first)).sum(axis=1, dtype=np.int64)


def top_k(ranks: np.ndarray, k: int) -> float:
    """Share of 0-based ranks int (n,) below k."""
    ranks = _classes(ranks)
    _require(k >= 1, f"k is {k}")
    return float((ranks < k).mean())


def mean_class_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean, over the classes that occur in labels int (n,), of the share of their items predicted right."""
    predictions, labels = _classes(predictions), _classes(labels)
    _require(len(predictions) == len(labels), f"{len(predictions)} predictions and {len(labels)} labels")
    _, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return float((np.bincount(number, weights=predictions == labels) / counts).mean())


def confusion(predictions: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """How many items of each class (rows) were predicted as each (columns), int64 (n_classes, n_classes)."""
    predictions, labels = _classes(predictions), _classes(labels)
    _require(len(predictions) == len(labels), f"{len(predictions)} predictions and {len(labels)} labels")
    largest = max(predictions.max(), labels.max())
    _require(largest < n_classes, f"class {largest} of {n_classes} classes")
    counts = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return counts.astype(np.int64).reshape(n_classes, n_classes)


def bootstrap_interval(
    correct: np.ndarray, *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of values (n,), bool or float, over items drawn with replacement.

    Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    values = _numbers(correct, 1).astype(np.float64)
    _require(resamples >= 1 and 0 < level < 1, f"{resamples} resamples, level {level}")
    rng, means = np.random.default_rng(seed), np.empty(resamples)
    rows = max(1, _CHUNK // len(values))
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        chunk[:] = values[rng.integers(len(values), size=(len(chunk), len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Retrieval:
    """Recall at 1, 5 and 10 as shares of n queries, 1-based ranks of the best relevant candidate, and mean AP."""

    r1: float
    r5: float
    r10: float
    median_rank: float
    mean_rank: float
    mean_ap: float
    n: int


def retrieval(similarities: np.ndarray, relevant: np.ndarray) -> Retrieval:
    """Of similarities (queries, candidates) and relevant bool of that shape, at least one in each row.

    Equal similarities rank by index. The average precision of a query is over all that is relevant to it, not
    interpolated (Manning et al. 2008, Introduction to Information Retrieval, section 8.4).
    """
    similarities, relevant = _numbers(similarities, 2), np.asarray(relevant)
    _require(relevant.dtype == bool, f"relevant is {relevant.dtype}, not bool")
    _require(similarities.shape == relevant.shape, f"shapes {similarities.shape} and {relevant.shape}")
    _require(bool(relevant.any(axis=1).all()), "a query has no relevant candidate")
    best, precisions = np.empty(len(relevant), np.int64), np.empty(len(relevant))
    for query, (row, wanted) in enumerate(zip(similarities, relevant, strict=True)):
        order = np.argsort(-row.astype(np.float64), kind="stable")
        found = np.flatnonzero(wanted[order]) + 1
        best[query], precisions[query] = found[0], (np.arange(1, len(found) + 1) / found).mean()
    r1, r5, r10 = (top_k(best - 1, k) for k in (1, 5, 10))
    return Retrieval(
        r1, r5, r10, float(np.median(best)), float(best.mean()), float(precisions.mean()), len(similarities)
    )


def average_precision(scores: np.ndarray, is_right: np.ndarray, n_truths: int) -> float:
    """Area under the precision envelope of detections: scores (n,), is_right bool (n,); 0 where there are none.

    As interpolated_prec_rec of ActivityNet's Evaluation/utils.py, which is VOC 2011's. Equal scores keep their order.
    """
    scores, is_right = np.asarray(scores), np.asarray(is_right)
    _require(scores.ndim == 1 and scores.shape == is_right.shape, f"shapes {scores.shape} and {is_right.shape}")
    _require(is_right.dtype == bool or len(is_right) == 0, f"is_right is {is_right.dtype}, not bool")
    _require(n_truths >= 1, "there is no truth to find")
    n_right = int(is_right.sum())
    _require(n_right <= n_truths, f"{n_right} detections are right, of {n_truths} truths")
    if len(scores) == 0:
        return 0.0
    order = np.argsort(-_numbers(scores, 1).astype(np.float64), kind="stable")
    right = is_right[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / n_truths)  # each right one raises recall by 1 / n_truths


@dataclass(frozen=True)
class Span:
    """A stretch of a video, true or predicted."""

    video: str
    start_s: float
    end_s: float
    score: float = 0.0


def detection_ap(predicted: Sequence[Span], truths: Sequence[Span], iou: float) -> float:
    """Average precision of one label: a prediction is right that overlaps a truth not yet taken by at least iou.

    As compute_average_precision_detection of ActivityNet's Evaluation/eval_detection.py: by falling score each takes
    the truth with the largest overlap. Of equal scores and of equal overlaps the earlier counts first, which the
    original leaves open. 0 where nothing is predicted.
    """
    _require(0 < iou <= 1, f"iou is {iou}")
    for span in (*predicted, *truths):
        _require(-np.inf < span.start_s <= span.end_s < np.inf, f"{span} is no stretch of time")
    by_video: dict[str, list[Span]] = {}
    for truth in truths:
        by_video.setdefault(truth.video, []).append(truth)
    scores = np.array([span.score for span in predicted], np.float64)
    is_right = np.zeros(len(predicted), bool)
    for number in np.argsort(-scores, kind="stable"):
        span = predicted[number]
        left = by_video.get(span.video, [])
        overlaps = [overlap(span, truth) for truth in left]
        if overlaps and max(overlaps) >= iou:
            del left[overlaps.index(max(overlaps))]
            is_right[number] = True
    return average_precision(scores, is_right, len(truths))


def overlap(one: Span, other: Span) -> float:
    """Intersection over union; 0 for spans of different videos, and where the union has no length."""
    if one.video != other.video:
        return 0.0
    common_s = max(0.0, min(one.end_s, other.end_s) - max(one.start_s, other.start_s))
    union_s = (other.end_s - other.start_s) + (one.end_s - one.start_s) - common_s
    return common_s / union_s if union_s > 0 else 0.0


def mean_and_deviation(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation of values (n,), as of the splits of a data set."""
    numbers = _numbers(np.asarray(values), 1).astype(np.float64)
    return float(numbers.mean()), float(numbers.std())


def _numbers(values: np.ndarray, n_axes: int) -> np.ndarray:
    values = np.asarray(values)
    _require(values.ndim == n_axes and values.size > 0, f"shape {values.shape}, expected {n_axes} axes that hold some")
    _require(values.dtype.kind in "biuf", f"{values.dtype} is no type of numbers")
    _require(not np.isnan(values).any(), "a value is not a number")
    return values


def _classes(values: np.ndarray) -> np.ndarray:
    """Indices from 0 on, int64 (n,)."""
    values = np.asarray(values)
    _require(values.ndim == 1 and len(values) > 0, f"shape {values.shape}, expected (n,) with n from 1")
    _require(values.dtype.kind in "iu" and int(values.min()) >= 0, "an index is no whole number from 0 on")
    return values.astype(np.int64)


def _require(holds: bool | np.bool_, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
