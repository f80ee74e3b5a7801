"""Token ids by a small vocabulary of byte pairs that was learned with an encoder (see `vidx.train.shapes.tokens`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, PAD = "<|start|>", "<|pad|>"
END = "<|end|>"  # the largest id, by which X-CLIP finds the end of a text
LENGTH = 32  # of a text, at most


def small_token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """int64 (N, LENGTH): start, text, end, padding; of longer texts the beginning, and the end."""
    vocabulary = tokenizer.get_vocab()
    start, pad, end = (vocabulary[token] for token in (START, PAD, END))
    ids = np.full((len(texts), LENGTH), pad, dtype=np.int64)
    for row, encoded in zip(ids, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        tokens = [start, *encoded.ids[: LENGTH - 2], end]
        row[: len(tokens)] = tokens
    return ids
