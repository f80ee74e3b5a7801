"""A classifier that was trained here, measured on its test videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders._trained import read_model
from vidx.encoders._trained_classifier import TrainedClassifier, load_classifier
from vidx.errors import InputError
from vidx.indexer.frames import Look
from vidx.learn._pictures import confusion_png, curves_png
from vidx.learn.metrics import bootstrap_interval, confusion, mean_class_accuracy, ranks, top_k
from vidx.learn.report import Report, Table, write_report
from vidx.schema.records import printable
from vidx.train.footage import LabelledVideo, Parts, Reader, in_batches
from vidx.train.logs import LOG

if TYPE_CHECKING:
    import pyarrow as pa

HEAD_FOLDER = "head"  # below that of a run, where a first part taught the head alone


@dataclass(frozen=True)
class Tested:
    """Shares of the test videos told right, the best five guesses for the first of them, and where the report is."""

    accuracy: float
    top5: float
    n_videos: int
    example: Path
    guesses: tuple[tuple[str, float], ...]  # class and probability, the likeliest first
    report: Path
    left_out: dict[Path, str]  # files that can't be decoded, of all parts


def tested(folder: Path, parts: Parts, batch: int, left_out: Mapping[Path, str]) -> Tested:
    """Measure the classifier in a folder on the test videos, and write a report into the folder.

    Raises InputError where none of them can be decoded.
    """
    classifier = load_classifier(folder)
    look = Look.of_fields(classifier.sampling, classifier.preprocess)
    reader = Reader(parts.test, look, lambda at: at if at < len(parts.test) else None, most_bytes=0)
    videos: list[LabelledVideo] = []
    found = [np.empty((0, len(classifier.labels)), np.float32)]
    for pictures, of_videos in in_batches(reader, parts.test, batch):
        found.append(classifier.probabilities(pictures))
        videos += of_videos
    reader.close()
    failed = {**left_out, **reader.failed}
    if not videos:
        raise InputError("not one test video can be decoded", hint=next(iter(reader.failed.values()), ""))
    scores, labels = np.concatenate(found), np.array([video.label for video in videos])
    report = _report(folder, classifier, videos, scores, failed)
    write_report(report, folder)
    best = np.argsort(-scores[0], kind="stable")[:5]
    return Tested(
        report.figures["accuracy"],
        top_k(ranks(scores, labels), 5),
        len(videos),
        videos[0].path,
        tuple((classifier.labels[label], float(scores[0, label])) for label in best),
        folder / "report.md",
        failed,
    )


def _report(
    folder: Path,
    classifier: TrainedClassifier,
    videos: Sequence[LabelledVideo],
    scores: np.ndarray,
    left_out: Mapping[Path, str],
) -> Report:
    labels, predictions = np.array([video.label for video in videos]), scores.argmax(axis=1)
    right, classes = labels == predictions, classifier.labels
    low, high = bootstrap_interval(right)
    figures: dict[str, Any] = {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "top5": top_k(ranks(scores, labels), 5),
        "mean_class_accuracy": mean_class_accuracy(predictions, labels),
        "videos": len(videos),
        "classes": {classes[label]: float(right[labels == label].mean()) for label in np.unique(labels)},
        "left_out": {printable(bytes(path)): reason for path, reason in left_out.items()},
    }
    counts = confusion(predictions, labels, len(classes))
    row = (len(videos), *(100 * figures[name] for name in ("accuracy", "top5", "mean_class_accuracy")))
    overall = Table(
        "Accuracy",
        ("videos", "top-1 %", "top-5 %", "mean class %"),
        (row,),
        f"95 % interval of top-1, a bootstrap over videos: {100 * low:.1f} to {100 * high:.1f} %.",
    )
    facts = read_model(folder)
    return Report(
        title=f"{facts['family']} on test videos",
        facts={name: facts[name] for name in ("trained_on", "began_with", "training", "frames", "sampling")},
        tables=(overall, _by_class(classes, counts)),
        figures={**figures, "confusion": counts.tolist()},
        pictures=_pictures(folder, counts, classes) if find_spec("matplotlib") else {},
        items=_items(classes, videos, scores),
    )


def _pictures(folder: Path, counts: np.ndarray, classes: Sequence[str]) -> dict[str, bytes]:
    return {"confusion.png": confusion_png(counts, classes), **curves_of(folder)}


def curves_of(folder: Path) -> dict[str, bytes]:
    """A picture of how a training went, by the name of its file; none where its logs are gone."""
    paths = [path for path in (folder / HEAD_FOLDER / LOG, folder / LOG) if path.is_file()]
    logs = [log for path in paths if (log := path.read_text("utf-8"))]
    return {"curves.png": curves_png({folder.name: logs})} if logs else {}


def _by_class(classes: Sequence[str], counts: np.ndarray) -> Table:
    """For each class how many videos were told right, and which class is taken for it most often."""
    rows: list[tuple[str | float | int | None, ...]] = []
    for label in np.flatnonzero(counts.sum(axis=1)).tolist():
        wrong = counts[label].copy()
        wrong[label] = 0
        taken_for = classes[int(wrong.argmax())] if wrong.any() else None
        n = int(counts[label].sum())
        rows.append((classes[label], n, 100 * counts[label, label] / n, taken_for, int(wrong.max()) or None))
    return Table("Classes", ("class", "videos", "right %", "most often taken for", "times"), tuple(rows))


def _items(classes: Sequence[str], videos: Sequence[LabelledVideo], scores: np.ndarray) -> pa.Table:
    """A row for each test video."""
    import pyarrow as pa

    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return pa.Table.from_pylist(
        [
            {
                "path": printable(bytes(video.path)),
                "label": classes[video.label],
                "predicted": classes[top[0]],
                "probability": float(row[top[0]]),
                "top5": [classes[label] for label in top],
            }
            for video, row, top in zip(videos, scores, best, strict=True)
        ]
    )
