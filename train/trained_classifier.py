"""Classifiers that were trained here: a folder made ready for use, and measured on its test videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vidx.encoders._checkpoint import read_checkpoint
from vidx.encoders._classifier import VideoClassifier
from vidx.encoders._trained import MODEL, WEIGHTS, read_model
from vidx.errors import InputError, WeightsDamaged, WeightsMissing
from vidx.indexer.frames import Look
from vidx.indexer.sampling import Sampling
from vidx.learn._pictures import confusion_png
from vidx.learn.metrics import bootstrap_interval, confusion, mean_class_accuracy, ranks, top_k
from vidx.learn.report import Report, Table, write_report
from vidx.schema.records import Preprocess, printable
from vidx.train.footage import LabelledVideo, Parts, Reader, in_batches

if TYPE_CHECKING:
    import pyarrow as pa


class TrainedClassifier:
    """Says which of its `labels` a video shows, by a clip that `look` gives; a clip has `frames` pictures."""

    def __init__(self, network: VideoClassifier, frames: int, look: Look) -> None:
        self.labels, self.frames, self.look = network.labels, frames, look
        self._network = network

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """float32 (B, len(labels)), rows that sum to 1, of clips uint8 (B, T, side, side, 3) RGB. Raises ValueError."""
        with torch.inference_mode():
            return self._network.predict(frames)


def load_classifier(folder: Path) -> TrainedClassifier:
    """The classifier in a folder that `vidx train videomae` or `movinet` made, on a GPU where there is one.

    Raises WeightsMissing, WeightsDamaged, WeightsMisfit, and InputError for a model of another family.
    """
    facts = read_model(folder)
    if not (folder / WEIGHTS).is_file():
        raise WeightsMissing(f"{folder} has no {WEIGHTS} yet", hint="let its training come to a first check")
    state = read_checkpoint(folder / WEIGHTS)
    try:
        look = Look(Sampling(**facts["sampling"]), Preprocess(**facts["preprocess"]))
        return TrainedClassifier(_rebuilt(facts, state), facts["frames"], look)
    except (KeyError, TypeError) as error:
        raise WeightsDamaged(f"{folder / MODEL} lacks {error}", hint="train the model again") from error


def _rebuilt(facts: Mapping[str, Any], state: Mapping[str, Any]) -> VideoClassifier:
    from vidx.encoders import movinet, videomae

    device = "cuda" if torch.cuda.is_available() else "cpu"
    match facts["family"]:
        case "videomae":
            encoder = videomae.from_state_dict(state, config=facts["config"])
            nn.Module.to(encoder, device)
            return videomae.VideoMAEClassifier(encoder)
        case "movinet":
            network = movinet.from_state_dict(state, causal=facts["causal"])
            return movinet.MoViNetClassifier(network.to(device), facts["labels"])
    raise InputError(f"{facts['family']} is no family of classifiers", hint="they are videomae and movinet")


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
    reader = Reader(parts.test, classifier.look, lambda at: at if at < len(parts.test) else None, most_bytes=0)
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
        pictures={"confusion.png": confusion_png(counts, classes)} if find_spec("matplotlib") else {},
        items=_items(classes, videos, scores),
    )


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
