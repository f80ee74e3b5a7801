"""Vectors of clips to scores and probabilities of labels.

Three kinds of columns, in this order: labels told by text, labels that were taught (`vidx teach`), and parents, which
gather the labels below them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vidx.encoders import VideoTextEncoder
from vidx.encoders._prompts import Prompts
from vidx.schema.heads import Head
from vidx.search.labels import LabelSet

SINGLE, MULTI = "single", "multi"
# What a label has to beat in `multi`.
BACKGROUND = (
    *("a video", "a picture", "nothing in particular", "a black screen", "text on a screen", "a test card"),
    *("an empty room", "a wall", "the sky", "the ground", "a landscape", "a street", "a building", "furniture"),
    *("a blurred picture", "a pattern", "darkness", "bright light", "an object", "a person", "people", "an animal"),
    *("someone talking", "a face", "an interior", "a view from above", "a close-up", "a drawing", "static noise"),
)


class Curves(Protocol):
    """What calibrates: `vidx.search.calibration.Calibration`."""

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """float32 (n, L) to float32 (n, L)."""


@dataclass(frozen=True)
class Texts:
    """Unit vectors of what labels and background are told by.

    `labels` float32 (P, L, dim) and `background` (P, B, dim); P is 1 unless probabilities are averaged over prompts.
    Texts of the background are taken as they are.
    """

    labels: np.ndarray
    background: np.ndarray

    @classmethod
    def encoded(
        cls, encoder: VideoTextEncoder, label_set: LabelSet, background: Sequence[str], prompts: Prompts
    ) -> Texts:
        """Each label's texts in each template; what is averaged is made of unit norm again."""
        n_prompts, dim = len(prompts.templates), encoder.spec.space.dim
        groups = texts_of(label_set, prompts)
        flat = [text for group in groups for text in group]
        by_template = encoder.encode_text(flat).reshape(-1, n_prompts, dim) if flat else np.empty((0, n_prompts, dim))
        firsts = np.cumsum([0, *(len(group) // n_prompts for group in groups)])[:-1]
        labels = np.add.reduceat(by_template, firsts, axis=0) if flat else by_template
        if prompts.averaged == "vectors":
            labels = labels.sum(axis=1, keepdims=True)
        labels = labels / np.linalg.norm(labels, axis=-1, keepdims=True)
        apart = encoder.encode_text(list(background)) if background else np.empty((0, dim))
        apart = np.broadcast_to(apart.astype(np.float32), (labels.shape[1], *apart.shape))
        return cls(np.ascontiguousarray(labels.transpose(1, 0, 2), np.float32), apart)


def texts_of(label_set: LabelSet, prompts: Prompts) -> list[list[str]]:
    """What each label is looked for by: each of its texts in each template."""
    return [
        [template.replace("{}", text) for text in label.texts for template in prompts.templates]
        for label in label_set.labels
    ]


@dataclass(frozen=True)
class Scored:
    """float32 (n, C) each; `background` float32 (n,) is what a softmax leaves to texts of the background."""

    cosines: np.ndarray
    probabilities: np.ndarray
    background: np.ndarray


class Scorer:
    """Labels of a set, and taught ones, as columns; `names` and `n_told` say which they are."""

    def __init__(
        self,
        label_set: LabelSet,
        texts: Texts | None,
        heads: Sequence[Head],
        *,
        mode: str,
        scale: float = 1.0,
        calibration: Curves | None = None,
    ) -> None:
        self._texts, self._heads, self._mode, self._scale = texts, tuple(heads), mode, np.float32(scale)
        self._calibration = calibration
        self.n_texts = len(label_set.labels)
        self.n_told = self.n_texts + len(self._heads)  # of which the best are kept; parents come apart
        self.names = (*label_set.names, *(head.label for head in heads), *label_set.parents)
        of = {parent: number for number, parent in enumerate(label_set.parents)}
        self._children: list[list[int]] = [[] for _ in of]
        for number, label in enumerate(label_set.labels):
            if label.parent is not None:
                self._children[of[label.parent]].append(number)

    def of_vectors(self, vectors: np.ndarray) -> Scored:
        """For unit vectors of clips float32 (n, dim)."""
        assert self._texts is not None
        each = zip(self._texts.labels, self._texts.background, strict=True)
        return self._scored(((vectors @ labels.T, vectors @ apart.T) for labels, apart in each), vectors)

    def of_cosines(self, cosines: np.ndarray, background: np.ndarray, vectors: np.ndarray) -> Scored:
        """For cosines (n, L) and (n, B) that were had another way, from the frames; heads still take the vectors."""
        return self._scored([(cosines, background)], vectors)

    def of_probabilities(self, told: np.ndarray, vectors: np.ndarray) -> Scored:
        """For probabilities float32 (n, L) that a classifier gave, which stand for cosines, too."""
        return self._with_others(told, told.copy(), np.zeros(len(told), np.float32), vectors)

    def _scored(self, by_prompt: Iterable[tuple[np.ndarray, np.ndarray]], vectors: np.ndarray) -> Scored:
        mean, told, none = self._mean(by_prompt)
        return self._with_others(mean, told, none, vectors)

    def _with_others(self, mean: np.ndarray, told: np.ndarray, none: np.ndarray, vectors: np.ndarray) -> Scored:
        """Calibrated, with taught labels and parents."""
        if self._calibration is not None:
            told, none = self._calibration.apply(told), np.zeros_like(none)  # whose own share is not calibrated
        if not self._heads and not self._children:
            return Scored(mean, told, none)
        columns, chances = [mean], [told]
        if self._heads:
            columns.append(vectors @ np.stack([head.direction for head in self._heads]).T)
            chances.append(np.stack([head.probabilities(vectors) for head in self._heads], axis=1))
        for children in self._children:
            columns.append(mean[:, children].max(axis=1, keepdims=True))
            below = told[:, children]
            gathered = below.sum(axis=1, keepdims=True) if self._mode == SINGLE else below.max(axis=1, keepdims=True)
            chances.append(np.minimum(gathered, 1))
        return Scored(np.concatenate(columns, axis=1), np.concatenate(chances, axis=1), none)

    def _mean(self, by_prompt: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Cosines, probabilities and those of none, each a mean over prompts, of which two are in memory at once."""
        sums: list[np.ndarray] = []
        n_prompts = 0
        for cosines, apart in by_prompt:
            parts = [cosines, *probabilities_of(cosines, apart, self._scale, self._mode)]
            sums = [np.add(total, part, out=total) for total, part in zip(sums, parts, strict=True)] if sums else parts
            n_prompts += 1
        return sums if n_prompts == 1 else [np.divide(total, n_prompts, out=total) for total in sums]


def probabilities_of(
    cosines: np.ndarray, background: np.ndarray, scale: np.float32, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of labels float32 (n, L), and of none of them (n,), from cosines (n, L) and (n, B).

    `single`: a softmax over labels and background. `multi`: each label by itself in a softmax with the background; what
    is left to none is then nothing of its own, and told as zero.
    """
    if cosines.shape[1] == 0:
        return cosines, np.zeros(len(cosines), np.float32)
    logits = cosines * scale
    apart = background * scale
    if mode == MULTI:
        top = apart.max(axis=1, keepdims=True)
        logits -= top + np.log(np.exp(apart - top).sum(axis=1, keepdims=True))
        with np.errstate(over="ignore"):  # far below the background, where the result is zero
            np.exp(-logits, out=logits)
        logits += 1
        told: np.ndarray = np.reciprocal(logits, out=logits)
        return told, np.zeros(len(told), np.float32)
    top = logits.max(axis=1, keepdims=True)
    if background.shape[1]:
        top = np.maximum(top, apart.max(axis=1, keepdims=True))
    np.exp(logits - top, out=logits)
    none = np.exp(apart - top).sum(axis=1, keepdims=True)
    total = logits.sum(axis=1, keepdims=True) + none
    logits /= total
    return logits, (none / total)[:, 0]
