"""Pictures of a measurement as PNG; the same values give the same bytes.

Drawn on figures of their own, never through pyplot, which keeps figures for the whole process. Every function raises
ValueError where there is nothing to draw or shapes don't fit, and those that draw axes InputError without matplotlib.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidx.errors import InputError
from vidx.export import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_MOST_TICKS = 60  # class names beside a confusion matrix
_MOST_BARS = 400  # class names beside bars
_LONGEST_NAME, _LONGEST_TITLE = 32, 100  # characters
_FRAME_PX = (240, 120)  # most that a frame of a sheet takes
_MOST_FRAMES = 8
_MARGIN_PX, _CAPTION_PX, _LEAST_WIDTH_PX = 6, 14, 640
_BACKGROUND, _INK = (24, 24, 26), (230, 230, 230)


def confusion_png(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Counts (classes, classes), rows the truth, as shares of each row; of classes that occur on either side."""
    counts = np.asarray(confusion)
    _require(counts.shape == (len(classes), len(classes)), f"{counts.shape} counts of {len(classes)} classes")
    kept = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    _require(len(kept) > 0, "no class occurs")
    counts = counts[np.ix_(kept, kept)]
    side = min(4.5 + 0.16 * len(kept), 14.0)
    figure, axes = _axes(side + 1, side)  # beside the matrix stands its scale
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("share of the true class")
    names = [_cut(classes[number], _LONGEST_NAME) for number in kept.tolist()] if len(kept) <= _MOST_TICKS else []
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=7, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    return _png(figure)


def class_bars_png(names: Sequence[str], values: Sequence[float] | np.ndarray, title: str) -> bytes:
    """A bar for each of values (n,), the largest on top, equal ones in the order given."""
    lengths = np.asarray(values, np.float64)
    _require(lengths.shape == (len(names),) and len(names) > 0, f"{len(names)} names, values {lengths.shape}")
    _require(bool(np.isfinite(lengths).all()), "a value is not finite")
    order = np.argsort(-lengths, kind="stable")
    figure, axes = _axes(8.0, min(1.2 + 0.16 * len(names), 48.0))
    axes.barh(np.arange(len(names)), lengths[order], height=0.8, color="C0")
    axes.set_ylim(len(names) - 0.4, -0.6)
    labels = [_cut(names[number], _LONGEST_NAME) for number in order.tolist()] if len(names) <= _MOST_BARS else []
    axes.set_yticks(range(len(labels)), labels, fontsize=7, parse_math=False)
    axes.grid(axis="x", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(_cut(title, _LONGEST_TITLE), parse_math=False, wrap=True)
    return _png(figure)


def lines_png(series: dict[str, tuple[np.ndarray, np.ndarray]], title: str, x_label: str, y_label: str) -> bytes:
    """A line for each name through the points x (n,) and y (n,); NaN leaves a gap."""
    _require(len(series) > 0, "no line to draw")
    figure, axes = _axes(8.0, 5.0)
    for name, (x, y) in series.items():
        _require(np.ndim(x) == 1 and np.shape(x) == np.shape(y) and len(x) > 0, f"{name}: {np.shape(x)}, {np.shape(y)}")
        axes.plot(x, y, marker="o", markersize=3, label="a line")
    for text, name in zip(axes.legend(fontsize=8).get_texts(), series, strict=True):
        text.set(text=_cut(name, _LONGEST_NAME), parse_math=False)  # as a label, a name with a leading _ is left out
    axes.grid(linewidth=0.5)
    axes.set_xlabel(shown(x_label), parse_math=False)
    axes.set_ylabel(shown(y_label), parse_math=False)
    axes.set_title(_cut(title, _LONGEST_TITLE), parse_math=False, wrap=True)
    return _png(figure)


def curves_png(runs: Mapping[str, Sequence[str]]) -> bytes:
    """Loss and validation accuracy over steps, side by side, 1000 x 400 px: a line for each run, by its name.

    A run has the texts of its log.jsonl, of several where parts of it were trained one behind the other.
    """
    return _png(_curves(runs))


def _curves(runs: Mapping[str, Sequence[str]]) -> Figure:
    _require(len(runs) > 0, "no run to draw")
    figure = _figure(10.0, 4.0)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for number, (name, logs) in enumerate(runs.items()):
        steps, losses, accuracies, ends = _series(logs)
        _require(len(steps) > 0, f"{name}: its log is empty")
        for axes, values in ((loss_axes, losses), (accuracy_axes, accuracies)):
            axes.plot(steps, values, marker="o", markersize=3, color=f"C{number}", label="a run")
            for end in ends:
                axes.axvline(end, color=f"C{number}", linewidth=0.8, linestyle=":")
    for axes, what in ((loss_axes, "loss in training"), (accuracy_axes, "accuracy on validation videos")):
        axes.grid(linewidth=0.5)
        axes.set(xlabel="step", ylabel=what)
    loss_axes.set_ylim(bottom=0)
    accuracy_axes.set_ylim(-0.03, 1.03)
    if len(runs) > 1:
        for text, name in zip(accuracy_axes.legend(fontsize=8).get_texts(), runs, strict=True):
            text.set(text=_cut(name, _LONGEST_NAME), parse_math=False)
    return figure


def _series(logs: Sequence[str]) -> tuple[list[int], list[float], list[float], list[int]]:
    """Steps, sums of losses and accuracies of all checks, and the steps at which a part ends and the next begins."""
    steps, losses, accuracies, ends = [], [], [], []
    done = 0
    for log in logs:
        for line in map(json.loads, log.splitlines()):
            steps.append(done + line["step"])
            losses.append(sum(value for name, value in line.items() if name.startswith("loss/")))
            accuracies.append(line["accuracy"])
        done = max(steps, default=0)
        ends.append(done)
    return steps, losses, accuracies, ends[:-1]


def sheet_png(rows: Sequence[tuple[str, np.ndarray]], title: str) -> bytes:
    """A contact sheet: for each row its caption, and below it up to 8 of its frames uint8 (T, h, w, 3), evenly chosen.

    Frames are made no higher than 120 px and no wider than 240.
    """
    _require(len(rows) > 0, "no row to draw")
    strips = [(caption, _strip(frames)) for caption, frames in rows]
    font, text_px = ImageFont.load_default(_CAPTION_PX), _CAPTION_PX + _MARGIN_PX
    width = max(_LEAST_WIDTH_PX, *(strip.width for _, strip in strips)) + 2 * _MARGIN_PX
    height = text_px + sum(text_px + strip.height + 2 * _MARGIN_PX for _, strip in strips)
    sheet = Image.new("RGB", (width, height + 2 * _MARGIN_PX), _BACKGROUND)
    draw, top = ImageDraw.Draw(sheet), _MARGIN_PX
    draw.text((_MARGIN_PX, top), _fitted(title, width - 2 * _MARGIN_PX, font), _INK, font)
    top += text_px
    for caption, strip in strips:
        top += _MARGIN_PX
        draw.text((_MARGIN_PX, top), _fitted(caption, width - 2 * _MARGIN_PX, font), _INK, font)
        sheet.paste(strip, (_MARGIN_PX, top + text_px))
        top += text_px + strip.height + _MARGIN_PX
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _strip(frames: np.ndarray) -> Image.Image:
    frames = np.asarray(frames)
    fits = frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and frames.size > 0
    _require(fits, f"{frames.dtype} {frames.shape} are no frames")
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).round().astype(int)
    pictures = [Image.fromarray(np.ascontiguousarray(frames[number])) for number in chosen]
    for picture in pictures:
        picture.thumbnail(_FRAME_PX)
    width, height = pictures[0].size
    strip = Image.new("RGB", (len(pictures) * (width + _MARGIN_PX) - _MARGIN_PX, height), _BACKGROUND)
    for number, picture in enumerate(pictures):
        strip.paste(picture, (number * (width + _MARGIN_PX), 0))
    return strip


def _fitted(text: str, width_px: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Text cut at its end to a width."""
    text = _cut(text, width_px // 3)  # hardly a character is narrower than 3 px
    while font.getlength(text) > width_px:
        text = _cut(text, len(text) - 1)
    return text


def _cut(text: str, longest: int) -> str:
    """Text on one line of at most so many characters."""
    text = shown(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Empty axes on a figure of so many inches."""
    figure = _figure(width, height)
    return figure, figure.subplots()


def _figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib", hint="run `pip install 'vidx[plot]'`") from error
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it draws a box for what its font lacks
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return png.getvalue()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
