"""Clips decoded again and scored as an encoder's authors do, for labels: what stored vectors alone can't tell."""

from __future__ import annotations

import numpy as np

from vidx.encoders import VideoTextEncoder
from vidx.encoders._prompts import Prompts
from vidx.errors import InputError, MediaError
from vidx.indexer.frames import frames_of_clip
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search._tag_rows import Block
from vidx.search._tag_scores import Scored, Scorer, texts_of
from vidx.search.labels import LabelSet


class ExactScores:
    """Callable on blocks. `left` lists the clips whose files can't be decoded now; they get no rows."""

    def __init__(
        self,
        store: Store,
        space: Space,
        encoder: VideoTextEncoder,
        scorer: Scorer,
        label_set: LabelSet,
        background: tuple[str, ...],
        prompts: Prompts,
    ) -> None:
        """Raises InputError where the encoder scores by its vectors alone."""
        if not hasattr(encoder, "exact_scores"):
            raise InputError(
                f"{encoder.spec.name} scores by its vectors alone; --exact adds nothing",
                hint="leave out --exact, or index with an X-CLIP encoder",
            )
        self._store, self._space, self._encoder, self._scorer = store, space, encoder, scorer
        groups = [*texts_of(label_set, prompts), *([text] for text in background)]
        self._texts = [text for group in groups for text in group]
        self._firsts = np.cumsum([0, *(len(group) for group in groups)])[:-1]
        self._sizes = np.array([len(group) for group in groups], np.float32)
        self._n_labels = len(label_set.labels)
        self.left: list[int] = []

    def __call__(self, block: Block) -> tuple[Block, Scored]:
        """Scores of the clips that could be decoded, and which they are."""
        rows, cosines = [], []
        for row, clip_id in enumerate(block.ids.tolist()):
            try:
                frames = frames_of_clip(self._store, self._space.name, clip_id)
            except MediaError:
                self.left.append(clip_id)
                continue
            [scores] = self._encoder.exact_scores(frames[None], self._texts)
            rows.append(row)
            cosines.append(np.add.reduceat(scores, self._firsts) / self._sizes)
        kept = block.at(np.array(rows, np.int64))
        scores = np.array(cosines, np.float32).reshape(len(rows), len(self._sizes))
        told, apart = scores[:, : self._n_labels], scores[:, self._n_labels :]
        return kept, self._scorer.of_cosines(told, apart, kept.vectors)
