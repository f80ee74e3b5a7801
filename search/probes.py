"""Queries to try an index with, before any user does."""

from __future__ import annotations

import numpy as np

from vidx import encoders
from vidx.errors import VidxError
from vidx.schema.spaces import Space

_WHO = (
    *("a person", "two people", "a child", "a crowd", "a woman", "a man", "a dog", "a horse", "a bird", "a car"),
    *("a train", "a boat", "a machine", "a player", "a worker", "an old photograph", "a street", "a river"),
)
_WHAT = (
    *("", "running", "falling down", "at night", "in the snow", "climbing stairs", "playing music", "from above"),
    *("talking to the camera", "seen through a window", "near water", "in a kitchen"),
)
_BEST_COSINE = (0.2, 0.35)  # of texts with the clips they describe


def probe_queries(space: Space, vectors: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """float32 (Q, dim) unit vectors, and what they are in words: texts where the space's encoder is on this machine.

    Else, from stored unit vectors float32 (N, dim), some as far from the clips, and as far to one side, as texts are.
    """
    try:
        spec = encoders.of_space(space)
        if spec.space.name == space.name:
            texts = [f"{who} {what}".strip() for what in _WHAT for who in _WHO]
            return encoders.build(spec).encode_text(texts), f"{len(texts)} texts"
    except VidxError:  # its weights are not here, or are not those that made the space
        pass
    made = shifted_queries(vectors, len(_WHO) * len(_WHAT), seed)
    return made, f"{len(made)} vectors as far from the clips as texts are"


def shifted_queries(vectors: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n unit vectors, float32, each with a cosine of 0.2 to 0.35 with one of the vectors, and all leaning one way.

    Texts and pictures lie apart in the spaces of such encoders (Liang et al. 2022, arXiv:2203.02053).
    """
    rng = np.random.default_rng(seed)
    near = np.asarray(vectors[np.sort(rng.choice(len(vectors), n))], np.float64)
    apart = rng.standard_normal(near.shape[1]) + rng.standard_normal(near.shape)
    apart -= near * (near * apart).sum(axis=1, keepdims=True)
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    cosine = rng.uniform(*_BEST_COSINE, (n, 1))
    return (cosine * near + np.sqrt(1 - cosine**2) * apart).astype(np.float32)
