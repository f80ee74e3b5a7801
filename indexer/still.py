"""Whether a clip shows nothing but what an earlier one shows, so that one vector does for both: `--skip-still`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK_PX = 8  # about; a mean over 64 pixels is nearly free of noise, and few things worth seeing are smaller
MOST_CHANGE = 8.0  # of 255, measured in docs/explanation/sampling.md


@dataclass(frozen=True)
class Extent:
    """The darkest and the brightest that each block of a clip becomes, float32 (rows, columns, 3), 0 to 255."""

    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray) -> Extent:
        """The extent of a clip, uint8 (T, height, width, 3)."""
        rows, columns = _edges(pixels.shape[1]), _edges(pixels.shape[2])
        sums = np.add.reduceat(pixels, rows[:-1], axis=1, dtype=np.uint16)
        sums = np.add.reduceat(sums, columns[:-1], axis=2, dtype=np.uint32)
        areas = np.diff(rows)[:, None] * np.diff(columns)
        means = (sums / areas[..., None]).astype(np.float32)
        return cls(means.min(axis=0), means.max(axis=0))

    def change(self, other: Extent) -> float:
        """How far any block of the two clips gets from itself, 0 to 255; motion inside either clip counts as well."""
        span = np.maximum(self.highest, other.highest) - np.minimum(self.lowest, other.lowest)
        return float(span.max())


def is_still(clip: Extent, reference: Extent) -> bool:
    """Whether nothing changes within two clips of one size, nor from one to the other."""
    return clip.change(reference) <= MOST_CHANGE


def _edges(length_px: int) -> np.ndarray:
    """Where blocks begin, and the end of the last: all nearly as long, so that none is noisier than the others."""
    n_blocks = max(1, round(length_px / _BLOCK_PX))
    return np.arange(n_blocks + 1) * length_px // n_blocks
