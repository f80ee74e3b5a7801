"""Zero-shot classification: features of videos against texts of class names, view by view as a protocol says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidx.encoders import VideoTextEncoder
from vidx.encoders._label_sets import as_words
from vidx.learn.datasets import Item, Split
from vidx.learn.features import Features, compute
from vidx.learn.metrics import bootstrap_interval, mean_class_accuracy, ranks, top_k
from vidx.learn.protocols import Protocol

NAMES = ("published", "words")
_HALF_SPLITS = 10


@dataclass(frozen=True)
class Candidate:
    """An encoder and how it is tested; `published` are top-1 and top-5 in per cent where its authors gave them."""

    title: str
    features: Features
    protocol: Protocol
    published: tuple[float | None, float | None] = (None, None)

    @property
    def encoder(self) -> VideoTextEncoder:
        return self.features.encoder


@dataclass(frozen=True)
class Classified:
    """One video: `probabilities` float64 (classes,), and which of its frames, int (clips, T), were looked at."""

    probabilities: np.ndarray
    indices: np.ndarray
    n_frames: int


@dataclass(frozen=True)
class Scored:
    """A split's items that have features: `probabilities` float64 (n, classes), `labels` and `numbers` int64 (n,).

    `numbers` say which of the split's items they are.
    """

    split: Split
    probabilities: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    classified: tuple[Classified, ...]

    @property
    def ranks(self) -> np.ndarray:
        """0-based rank of each item's class."""
        return ranks(self.probabilities, self.labels)

    @property
    def predictions(self) -> np.ndarray:
        """The likeliest class of each item, the first of equal ones."""
        return self.probabilities.argmax(axis=1)

    def figures(self, seed: int = 0) -> dict[str, Any]:
        """What is measured on it; accuracies are shares."""
        placed = self.ranks
        low, high = bootstrap_interval(placed == 0, seed=seed)
        return {
            "split": self.split.name,
            "items": len(placed),
            "missing": len(self.split.items) - len(placed),
            "top1": top_k(placed, 1),
            "top5": top_k(placed, 5),
            "mean_class_accuracy": mean_class_accuracy(self.predictions, self.labels),
            "top1_low": low,
            "top1_high": high,
        }


def scored_splits(
    candidates: Sequence[Candidate], splits: Sequence[Split], *, names: str, tell: Callable[[int, int], None]
) -> tuple[list[list[Scored]], dict[Path, str]]:
    """For each candidate each split, every video decoded once for all candidates; and which files gave no frames."""
    paths = sorted({item.path for split in splits for item in split.items if item.path is not None})
    keys, failed = compute([candidate.features for candidate in candidates], paths, tell)
    number_of = {path: number for number, path in enumerate(paths) if path in keys}
    wanted = {keys[path]: number for path, number in number_of.items()}
    every = []
    for candidate in candidates:
        by_classes = {}
        for classes in {split.classes for split in splits}:
            texts = LabelTexts(candidate, [name_of(name, names) for name in classes])
            by_classes[classes] = {
                number: Classified(texts.probabilities(one.rows), one.indices, one.n_frames)
                for number, one in candidate.features.read(wanted)
            }
        every.append([_scored(split, by_classes[split.classes], number_of) for split in splits])
    return every, failed


def _scored(split: Split, found: dict[int, Classified], number_of: dict[Path, int]) -> Scored:
    def number(item: Item) -> int | None:
        return None if item.path is None else number_of.get(item.path)

    kept = [(at, place) for at, item in enumerate(split.items) if (place := number(item)) in found]
    classified = tuple(found[place] for _, place in kept if place is not None)
    return Scored(
        split,
        np.array([one.probabilities for one in classified]).reshape(len(kept), len(split.classes)),
        np.array([split.items[at].label for at, _ in kept], np.int64),
        np.array([at for at, _ in kept], np.int64),
        classified,
    )


def half_classes(full: Split) -> list[Split]:
    """Ten halves of the classes, with the videos of those classes (Text4Vis, test_zeroshot.py).

    Half s is the first C // 2 of NumPy's permutation of the C classes, its global generator seeded with s; ranked are
    those of them that occur.
    """
    n_classes = len(full.classes)
    halves = []
    for seed in range(_HALF_SPLITS):
        chosen = set(np.random.RandomState(seed).permutation(n_classes)[: n_classes // 2].tolist())
        items = [item for item in full.items if item.label in chosen]
        if not items:
            continue
        new = {old: number for number, old in enumerate(sorted({item.label for item in items}))}
        relabelled = tuple(replace(item, label=new[item.label]) for item in items)
        halves.append(Split(f"half {seed}", tuple(full.classes[old] for old in new), relabelled))
    return halves


def name_of(name: str, names: str) -> str:
    """A class name as it goes into templates: as published, or as people would write it; blanks for underscores."""
    return as_words(name) if names == "words" else name.replace("_", " ")


class LabelTexts:
    """Class names in the templates of a protocol, ready for the features of one video after another."""

    def __init__(self, candidate: Candidate, names: Sequence[str]) -> None:
        self._encoder, self._protocol = candidate.encoder, candidate.protocol
        templates = self._protocol.templates
        self._texts = [template.replace("{}", name) for template in templates for name in names]
        self._n_classes = len(names)
        self._scale = self._protocol.scale or self._encoder.logit_scale
        self._vectors: np.ndarray = np.empty(0)
        if not hasattr(self._encoder, "cosines"):  # whose texts depend on the video
            vectors = self._encoder.encode_text(self._texts).astype(np.float64).reshape(len(templates), len(names), -1)
            if self._protocol.averaged == "vectors":
                vectors = _unit(vectors.mean(axis=0, keepdims=True))
            self._vectors = vectors

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Float64 (classes,) for a video's features float32 (views, R, dim)."""
        similarities = self._scale * self._cosines(rows)
        if self._protocol.fusion != "probabilities":
            similarities = similarities.mean(axis=0, keepdims=True)
        return np.asarray(softmax(similarities).mean(axis=(0, 1)))

    def _cosines(self, rows: np.ndarray) -> np.ndarray:
        """(views, prompts, classes); of one view where features are averaged before."""
        if hasattr(self._encoder, "cosines"):
            cosines: np.ndarray = self._encoder.cosines(rows, self._texts).astype(np.float64)
            return cosines.reshape(len(rows), -1, self._n_classes)
        pooled = pooled_rows(rows.astype(np.float64), self._protocol.pooling)
        if self._protocol.fusion == "features":
            pooled = pooled.mean(axis=0, keepdims=True)
        if self._protocol.pooling != "scores":
            pooled = _unit(pooled)
        return np.einsum("vd,pcd->vpc", pooled, self._vectors)


def pooled_rows(rows: np.ndarray, pooling: str | None) -> np.ndarray:
    """(..., R, dim) to (..., dim). The mean of unit rows has the mean of their cosines: `scores` leave it as it is."""
    if pooling is None:
        first: np.ndarray = rows[..., 0, :]
        return first
    if pooling == "mean":
        mean: np.ndarray = rows.mean(axis=-2)
        return mean
    mean = _unit(rows).mean(axis=-2)
    return _unit(mean) if pooling == "unit-mean" else mean


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = raised / raised.sum(axis=-1, keepdims=True)
    return result


def _unit(rows: np.ndarray) -> np.ndarray:
    result: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return result
