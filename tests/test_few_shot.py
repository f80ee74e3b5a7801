"""Rules fitted to a few examples: what they get right, what they say of themselves, and what they refuse."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.errors import InputError
from vidx.learn.few_shot import Fitted, fit_logistic, fit_prototype
from vidx.tests.made_store import unit

pytest.importorskip("sklearn", reason="teaching takes the extra `tags`")
DIM = 32
FITS = {"logistic": fit_logistic, "prototype": fit_prototype}


def cluster(rng: np.random.Generator, axis: int, n: int, noise: float) -> np.ndarray:
    """Unit vectors around an axis: at `noise` 0.1 all near it, at 1 the axis is one of 32 directions of equal size."""
    return unit(np.eye(DIM)[axis] + noise * rng.standard_normal((n, DIM)))


def mixed(rng: np.random.Generator, n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """n positives, from two clusters, and 10 n negatives from ten, of which one is close to a positive one."""
    positives = np.concatenate([cluster(rng, 0, n - n // 3, noise), cluster(rng, 1, n // 3, noise)])
    negatives = [cluster(rng, axis, n, noise) for axis in range(3, 12)]
    near = unit(0.8 * np.eye(DIM)[0] + np.eye(DIM)[2] + noise * rng.standard_normal((n, DIM)))
    return positives, np.concatenate([*negatives, near])


def f1(fitted: Fitted, positives: np.ndarray, negatives: np.ndarray) -> float:
    right = int((fitted.probabilities(positives) >= fitted.threshold).sum())
    wrong = int((fitted.probabilities(negatives) >= fitted.threshold).sum())
    return 2 * right / (right + wrong + len(positives))


def average_precision(fitted: Fitted, positives: np.ndarray, negatives: np.ndarray) -> float:
    """For each positive, the share of positives among what is at least as probable; the mean of that."""
    yes, no = fitted.probabilities(positives), fitted.probabilities(negatives)
    return float(np.mean([(yes >= p).sum() / ((yes >= p).sum() + (no >= p).sum()) for p in yes]))


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_clusters_apart_are_told_apart_as_by_the_nearer_mean(method: str, n: int) -> None:
    rng = np.random.default_rng(n)
    positives, negatives = cluster(rng, 0, n, 0.1), cluster(rng, 1, 3 * n, 0.1)
    fitted = FITS[method](positives, negatives)
    fresh = np.concatenate([cluster(rng, 0, 200, 0.1), cluster(rng, 1, 200, 0.1)])
    nearer = [np.linalg.norm(v - positives.mean(axis=0)) < np.linalg.norm(v - negatives.mean(axis=0)) for v in fresh]
    assert nearer == [True] * 200 + [False] * 200
    assert (fitted.probabilities(fresh) >= fitted.threshold).tolist() == nearer
    assert fitted.method == method


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
def test_a_prototype_rule_is_the_softmax_over_squared_distances(seed: int, n_positive: int, n_negative: int) -> None:
    rng = np.random.default_rng(seed)
    positives, negatives = (unit(rng.standard_normal((n, 6))) for n in (n_positive, n_negative))
    fitted = fit_prototype(positives, negatives)
    for vector in unit(rng.standard_normal((5, 6))):
        near, far = (np.exp(-(np.linalg.norm(vector - kind.mean(axis=0)) ** 2)) for kind in (positives, negatives))
        assert fitted.probabilities(vector[None])[0] == pytest.approx(near / (near + far), abs=1e-5)


def test_a_logistic_rule_is_what_scikit_learn_predicts() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    positives, negatives = mixed(rng, 3, 0.3)  # too few to choose C by
    fitted = fit_logistic(positives, negatives)
    model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000)
    model.fit(np.concatenate([positives, negatives]).astype(np.float64), [1] * 3 + [0] * 30)
    fresh = unit(rng.standard_normal((50, DIM)))
    assert fitted.probabilities(fresh) == pytest.approx(model.predict_proba(fresh)[:, 1], abs=1e-4)
    assert fitted.probabilities(fresh).dtype == fitted.weights.dtype == np.float32


@pytest.mark.slow
def test_more_examples_of_noisy_clusters_teach_more_and_logistic_is_the_better_of_the_two() -> None:
    found: dict[str, list[float]] = {method: [] for method in FITS}
    for n in (3, 12, 50):
        for method, fit in FITS.items():
            scores = []
            for seed in range(3):
                rng = np.random.default_rng([seed, n])
                fitted = fit(*mixed(rng, n, 0.25))
                scores.append(average_precision(fitted, *mixed(np.random.default_rng(seed), 100, 0.25)))
            found[method].append(float(np.mean(scores)))
    few, some, many = found["logistic"]
    assert few < some < many
    assert many > found["prototype"][-1] + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("method", FITS)
def test_what_is_measured_out_of_fold_holds_for_fresh_examples(method: str) -> None:
    told, fresh = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        fitted = FITS[method](*mixed(rng, 20, 0.2))
        measured = fitted.out_of_fold
        told.append(measured.f1)
        fresh.append(f1(fitted, *mixed(rng, 300, 0.2)))
        assert measured.f1 == pytest.approx(
            2 * measured.precision * measured.recall / (measured.precision + measured.recall)
        )
    assert np.mean(told) == pytest.approx(np.mean(fresh), abs=0.07)
    assert np.mean(fresh) > 0.55


@pytest.mark.parametrize("method", FITS)
def test_the_measured_threshold_helps_a_prototype_rule_and_costs_a_logistic_one_little(method: str) -> None:
    gained = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        fitted, fresh = FITS[method](*mixed(rng, 15, 0.2)), mixed(rng, 300, 0.2)
        even = Fitted(fitted.weights, fitted.bias, 0.5, method)
        gained.append(f1(fitted, *fresh) - f1(even, *fresh))
    assert np.mean(gained) > {"logistic": -0.02, "prototype": 0.02}[method]


@pytest.mark.slow
@pytest.mark.parametrize("method", FITS)
def test_clips_of_one_video_are_never_learnt_from_and_measured_at_once(method: str) -> None:
    """Labels drawn at random for videos of five equal clips: who sees a clip knows its copies, and nothing else."""
    told_grouped, told_plain = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        videos = np.repeat(unit(rng.standard_normal((60, 128))), 5, axis=0)
        groups = np.repeat(np.arange(60), 5)
        positives, negatives = videos[:50], videos[50:]
        told_grouped.append(FITS[method](positives, negatives, groups=groups).out_of_fold.f1)
        told_plain.append(FITS[method](positives, negatives).out_of_fold.f1)
    assert np.mean(told_plain) > 0.9
    assert np.mean(told_grouped) < 0.45


@pytest.mark.parametrize("method", FITS)
def test_the_same_examples_give_the_same_rule(method: str) -> None:
    examples = mixed(np.random.default_rng(1), 8, 0.3)
    first, second, other = (FITS[method](*examples, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.weights, second.weights)
    assert (first.bias, first.threshold, first.out_of_fold) == (second.bias, second.threshold, second.out_of_fold)
    assert other.out_of_fold != first.out_of_fold  # other folds


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize(
    ("positive_groups", "negative_groups"),
    [
        ([0, 0, 0, 0], [5, 6, 7, 8, 9]),  # one video of positives
        ([0, 1, 2, 3], [5, 6, 7, 8, 9]),
        ([0, 1, 2, 3, 4, 5], [6, 6, 6, 6, 7]),
        ([0] * 9 + [1] * 9 + [2] * 9 + [3] * 9 + [4, 5, 6, 7, 8], [4, 5, 6, 7, 8]),  # all negatives in one fold
    ],
)
def test_too_few_videos_to_measure_give_an_even_threshold(
    method: str, positive_groups: list[int], negative_groups: list[int]
) -> None:
    rng = np.random.default_rng(0)
    positives, negatives = cluster(rng, 0, len(positive_groups), 0.3), cluster(rng, 1, len(negative_groups), 0.3)
    fitted = FITS[method](positives, negatives, groups=np.array([*positive_groups, *negative_groups]))
    assert (fitted.threshold, fitted.out_of_fold) == (0.5, None)


@pytest.mark.parametrize("method", FITS)
def test_examples_that_teach_nothing_are_refused(method: str) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((8, DIM)))
    for positives, negatives in ((vectors, vectors[:0]), (vectors[:0], vectors)):
        with pytest.raises(InputError, match="positive and negative examples"):
            FITS[method](positives, negatives)
    with pytest.raises(InputError, match="look the same"):
        FITS[method](vectors, vectors)


def test_without_scikit_learn_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    vectors = unit(np.random.default_rng(0).standard_normal((8, DIM)))
    with pytest.raises(InputError, match="teaching needs scikit-learn") as raised:
        fit_logistic(vectors[:4], vectors[4:])
    assert raised.value.hint == "pip install 'vidx[tags]'"
    fit_prototype(vectors[:4], vectors[4:])
