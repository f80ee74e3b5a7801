"""Index tiers, one file each, over the unit vectors of one space. Rows are positions in those.

A tier module has `build(vectors, seed) -> Index`, `opened(path, vectors, settings) -> Index`, which maps what `save`
wrote, and `NEEDS_GATE`: whether it may miss neighbours, so that it must prove its recall before it is used. Such an
index also has `widths()`: itself as it looks less or more far, from quick to thorough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Index(Protocol):
    """Nearest rows by cosine (inner product of unit vectors). Searches from several threads at once are safe."""

    settings: dict[str, Any]  # what `opened` needs beside the files, as JSON holds it

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """For float32 (Q, dim) queries: scores float32 (Q, m) and rows int64 (Q, m), best first, ties by row.

        `allowed` bool (N,) leaves only those rows. m is k, or the number of rows that are left where that is smaller.
        """

    def save(self, path: Path) -> None:
        """Write what can't be had from the vectors themselves."""
