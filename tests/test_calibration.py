"""Calibrated probabilities hold on videos that calibration never saw, and so do the thresholds."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vidx.errors import InputError, StoreDamaged
from vidx.search._reliability import write_reliability
from vidx.search.calibration import METHODS, Calibration, expected_calibration_error, fit, top_label

# scikit-learn takes a while to import
BOTH = [pytest.param(method, marks=[pytest.mark.slow] if method == "isotonic" else []) for method in METHODS]


@dataclass
class Sample:
    """Raw probabilities, the truth, and the video of each clip."""

    raw: np.ndarray
    truth: np.ndarray
    groups: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.ones_like(self.truth)

    def fit(self, **options: Any) -> tuple[Calibration, np.ndarray]:
        if options.get("method") == "isotonic":
            pytest.importorskip("sklearn", reason="the extra `tags` is not installed")
        labels = [f"label {number}" for number in range(self.raw.shape[1])]
        return fit(self.raw, self.truth, self.known, self.groups, labels, **options)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def scored(
    seed: int, gain: float = 1.0, shift: float = 0.0, n: int = 4000, n_labels: int = 5, n_videos: int = 40
) -> Sample:
    """Labels that are there with probability q, where raw says sigmoid(gain * logit(q) + shift)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-1, 2, (n, n_labels))
    raw = sigmoid(gain * x + shift).astype(np.float32)
    return Sample(raw, rng.random(x.shape) < sigmoid(x), rng.permutation(np.arange(n) % n_videos))


class World:
    """Labels 10 to 100 of whose clips come in `n` clips of a few videos; scores of a video are off together."""

    def __init__(self, seed: int, n_labels: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.distance = self.rng.uniform(1.5, 4, n_labels)  # between clips with and without it, in deviations
        self.gain = self.rng.choice([0.5, 2]) * np.exp(self.rng.normal(0, 0.25, n_labels))
        self.shift = self.rng.uniform(-2, 2) + self.rng.normal(0, 1, n_labels)
        self.share = self.rng.uniform(10, 100, n_labels) / 800

    def sample(self, n_videos: int, n: int = 800) -> Sample:
        rng, of = self.rng, (n_videos, len(self.share))
        groups = np.sort(rng.integers(0, n_videos, n))
        shown = rng.random(of) < 0.4  # a label is in two videos of five
        truth = shown[groups] & (rng.random((n, of[1])) < self.share / 0.4)
        score = self.distance * (truth - 0.5) + 0.7 * rng.normal(size=of)[groups] + rng.normal(size=truth.shape)
        logit = self.distance * score / (1 + 0.7**2) + np.log(self.share / (1 - self.share))
        return Sample(sigmoid(self.gain * logit + self.shift).astype(np.float32), truth, groups)


def error_of(raw: np.ndarray, sample: Sample) -> float:
    return expected_calibration_error(*top_label(raw, sample.truth, sample.known))


def test_constant_overconfidence_is_its_own_calibration_error() -> None:
    confidence, correct = np.full(10, 0.9, np.float32), np.arange(10) < 6
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.3)


def test_bins_of_the_calibration_error_count_by_their_examples() -> None:
    confidence = np.array([0.1, 0.1, 0.1, 1.0])  # bin 1 of 2: 0.1 said, 1/3 right; bin 2: 1.0 said, none right
    correct = np.array([True, False, False, False])
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(3 / 4 * (1 / 3 - 0.1) + 1 / 4)


@given(st.lists(st.tuples(st.integers(0, 1023), st.booleans()), min_size=1), st.sampled_from([7, 8, 15]))
def test_the_calibration_error_is_that_of_a_plain_loop(examples: list[tuple[int, bool]], bins: int) -> None:
    said = [(2 * number + 1) / 2048 if number else 0.0 for number, _ in examples]
    expected = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, c in enumerate(said) if (m - 1) / bins < c <= m / bins or (m == 1 and c == 0)]
        if inside:
            accuracy = sum(examples[i][1] for i in inside) / len(inside)
            expected += len(inside) / len(said) * abs(accuracy - sum(said[i] for i in inside) / len(inside))
    correct = np.array([right for _, right in examples])
    assert expected_calibration_error(np.array(said), correct, bins) == pytest.approx(expected)


def test_probabilities_that_hold_have_hardly_a_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    assert expected_calibration_error(confidence, rng.random(200_000) < confidence) < 0.005


def test_no_example_has_no_calibration_error() -> None:
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_the_top_label_is_the_most_probable_of_those_known() -> None:
    probabilities = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.3, 0.4]], np.float32)
    truth = np.array([[False, True, False], [False, True, False], [True, True, True]])
    known = np.array([[True, True, True], [False, True, True], [False, False, False]])
    confidence, correct = top_label(probabilities, truth, known)
    assert confidence.tolist() == [np.float32(0.9), 0.5]
    assert correct.tolist() == [False, True]


@pytest.mark.parametrize("method", BOTH)
def test_a_higher_raw_probability_never_becomes_the_lower_one(method: str) -> None:
    sample = scored(1, gain=2)
    sample.truth[:, 4] = ~sample.truth[:, 4]  # a label whose scores say the opposite
    calibration, _ = sample.fit(method=method)

    @given(hnp.arrays(np.float32, (9, 5), elements=st.floats(0, 1, width=32)))
    def holds(raw: np.ndarray) -> None:
        raw.sort(axis=0)
        calibrated = calibration.apply(raw)
        assert calibrated.dtype == np.float32
        assert calibrated.shape == raw.shape
        assert (np.diff(calibrated, axis=0) >= 0).all()
        assert ((calibrated >= 0) & (calibrated <= 1)).all()

    holds()


@pytest.mark.parametrize("method", BOTH)
def test_what_is_calibrated_stays_as_it_is(method: str) -> None:
    calibration, _ = scored(2, n=20_000, n_videos=100).fit(method=method)
    raw = np.repeat(np.linspace(0.02, 0.98, 97, dtype=np.float32)[:, None], 5, axis=1)
    difference = np.abs(calibration.apply(raw) - raw)
    assert difference.mean() < 0.02
    assert difference.max() < 0.1


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(("gain", "shift"), [(2.5, 0), (0.4, 0), (1, 2), (2, -3)])
def test_on_fresh_videos_the_calibration_error_falls(method: str, gain: float, shift: float) -> None:
    calibration, _ = scored(3, gain, shift).fit(method=method)
    fresh = scored(4, gain, shift, n=20_000)
    before, after = error_of(fresh.raw, fresh), error_of(calibration.apply(fresh.raw), fresh)
    assert after < before / 2
    assert calibration.report["ece_before"] == pytest.approx(before, abs=0.02)
    assert calibration.report["ece_after"] == pytest.approx(after, abs=0.02)


@pytest.mark.slow
def test_a_label_without_positives_has_the_sigmoid_of_platt_over_all_labels() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the extra `tags` is not installed")
    sample = scored(5, gain=2, shift=1, n=1000, n_labels=2)
    sample.truth[:, 1] = False
    calibration, _ = sample.fit()
    z = np.log(sample.raw.ravel().astype(float)) - np.log1p(-sample.raw.ravel().astype(float))
    n_positive, n = sample.truth.sum(), sample.truth.size
    target = np.where(sample.truth.ravel(), (n_positive + 1) / (n_positive + 2), 1 / (n - n_positive + 2))
    independent = linear_model.LogisticRegression(C=np.inf, tol=1e-8).fit(
        np.concatenate([z, z])[:, None],
        np.repeat([1, 0], n),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    assert calibration.curves.scale[1] == pytest.approx(independent.coef_[0, 0], rel=1e-3)
    assert calibration.curves.offset[1] == pytest.approx(independent.intercept_[0], rel=1e-3)
    assert [label["curve"] for label in calibration.report["labels"]] == ["own", "shared"]


def test_a_label_leaves_the_shared_sigmoid_as_far_as_its_examples_carry() -> None:
    sample, off = scored(6, n=6000, n_labels=8), scored(6, shift=3, n=60, n_labels=1)
    sample.raw[:, :2], sample.truth[:, :2] = np.tile(off.raw, (100, 1)), np.tile(off.truth, (100, 1))
    known = sample.known
    known[60:, 0] = False  # the same examples for both, once and a hundred times
    calibration, _ = fit(sample.raw, sample.truth, known, sample.groups, list("abcdefgh"))
    few, many, *others = calibration.apply(np.full((1, 8), 0.7, np.float32))[0]
    assert many < 0.15
    assert many + 0.02 < few < min(others) - 0.02


@pytest.mark.parametrize("method", BOTH)
def test_no_video_is_calibrated_by_its_own_truth(method: str) -> None:
    sample = scored(7, n=400, n_labels=3, n_videos=12)
    _, before = sample.fit(method=method)
    for video in range(12):
        rows = np.flatnonzero(sample.groups == video)
        truth = sample.truth.copy()
        truth[rows] = truth[rows[::-1]]  # as many positives, of other clips
        _, after = Sample(sample.raw, truth, sample.groups).fit(method=method)
        np.testing.assert_array_equal(after[rows], before[rows])
        assert not np.array_equal(after, before)


@pytest.mark.parametrize("method", BOTH)
def test_pairs_that_are_not_known_do_not_count(method: str) -> None:
    sample, rng = scored(8, n=600), np.random.default_rng(0)
    known = rng.random(sample.truth.shape) < 0.7
    other = Sample(np.where(known, sample.raw, np.float32(0.5)), sample.truth ^ ~known, sample.groups)
    labels = list("abcde")
    for options in ({}, {"precision": 0.8}):
        first, _ = fit(sample.raw, sample.truth, known, sample.groups, labels, method=method, **options)
        second, _ = fit(other.raw, other.truth, known, other.groups, labels, method=method, **options)
        assert first.to_json() == second.to_json()


def test_a_threshold_for_f1_has_the_best_that_calibrated_probabilities_promise() -> None:
    sample = scored(9, n=500, n_labels=3)
    sample.truth[:, 2] = False
    calibration, out_of_fold = sample.fit()
    assert calibration.aim == "f1"

    def best(p: np.ndarray) -> float:
        promised = [2 * p[p >= t].sum() / ((p >= t).sum() + p.sum()) for t in np.arange(1, 1000) / 1000]
        return (np.argmax(promised) + 1) / 1000

    p = out_of_fold.astype(float)
    assert calibration.thresholds.tolist() == [best(p[:, 0]), best(p[:, 1]), best(p.ravel())]


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.9])
def test_a_threshold_for_precision_is_the_lowest_that_clears_the_error_between_videos(precision: float) -> None:
    sample = World(10, 6).sample(12)
    calibration, out_of_fold = sample.fit(precision=precision)

    def clears(threshold: float) -> bool:
        chosen = out_of_fold >= np.float64(threshold)
        n, right = chosen.sum(), (chosen & sample.truth).sum()
        if n == 0:
            return False
        residuals = []
        for video in np.unique(sample.groups):
            of_video = chosen[sample.groups == video]
            if of_video.any():
                right_there = (of_video & sample.truth[sample.groups == video]).sum()
                residuals.append(right_there - right / n * of_video.sum())
        videos, smoothed = max(len(residuals), 2), (right + 1) / (n + 2)
        variance = sum(r * r for r in residuals) * videos / (videos - 1) / n**2
        return bool(right / n - max(variance, smoothed * (1 - smoothed) / n) ** 0.5 >= precision)

    lowest = next((number / 1000 for number in range(1, 1000) if clears(number / 1000)), np.inf)
    assert calibration.thresholds.tolist() == [lowest] * 6
    assert calibration.aim == f"precision {precision}"


def test_a_precision_out_of_reach_gives_no_label_at_all() -> None:
    sample = scored(11, n=300)
    sample.raw[:] = np.random.default_rng(0).random(sample.raw.shape, np.float32)  # scores that say nothing
    calibration, out_of_fold = sample.fit(precision=0.95)
    assert np.isinf(calibration.thresholds).all()
    assert not (out_of_fold >= calibration.thresholds).any()
    assert calibration.report["labels"][0]["threshold"] is None
    assert calibration.report["precision"] is None
    assert calibration.report["recall"] == 0
    json.dumps(calibration.to_json(), allow_nan=False)


def test_the_report_counts_what_is_given_out_of_fold() -> None:
    sample = World(12, 8).sample(30)
    calibration, out_of_fold = sample.fit()
    chosen = out_of_fold >= calibration.thresholds
    assert calibration.report["n_clips"] == 800
    assert calibration.report["n_videos"] == len(np.unique(sample.groups))
    for number, of_label in enumerate(calibration.report["labels"]):
        right = (chosen & sample.truth)[:, number].sum()
        assert of_label["label"] == calibration.labels[number]
        assert of_label["n_positive"] == sample.truth[:, number].sum()
        assert of_label["threshold"] == calibration.thresholds[number]
        assert of_label["precision"] == pytest.approx(right / chosen[:, number].sum())
        assert of_label["recall"] == pytest.approx(right / sample.truth[:, number].sum())
        precision, recall = of_label["precision"], of_label["recall"]
        assert of_label["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert calibration.report["precision"] == pytest.approx((chosen & sample.truth).sum() / chosen.sum())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", [0.8, 0.9])
def test_fresh_videos_keep_the_precision_within_five_points(method: str, precision: float) -> None:
    reached = []
    for seed, n_videos in enumerate((5, 10, 30, 100) * 2):
        world = World(100 + seed, 20 + 2 * seed)
        calibration, _ = world.sample(n_videos).fit(method=method, precision=precision)
        fresh = world.sample(100, 4000)
        chosen = calibration.apply(fresh.raw) >= calibration.thresholds
        if chosen.any():
            reached.append((chosen & fresh.truth).sum() / chosen.sum())
    assert len(reached) >= 5  # where precision is out of reach, nothing is given
    assert np.mean(reached) >= precision - 0.01
    assert np.mean(np.array(reached) >= precision - 0.05) >= 0.8


_FINITE = st.floats(-1e6, 1e6)
_PROBABILITIES = st.floats(0, 1)


@st.composite
def _knots(draw: Callable[..., Any]) -> list[list[float]]:
    at = sorted(draw(st.sets(st.floats(-16, 16), min_size=1, max_size=6)))
    return [at, sorted(draw(st.lists(_PROBABILITIES, min_size=len(at), max_size=len(at))))]


@st.composite
def _fields(draw: Callable[..., Any]) -> dict[str, Any]:
    labels = draw(st.lists(st.text(), min_size=1, max_size=5, unique=True))
    n, method = len(labels), draw(st.sampled_from(METHODS))
    if method == "platt":
        scales = st.lists(st.floats(0, 1e6), min_size=n, max_size=n)
        curves: Any = {"scale": draw(scales), "offset": draw(st.lists(_FINITE, min_size=n, max_size=n))}
    else:
        own = draw(st.dictionaries(st.integers(0, n - 1).map(str), _knots()))
        curves = {"shared": draw(_knots()), "own": own}
    return {
        "method": method,
        "aim": draw(st.sampled_from(["f1", "precision 0.9"])),
        "labels": labels,
        "thresholds": draw(st.lists(st.none() | _PROBABILITIES, min_size=n, max_size=n)),
        "curves": curves,
        "report": {"n_clips": draw(st.integers(0))},
    }


@given(_fields(), st.integers(0, 2**32 - 1))
def test_json_brings_back_the_same_calibration(fields: dict[str, Any], seed: int) -> None:
    calibration = Calibration.from_json(fields)
    text = json.dumps(calibration.to_json(), allow_nan=False)
    again = Calibration.from_json(json.loads(text))
    assert calibration.to_json() == again.to_json() == fields
    raw = np.random.default_rng(seed).random((4, len(fields["labels"])), np.float32)
    np.testing.assert_array_equal(again.apply(raw), calibration.apply(raw))
    np.testing.assert_array_equal(again.thresholds, calibration.thresholds)


@pytest.mark.parametrize("method", BOTH)
def test_json_brings_back_what_was_fitted(method: str) -> None:
    sample = scored(13, n=600)
    calibration, _ = sample.fit(method=method)
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    np.testing.assert_array_equal(again.apply(sample.raw), calibration.apply(sample.raw))
    assert again.report == calibration.report


_GOOD_PLATT = {
    "method": "platt",
    "aim": "f1",
    "labels": ["a", "b"],
    "thresholds": [0.5, None],
    "curves": {"scale": [1.0, 2.0], "offset": [0.0, 1.0]},
    "report": {},
}
_GOOD_STEPS = _GOOD_PLATT | {"method": "isotonic", "curves": {"shared": [[-1, 1], [0, 1]], "own": {"1": [[0], [0.5]]}}}


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "temperature"},
        {"method": "isotonic"},
        {"aim": "recall"},
        {"aim": 1},
        {"labels": ["a", "a"]},
        {"labels": "ab"},
        {"labels": ["a", 2]},
        {"labels": [], "thresholds": []},
        {"thresholds": [0.5]},
        {"thresholds": [0.5, 1.5]},
        {"thresholds": [0.5, -0.5]},
        {"thresholds": [0.5, float("nan")]},
        {"curves": {"scale": [1.0], "offset": [0.0]}},
        {"curves": {"scale": [1.0, -2.0], "offset": [0.0, 1.0]}},
        {"curves": {"scale": [1.0, float("inf")], "offset": [0.0, 1.0]}},
        {"curves": {"scale": [1.0, 1e39], "offset": [0.0, 1.0]}},
        {"curves": {"scale": [1.0, 10**400], "offset": [0.0, 1.0]}},
        {"curves": {"scale": [1.0, 2.0]}},
        {"report": []},
        _GOOD_STEPS | {"curves": {"shared": [[-1, 1], [1, 0]], "own": {}}},
        _GOOD_STEPS | {"curves": {"shared": [[1, -1], [0, 1]], "own": {}}},
        _GOOD_STEPS | {"curves": {"shared": [[-1, 1], [0, 2]], "own": {}}},
        _GOOD_STEPS | {"curves": {"shared": [[], []], "own": {}}},
        _GOOD_STEPS | {"curves": {"shared": [[-1, 1], [0, 1]], "own": {"2": [[0], [0.5]]}}},
        _GOOD_STEPS | {"curves": {"shared": [[-1, 1], [0, 1]], "own": []}},
    ],
    ids=repr,
)
def test_a_calibration_that_was_altered_is_refused(changed: dict[str, Any]) -> None:
    Calibration.from_json(_GOOD_PLATT)
    Calibration.from_json(_GOOD_STEPS)
    with pytest.raises(StoreDamaged, match="a calibration can't be read"):
        Calibration.from_json(_GOOD_PLATT | changed)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*_GOOD_PLATT, "x"]), inner),
    max_leaves=8,
)


@given(st.sampled_from([_GOOD_PLATT, _GOOD_STEPS]), st.sampled_from(sorted(_GOOD_PLATT)), _JSON)
def test_any_json_is_a_calibration_or_refused(good: dict[str, Any], key: str, value: Any) -> None:
    try:
        calibration = Calibration.from_json(good | {key: value})
    except StoreDamaged:
        return
    raw = np.linspace(0, 1, 22, dtype=np.float32).reshape(11, 2)
    assert np.isfinite(calibration.apply(raw)).all()


@pytest.mark.parametrize("value", [None, [], "text", 3, {}])
def test_what_is_no_calibration_is_refused(value: Any) -> None:
    with pytest.raises(StoreDamaged):
        Calibration.from_json(value)


def _with(**changed: Any) -> dict[str, Any]:
    sample = scored(14, n=60, n_videos=6)
    fields = {"raw": sample.raw, "truth": sample.truth, "known": sample.known, "groups": sample.groups}
    return fields | {"labels": list("abcde")} | changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"truth": np.zeros((60, 5), bool)}, "no positive example"),
        ({"known": np.zeros((60, 5), bool)}, "no positive example"),
        ({"groups": np.zeros(60, int)}, "one video"),
        ({"truth": np.arange(60)[:, None] * np.ones(5) < 3, "groups": np.arange(60) // 10}, "one video"),
        ({"labels": list("abcd")}, "shapes of a sample differ"),
        ({"truth": np.ones((60, 4), bool)}, "shapes of a sample differ"),
        ({"known": np.ones((59, 5), bool)}, "shapes of a sample differ"),
        ({"groups": np.arange(59)}, "shapes of a sample differ"),
        ({"raw": np.full((60, 5), 1.5, np.float32)}, "outside 0 to 1"),
        ({"raw": np.full((60, 5), np.nan, np.float32)}, "outside 0 to 1"),
        ({"method": "temperature"}, "no calibration called 'temperature'"),
        ({"precision": 1.0}, "precision of 1"),
        ({"precision": 0.0}, "precision of 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sample_that_can_calibrate_nothing_is_refused(changed: dict[str, Any], message: str) -> None:
    fit(**_with())
    with pytest.raises(InputError, match=message):
        fit(**_with(**changed))


def test_without_scikit_learn_isotonic_says_what_to_install_and_platt_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    fit(**_with())
    with pytest.raises(InputError, match="calibration needs scikit-learn") as caught:
        fit(**_with(method="isotonic"))
    assert caught.value.hint == "pip install 'vidx[tags]'"


def test_calibrating_imports_no_library_it_does_not_use() -> None:
    heavy = {"sklearn", "matplotlib", "torch"}
    code = f"import sys, vidx.search.calibration; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _drawn(path: Path, seed: int = 15, title: str = "toy, 4,000 clips") -> np.ndarray:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    sample = scored(seed, gain=2.5)
    calibrated = scored(seed)
    pairs = [top_label(each.raw, each.truth, each.known) for each in (sample, calibrated)]
    write_reliability(path, *pairs, title)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert (image.format, image.size) == ("PNG", (900, 1050))
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.slow
def test_the_picture_shows_both_curves_and_their_counts(tmp_path: Path) -> None:
    pixels = _drawn(tmp_path / "reliability.png")
    upper, lower = pixels[:700], pixels[750:]
    for colour in ((31, 119, 180), (255, 127, 14)):
        for part in (upper, lower):
            assert (np.abs(part - colour).max(axis=-1) < 8).sum() > 300
    assert (pixels.min(axis=-1) > 250).mean() > 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["reliability.png"]


@pytest.mark.slow
def test_pictures_of_other_examples_differ_and_replace_the_old_one(tmp_path: Path) -> None:
    first = _drawn(tmp_path / "a.png")
    assert (_drawn(tmp_path / "a.png", seed=16) != first).any()


@pytest.mark.slow
def test_any_text_can_be_a_title(tmp_path: Path) -> None:
    plain = _drawn(tmp_path / "a.png", title="")
    odd = _drawn(tmp_path / "b.png", title=r"$\frac{ _^ 100 % " + "long " * 60)
    assert (odd != plain).any()


@pytest.mark.slow
def test_a_picture_that_can_not_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        _drawn(tmp_path / "nowhere" / "a.png")


def test_without_matplotlib_the_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    nothing = np.zeros(1, np.float32), np.zeros(1, bool)
    with pytest.raises(InputError, match="needs matplotlib") as caught:
        write_reliability(tmp_path / "a.png", nothing, nothing, "")
    assert caught.value.hint == "pip install 'vidx[plot]'"
