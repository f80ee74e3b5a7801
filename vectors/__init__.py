"""Index tiers, one file each. A tier module has `build(vectors, clip_ids) -> Index`."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Index(Protocol):
    """Nearest clips by cosine (inner product of unit vectors)."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """For float32 (Q, dim) queries: scores float32 (Q, m) and clip ids int64 (Q, m), best first, ties by clip id.

        m is k, or the number of vectors where there are fewer.
        """
