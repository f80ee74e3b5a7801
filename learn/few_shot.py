"""A label from a few examples: a linear rule over vectors that are there already.

What the constants were chosen by is in docs/explanation/teach.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidx.errors import InputError
from vidx.schema.heads import logistic

# C, the inverse of regularisation; the first where examples are too few to choose by, or none does better.
_STRENGTHS = (100.0, 10.0, 1000.0, 1.0)
_LEAST_FOR_STRENGTH = 10  # positive groups
_LEAST_FOR_THRESHOLD = 5
_FOLDS = 5


@dataclass(frozen=True)
class OutOfFold:
    """How well examples were told apart by rules and thresholds that had not seen them, nor any of their group."""

    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """A rule: `weights` float32 (dim,), `bias`, and the probability from which the label is given.

    `out_of_fold` is None where there were too few examples to measure; the threshold is then 0.5.
    """

    weights: np.ndarray
    bias: float
    threshold: float
    method: str
    out_of_fold: OutOfFold | None = None

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Of unit vectors float32 (n, dim): float32 (n,)."""
        return logistic(vectors, self.weights, self.bias)


_Rule = tuple[np.ndarray, float]  # weights float32 (dim,) and bias
_Fit = Callable[[np.ndarray, np.ndarray], _Rule]  # of vectors (n, dim) and truth bool (n,)


def fit_logistic(
    positives: np.ndarray, negatives: np.ndarray, *, seed: int = 0, groups: np.ndarray | None = None
) -> Fitted:
    """Logistic regression with balanced classes on unit vectors float32 (P, dim) and (N, dim).

    `groups` int (P + N,), positives first, says what belongs together, as the clips of one video do, and is never on
    both sides of a fold; None: nothing does. With 10 positive groups C is chosen by average precision out of fold, with
    5 the threshold by F1. Raises InputError without examples of both kinds, where they can't be told apart, or
    without scikit-learn.
    """
    vectors, truth, groups = _examples(positives, negatives, groups)
    folds = _folds(truth, groups, seed)
    strength, held_out = _STRENGTHS[0], None
    if folds is not None:
        strengths = _STRENGTHS if _n_groups(truth, groups) >= _LEAST_FOR_STRENGTH else _STRENGTHS[:1]
        tried = {c: _held_out(_logistic_fit(c), vectors, truth, folds) for c in strengths}
        strength = max(tried, key=lambda c: _average_precision(tried[c], truth))  # of equal ones the first
        held_out = tried[strength]
    return _fitted("logistic", _logistic_fit(strength)(vectors, truth), truth, folds, held_out)


def fit_prototype(
    positives: np.ndarray, negatives: np.ndarray, *, seed: int = 0, groups: np.ndarray | None = None
) -> Fitted:
    """The nearer of two class means (Snell et al. 2017, arXiv:1703.05175, section 2.4), as a linear rule.

    Arguments, threshold and errors as in `fit_logistic`.
    """
    vectors, truth, groups = _examples(positives, negatives, groups)
    folds = _folds(truth, groups, seed)
    held_out = _held_out(_prototype_rule, vectors, truth, folds) if folds is not None else None
    return _fitted("prototype", _prototype_rule(vectors, truth), truth, folds, held_out)


def _examples(
    positives: np.ndarray, negatives: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(positives) == 0 or len(negatives) == 0:
        raise InputError("a label needs positive and negative examples", hint="give at least one of each")
    vectors = np.concatenate([positives, negatives]).astype(np.float32, copy=False)
    truth = np.arange(len(vectors)) < len(positives)
    return vectors, truth, np.arange(len(vectors)) if groups is None else np.asarray(groups)


def _logistic_fit(strength: float) -> _Fit:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError("teaching needs scikit-learn", hint="pip install 'vidx[tags]'") from error

    def fit(vectors: np.ndarray, truth: np.ndarray) -> _Rule:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        model.fit(vectors.astype(np.float64), truth)
        return model.coef_[0].astype(np.float32), float(model.intercept_[0])

    return fit


def _prototype_rule(vectors: np.ndarray, truth: np.ndarray) -> _Rule:
    """The softmax over negative squared distances to the two means is a sigmoid of what is linear in the vector."""
    wanted, other = (vectors[chosen].mean(axis=0, dtype=np.float64) for chosen in (truth, ~truth))
    return (2 * (wanted - other)).astype(np.float32), float(other @ other - wanted @ wanted)


def _fitted(
    method: str, rule: _Rule, truth: np.ndarray, folds: np.ndarray | None, held_out: np.ndarray | None
) -> Fitted:
    weights, bias = rule
    if np.linalg.norm(weights) < 1e-6:
        raise InputError("the positive and the negative examples look the same", hint="give others")
    if folds is None or held_out is None:
        return Fitted(weights, bias, 0.5, method)
    given = np.zeros(len(truth), bool)
    for fold in np.unique(folds):
        test = folds == fold
        given[test] = held_out[test] >= _best_threshold(held_out[~test], truth[~test])
    right, n_given, n_true = int((given & truth).sum()), int(given.sum()), int(truth.sum())
    measured = OutOfFold(2 * right / (n_given + n_true), right / n_given if n_given else 0.0, right / n_true)
    return Fitted(weights, bias, _best_threshold(held_out, truth), method, measured)


def _n_groups(truth: np.ndarray, groups: np.ndarray) -> int:
    """How many groups hold a positive example."""
    return len(np.unique(groups[truth]))


def _folds(truth: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray | None:
    """The fold of each example, int64 (n,): groups whole, positives spread evenly, then all. None for too few."""
    n_positive = _n_groups(truth, groups)
    if n_positive < _LEAST_FOR_THRESHOLD or len(np.unique(groups[~truth])) < _FOLDS:
        return None
    _, number = np.unique(groups, return_inverse=True)
    sizes = np.stack([np.bincount(number, truth), np.bincount(number)], axis=1)  # positives, all
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.lexsort((-sizes[order, 1], -sizes[order, 0]))]
    fold_of, load = np.empty(len(sizes), np.int64), np.zeros((_FOLDS, 2))
    for group in order:
        kind = 0 if sizes[group, 0] else 1
        fold_of[group] = np.argmin(load[:, kind])
        load[fold_of[group]] += sizes[group]
    folds = fold_of[number]
    # A few large groups may hold all that one class has.
    learnable = all(truth[folds != fold].any() and not truth[folds != fold].all() for fold in range(_FOLDS))
    return folds if learnable else None


def _held_out(fit: _Fit, vectors: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """The probability of each example by the rule of the other folds, float32 (n,)."""
    probabilities = np.empty(len(truth), np.float32)
    for fold in np.unique(folds):
        test = folds == fold
        weights, bias = fit(vectors[~test], truth[~test])
        probabilities[test] = logistic(vectors[test], weights, bias)
    return probabilities


def _average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the positives of the share of positives among what is no less probable; equal ones count against."""
    order = np.lexsort((truth, -probabilities))
    right = np.cumsum(truth[order])
    return float((right / np.arange(1, len(order) + 1))[truth[order]].mean())


def _best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The middle of the gap below which F1 falls; of equal ones the highest."""
    order = np.argsort(-probabilities, kind="stable")
    falling, right = probabilities[order].astype(np.float64), np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + truth.sum())
    f1[:-1][falling[:-1] == falling[1:]] = 0  # no threshold parts equal probabilities
    best = int(np.argmax(f1))
    below = falling[best + 1] if best + 1 < len(falling) else 0.0
    return float((falling[best] + below) / 2)
