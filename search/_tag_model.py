"""Clips decoded again and told by a classifier of its own labels, that `vidx train` made."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vidx.errors import MediaError
from vidx.indexer.frames import Look, frames_around
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search._tag_rows import Block
from vidx.search._tag_scores import Scored, Scorer
from vidx.search.labels import Label, LabelSet, set_name

if TYPE_CHECKING:
    from vidx.encoders._trained_classifier import TrainedClassifier

_BATCH = 8


def labels_of(classifier: TrainedClassifier) -> LabelSet:
    """Its labels as a set with the name of its folder."""
    name = set_name(classifier.name.partition(":")[2])
    return LabelSet(name, tuple(Label(label, (label,)) for label in classifier.labels))


class ModelScores:
    """Callable on blocks. `left` lists the clips whose files can't be decoded now; they get no rows.

    A clip is told by frames around its middle, spaced as in training; they may reach beyond a short clip.
    """

    def __init__(self, store: Store, space: Space, classifier: TrainedClassifier, scorer: Scorer) -> None:
        self._store, self._space, self._classifier, self._scorer = store, space, classifier, scorer
        self._look = Look.of_fields(classifier.sampling, classifier.preprocess)
        self.left: list[int] = []

    def __call__(self, block: Block) -> tuple[Block, Scored]:
        """Probabilities of the clips that could be decoded, and which they are."""
        rows: list[int] = []
        told = [np.empty((0, len(self._classifier.labels)), np.float32)]
        decoded = self._decoded(block)
        while some := list(islice(decoded, _BATCH)):
            told.append(self._classifier.probabilities(np.stack([pictures for _, pictures in some])))
            rows += [row for row, _ in some]
        kept = block.at(np.array(rows, np.int64))
        return kept, self._scorer.of_probabilities(np.concatenate(told), kept.vectors)

    def _decoded(self, block: Block) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of the block and their pictures, each video decoded once."""
        for rows in np.split(np.arange(len(block.ids)), block.firsts[1:]):
            left = rows.tolist()
            instants = block.times_s[rows].mean(axis=1).tolist()
            try:
                for pictures in frames_around(
                    self._store, self._space.name, int(block.ids[rows[0]]), instants, self._look
                ):
                    yield left.pop(0), pictures
            except MediaError:
                self.left += block.ids[left].tolist()
