"""Curves from raw probabilities to calibrated ones: sigmoids and steps, shared by labels or of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidx.errors import InputError

_LEAST_RAW = np.float32(1e-7)  # logits lie within -16 and 16: float32 tells few probabilities nearer to 1 apart
_BINS_PER_LOGIT = 256  # curves are fitted to counts of examples in bins as narrow as this
_SCALE_SPREAD, _SHIFT_SPREAD = 0.5, 1.5  # how far labels lie about the shared sigmoid: a factor, and logits
_LEAST_SCALE = 0.1  # of the shared sigmoid, where scores say so little that a factor of it would say nothing
OWN_STEPS = 20  # positives from which on a label has isotonic steps of its own


@dataclass(frozen=True, eq=False)
class Sigmoids:
    """sigmoid(scale * logit(raw) + offset); float64 (L,) each, no scale below 0 (Platt 1999)."""

    scale: np.ndarray
    offset: np.ndarray

    def of(self, raw: np.ndarray) -> np.ndarray:
        x = _logit(raw)
        x *= self.scale.astype(np.float32)
        x += self.offset.astype(np.float32)
        return _sigmoid(x)

    def to_json(self) -> dict[str, Any]:
        return {"scale": self.scale.tolist(), "offset": self.offset.tolist()}


@dataclass(frozen=True, eq=False)
class Steps:
    """Isotonic curves as knots, float64 (2, K): ascending logits of raw probabilities, and what they stand for."""

    shared: np.ndarray
    own: dict[int, np.ndarray]  # by the number of the label

    def of(self, raw: np.ndarray) -> np.ndarray:
        z = _logit(raw)
        calibrated = np.interp(z, *self.shared).astype(np.float32)
        for label, knots in self.own.items():
            calibrated[:, label] = np.interp(z[:, label], *knots)
        return calibrated

    def to_json(self) -> dict[str, Any]:
        return {
            "shared": self.shared.tolist(),
            "own": {str(label): knots.tolist() for label, knots in self.own.items()},
        }


def _logit(raw: np.ndarray) -> np.ndarray:
    p = np.clip(raw, _LEAST_RAW, 1 - _LEAST_RAW, dtype=np.float32)
    z: np.ndarray = np.log(p)
    z -= np.log1p(np.negative(p, out=p), out=p)
    return z


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """In place; exp(80) still fits float32."""
    np.clip(x, -80, 80, out=x)
    np.exp(np.negative(x, out=x), out=x)
    x += 1
    return np.reciprocal(x, out=x)


def fit_curves(method: str, raw: np.ndarray, positive: np.ndarray, known: np.ndarray) -> Sigmoids | Steps:
    z = _logit(raw)
    return (_fit_sigmoids if method == "platt" else _fit_steps)(z, positive, known)


def _fit_sigmoids(z: np.ndarray, positive: np.ndarray, known: np.ndarray) -> Sigmoids:
    """One sigmoid over all labels, and for each label with a positive its own, drawn towards that."""
    at, right, wrong = _counted(z[known], positive[known])
    n_right, n_wrong = right.sum(), wrong.sum()
    target_right, target_wrong = (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2)  # Platt's, against certainty
    mass = right * target_right + wrong * target_wrong
    scale, offset = _newton(at, mass, right + wrong - mass, np.array([1.0, 0.0]), np.zeros(2))
    scales, offsets = np.full(z.shape[1], scale), np.full(z.shape[1], offset)
    middle = float(np.clip(-offset / scale, -16, 16)) if scale > 0 else 0.0  # labels shift about where it says 0.5
    expected = np.array([scale, scale * middle + offset])
    spread = np.array([_SCALE_SPREAD * max(scale, _LEAST_SCALE), _SHIFT_SPREAD])
    for label in np.flatnonzero(positive.any(axis=0)):
        rows = known[:, label]
        at, right, wrong = _counted(z[rows, label], positive[rows, label])
        scales[label], shift = _newton(at - middle, right, wrong, expected, spread**-2)
        offsets[label] = shift - scales[label] * middle
    return Sigmoids(scales, offsets)


def _newton(
    at: np.ndarray, right: np.ndarray, wrong: np.ndarray, expected: np.ndarray, tightness: np.ndarray
) -> np.ndarray:
    """Scale and offset, float64 (2,), of the likeliest sigmoid; both normal about `expected`, the scale not below 0.

    `right` and `wrong` count examples at the logits `at`.
    """

    def loss(point: np.ndarray) -> float:
        x = point[0] * at + point[1]
        likelihood = right @ np.logaddexp(0, -x) + wrong @ np.logaddexp(0, x)
        return float(likelihood + tightness @ (point - expected) ** 2 / 2)

    design = np.stack([at, np.ones_like(at)])
    point, least = expected.astype(np.float64), loss(expected)
    for _ in range(100):
        p = _sigmoid(point[0] * at + point[1])
        slope = design @ ((right + wrong) * p - right) + tightness * (point - expected)
        bend = (design * ((right + wrong) * p * (1 - p))) @ design.T + np.diag(tightness + 1e-9)
        if point[0] <= 0 and slope[0] > 0:  # at its bound
            step = np.array([0.0, slope[1] / bend[1, 1]])
        else:
            step = np.linalg.solve(bend, slope)
        for halving in range(30):
            moved = point - step / 2**halving
            moved[0] = max(moved[0], 0.0)
            if (now := loss(moved)) < least:
                break
        else:
            break
        point, gain, least = moved, least - now, now
        if gain < 1e-10 * (1 + least):
            break
    return point


def _fit_steps(z: np.ndarray, positive: np.ndarray, known: np.ndarray) -> Steps:
    """Isotonic regression (Zadrozny and Elkan 2002) over all labels, and for each label with many positives."""
    many = np.flatnonzero(positive.sum(axis=0) >= OWN_STEPS)
    own = {int(label): _knots(z[known[:, label], label], positive[known[:, label], label]) for label in many}
    return Steps(_knots(z[known], positive[known]), own)


def _knots(z: np.ndarray, positive: np.ndarray) -> np.ndarray:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise InputError("isotonic calibration needs scikit-learn", hint="pip install 'vidx[tags]'") from error
    at, right, wrong = _counted(z, positive)
    never, always = (
        1 / (wrong.sum() + 2),
        1 - 1 / (right.sum() + 2),
    )  # as Platt's targets: a sample makes nothing certain
    model = IsotonicRegression(y_min=never, y_max=always)
    fitted = model.fit(at, right / (right + wrong), sample_weight=right + wrong)
    return np.stack([fitted.X_thresholds_, fitted.y_thresholds_]).astype(np.float64)


def _counted(z: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles of the bins of logits that hold examples, and how many positive and negative ones each; float64."""
    number = np.rint((z.astype(np.float64) + 17) * _BINS_PER_LOGIT).astype(np.int64)
    total = np.bincount(number).astype(np.float64)
    right = np.bincount(number, weights=positive)
    held = np.flatnonzero(total)
    return held / _BINS_PER_LOGIT - 17, right[held], (total - right)[held]


def curves_from_json(method: str, fields: dict[str, Any], n_labels: int) -> Sigmoids | Steps:
    if method == "platt":
        scale, offset = (np.array(fields[name], np.float64) for name in ("scale", "offset"))
        demand(scale.shape == offset.shape == (n_labels,), "curves")
        demand(bool((np.abs([scale, offset]) < 1e30).all() and (scale >= 0).all()), "curves")  # what float32 can hold
        return Sigmoids(scale, offset)
    demand(method == "isotonic", "method")
    own = {int(label): _knots_from_json(knots) for label, knots in fields["own"].items()}
    demand(all(0 <= label < n_labels for label in own), "curves")
    return Steps(_knots_from_json(fields["shared"]), own)


def _knots_from_json(fields: Any) -> np.ndarray:
    knots = np.array(fields, np.float64)
    demand(knots.ndim == 2 and len(knots) == 2 and knots.shape[1] > 0 and bool(np.isfinite(knots).all()), "curves")
    demand(bool((np.diff(knots[0]) > 0).all() and (np.diff(knots[1]) >= 0).all()), "curves")
    demand(knots[1, 0] >= 0 and knots[1, -1] <= 1, "curves")
    return knots


def demand(holds: bool, what: str) -> None:
    """Raises ValueError where stored fields make no sense."""
    if not holds:
        raise ValueError(f"its {what} make no sense")
