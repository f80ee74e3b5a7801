"""How often labels are right, against how probable they were said to be: as one number and as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from vidx.errors import InputError
from vidx.schema.files import write_atomically

_BINS = 15


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = _BINS) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, weighted by their examples.

    Arrays of (n,). Guo et al. 2017, arXiv:1706.04599, equation 3. Not a number where n is 0.
    """
    counts, confidences, accuracies = _binned(confidence, correct, bins)
    total = counts.sum()
    return float((counts * np.abs(confidences - accuracies))[counts > 0].sum() / total) if total else math.nan


def _binned(
    confidence: np.ndarray, correct: np.ndarray, bins: int = _BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples, mean confidence and accuracy of each bin ((m-1)/bins, m/bins]; the means of an empty one are 0."""
    confidence = np.asarray(confidence, np.float64)
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    confidences, rights = (np.bincount(which, weights=w, minlength=bins) for w in (confidence, correct))
    return counts, confidences / np.maximum(counts, 1), rights / np.maximum(counts, 1)


def top_label(probabilities: np.ndarray, truth: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each clip's most probable known label, float32 (n,), and whether it is right, bool (n,).

    The arguments are of shape (n, L). Clips without a known label are left out.
    """
    counts = known.any(axis=1)
    best = np.where(known, probabilities, -1)[counts].argmax(axis=1)[:, None]
    confidence, correct = (np.take_along_axis(values[counts], best, axis=1)[:, 0] for values in (probabilities, truth))
    return confidence, correct


def write_reliability(
    path: Path, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], title: str
) -> None:
    """Write a PNG of 900 x 1050 px: accuracy by confidence before and after, and how many examples each bin holds.

    `before` and `after` are confidence (n,) and correct (n,), as `top_label` returns them. Raises InputError where
    matplotlib is missing or `path` can't be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the picture needs matplotlib", hint="pip install 'vidx[plot]'") from error
    figure = Figure(figsize=(6, 7), dpi=150, layout="constrained")
    curve, bars = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    edges = np.arange(_BINS) / _BINS
    for number, (name, (confidence, correct)) in enumerate({"before": before, "after": after}.items()):
        counts, confidences, accuracies = _binned(confidence, correct)
        held, colour = counts > 0, f"C{number}"
        ece = expected_calibration_error(confidence, correct)
        curve.plot(confidences[held], accuracies[held], "o-", color=colour, label=f"{name}, ECE {ece:.3f}")
        bars.bar(edges + (number + 0.5) / _BINS / 2, counts, width=0.45 / _BINS, color=colour)
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    curve.set_title(title, wrap=True, parse_math=False)
    curve.legend(loc="upper left")
    bars.set(xlabel="confidence", ylabel="clips")
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    try:
        write_atomically(path, png.getvalue())
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}", hint="name another file") from error
