"""Probabilities of labels that mean what they say, and thresholds for them, from a labelled sample.

What it is good for, and what else was tried: docs/explanation/calibration.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidx.errors import InputError, StoreDamaged
from vidx.search._curves import OWN_STEPS, Sigmoids, Steps, curves_from_json, demand, fit_curves
from vidx.search._reliability import expected_calibration_error, top_label

__all__ = ["METHODS", "Calibration", "expected_calibration_error", "fit", "top_label"]

METHODS = ("platt", "isotonic")
_FOLDS = 10
_CANDIDATES = np.arange(1, 1000) / 1000  # thresholds to choose from
_CAUTION = 1.0  # standard errors that the precision of the sample must lie above the one asked for


@dataclass(frozen=True, eq=False)
class Calibration:
    """What turns raw probabilities of labels into calibrated ones, and says from which on a label is given."""

    method: str
    aim: str  # "f1" or "precision 0.9"
    labels: tuple[str, ...]
    thresholds: np.ndarray  # float64 (L,), of calibrated probabilities; inf: the label is never given
    curves: Sigmoids | Steps
    report: dict[str, Any]  # for JSON: how much was learnt from, and how well it does on videos left out

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Calibrate raw probabilities, float32 (n, L) in [0, 1]; a higher one never becomes the lower one of its label.

        Returns float32 (n, L) in [0, 1].
        """
        return self.curves.of(raw)

    def to_json(self) -> dict[str, Any]:
        """A form for JSON that `from_json` reads back exactly; a threshold of infinity is null."""
        return {
            "method": self.method,
            "aim": self.aim,
            "labels": list(self.labels),
            "thresholds": [_finite(value) for value in self.thresholds],
            "curves": self.curves.to_json(),
            "report": self.report,
        }

    @classmethod
    def from_json(cls, fields: Any) -> Calibration:
        """Raises StoreDamaged for what `to_json` can't have written."""
        try:
            labels, aim = tuple(fields["labels"]), fields["aim"]
            thresholds = np.array([math.inf if value is None else value for value in fields["thresholds"]], np.float64)
            demand(isinstance(fields["labels"], list) and all(isinstance(label, str) for label in labels), "labels")
            demand(len(set(labels)) == len(labels) > 0, "labels")
            demand(thresholds.shape == (len(labels),) and bool((thresholds >= 0).all()), "thresholds")
            demand(bool(((thresholds <= 1) | np.isinf(thresholds)).all()), "thresholds")
            demand(isinstance(aim, str) and (aim == "f1" or aim.startswith("precision ")), "aim")
            demand(isinstance(fields["report"], dict), "report")
            curves = curves_from_json(fields["method"], fields["curves"], len(labels))
            return cls(fields["method"], aim, labels, thresholds, curves, fields["report"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            hint = "calibrate again, from the labelled sample"
            raise StoreDamaged(f"a calibration can't be read ({error!r})", hint=hint) from error


def fit(
    raw: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    *,
    method: str = "platt",
    precision: float | None = None,
) -> tuple[Calibration, np.ndarray]:
    """Calibrate labels on a sample: raw float32 (n, L) in [0, 1], truth and known bool (n, L), groups int (n,).

    `known` says which pairs of clip and label count, `groups` which video a clip is of. The threshold of a label is
    the one with the best expected F1 or, with `precision`, the lowest with at least that precision. Beside the
    calibration, returns float32 (n, L) calibrated by curves that never saw the clip's video. Raises InputError for a
    sample that can't calibrate anything.
    """
    _check(raw, truth, known, groups, labels, method, precision)
    positive = truth & known
    _, videos = np.unique(groups, return_inverse=True)
    out_of_fold = np.empty(raw.shape, np.float32)
    folds = _folds(videos, positive)
    for fold in range(folds.max() + 1):
        train, test = folds != fold, folds == fold
        out_of_fold[test] = fit_curves(method, raw[train], positive[train], known[train]).of(raw[test])
    if precision is None:
        thresholds = _best_expected_f1(out_of_fold, positive, known)
    else:
        thresholds = np.full(len(labels), _lowest_with_precision(out_of_fold, positive, known, videos, precision))
    aim = "f1" if precision is None else f"precision {precision:g}"
    curves = fit_curves(method, raw, positive, known)
    report = {
        "n_clips": len(raw),
        "n_videos": int(videos.max()) + 1,
        "ece_before": expected_calibration_error(*top_label(raw, truth, known)),
        "ece_after": expected_calibration_error(*top_label(out_of_fold, truth, known)),
        **_rates(out_of_fold, positive, known, thresholds, labels, method),
    }
    return Calibration(method, aim, tuple(labels), thresholds, curves, report), out_of_fold


def _check(
    raw: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    method: str,
    precision: float | None,
) -> None:
    if method not in METHODS:
        raise InputError(f"no calibration called {method!r}", hint=f"choose from: {', '.join(METHODS)}")
    if precision is not None and not 0 < precision < 1:
        raise InputError(f"a precision of {precision:g} can't be aimed at", hint="name one between 0 and 1")
    shapes = [values.shape for values in (raw, truth, known)]
    if len(set(shapes)) > 1 or raw.shape[1:] != (len(labels),) or groups.shape != raw.shape[:1]:
        raise InputError(f"shapes of a sample differ: {shapes}, groups {groups.shape}, {len(labels)} labels")
    if not ((raw >= 0) & (raw <= 1)).all():
        raise InputError("raw probabilities of a sample lie outside 0 to 1")
    if not (truth & known).any():
        raise InputError("the sample has no positive example of any label", hint="label some clips that show one")
    if len(np.unique(groups[(truth & known).any(axis=1)])) < 2:
        raise InputError(
            "all positive examples of the sample are of one video", hint="calibrating takes at least two videos"
        )


def _folds(videos: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """The fold of each clip, int (n,): all of a video in one, positives spread evenly."""
    positives = np.bincount(videos, weights=positive.sum(axis=1))
    order = np.argsort(-positives, kind="stable")
    of_video = np.empty(len(order), np.int64)
    of_video[order] = np.arange(len(order)) % min(_FOLDS, len(order))
    return of_video[videos]


def _from(probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum of the weights, or count, of the probabilities at or above each candidate for a threshold."""
    above = np.searchsorted(_CANDIDATES, probabilities, side="right")
    sums = np.bincount(above, weights=weights, minlength=len(_CANDIDATES) + 1)
    return sums[::-1].cumsum()[::-1][1:]


def _best_expected_f1(calibrated: np.ndarray, positive: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The threshold of each label, where a calibrated probability is as much of a positive example.

    So few positives are enough; a label without any within reach gets the threshold that is best over all labels.
    """

    def best(p: np.ndarray) -> float:
        p = p.astype(np.float64)
        return float(_CANDIDATES[np.argmax(2 * _from(p, p) / np.maximum(_from(p) + p.sum(), 1e-30))])

    thresholds = np.full(calibrated.shape[1], best(calibrated[known]))
    for label in np.flatnonzero((positive & (calibrated >= _CANDIDATES[0])).any(axis=0)):
        thresholds[label] = best(calibrated[known[:, label], label])
    return thresholds


def _lowest_with_precision(
    calibrated: np.ndarray, positive: np.ndarray, known: np.ndarray, videos: np.ndarray, least: float
) -> float:
    """The lowest threshold over all labels whose precision lies safely above `least`; infinity where none does.

    Clips of a video are right or wrong together, so the error is that of a ratio over videos (Cochran 1977, chapter 6),
    or of as many single clips where that is more.
    """
    rows, columns = np.nonzero(known)
    above = np.searchsorted(_CANDIDATES, calibrated[rows, columns], side="right")
    width = len(_CANDIDATES) + 1
    place = videos[rows] * width + above
    shape = videos.max() + 1, width
    given, right = (
        np.bincount(place, weights=weights, minlength=shape[0] * width)
        .reshape(shape)[:, ::-1]
        .cumsum(axis=1)[:, -2::-1]
        for weights in (None, positive[rows, columns])
    )
    n, n_videos = np.maximum(given.sum(axis=0), 1), np.maximum((given > 0).sum(axis=0), 2)
    precision = right.sum(axis=0) / n
    between = ((right - precision * given) ** 2).sum(axis=0) * n_videos / (n_videos - 1) / n**2
    smoothed = (right.sum(axis=0) + 1) / (n + 2)
    error = np.sqrt(np.maximum(between, smoothed * (1 - smoothed) / n))
    reached = np.flatnonzero(precision - _CAUTION * error >= least)
    return float(_CANDIDATES[reached[0]]) if len(reached) else math.inf


def _rates(
    calibrated: np.ndarray,
    positive: np.ndarray,
    known: np.ndarray,
    thresholds: np.ndarray,
    labels: Sequence[str],
    method: str,
) -> dict[str, Any]:
    """Precision, recall and F1 over all labels and of each; None where nothing is given, or nothing is there."""
    given = (calibrated >= thresholds) & known
    counts = np.stack([(given & positive).sum(axis=0), given.sum(axis=0), positive.sum(axis=0)]).tolist()
    least = 1 if method == "platt" else OWN_STEPS
    of_labels = [
        {"label": label, "n_positive": n, "curve": "own" if n >= least else "shared", "threshold": _finite(threshold)}
        | _scores(right, n_given, n)
        for label, threshold, right, n_given, n in zip(labels, thresholds, *counts, strict=True)
    ]
    return {**_scores(*(sum(values) for values in counts)), "labels": of_labels}


def _scores(right: int, given: int, there: int) -> dict[str, float | None]:
    return {
        "precision": right / given if given else None,
        "recall": right / there if there else None,
        "f1": 2 * right / (given + there) if given + there else None,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
