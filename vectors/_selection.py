"""What the tiers share: rows that a filter leaves, answers put together query by query, files mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np

_SMALL_ROWS = 20_000  # as many are scored one by one faster than FAISS looks at each row's bit ...
_SMALL_SHARE = 0.02  # ... and so is this share of all

_READ_BYTES = 4 * 2**20
_LOOKS = 64

Found = tuple[np.ndarray, np.ndarray]


class Selection:
    """The rows of an index that an answer may hold: all, or those of a mask bool (N,)."""

    def __init__(self, n_rows: int, allowed: np.ndarray | None) -> None:
        self._allowed = allowed
        self.n = n_rows if allowed is None else int(np.count_nonzero(allowed))
        self.is_small = allowed is not None and self.n <= max(_SMALL_ROWS, _SMALL_SHARE * n_rows)

    @cached_property
    def rows(self) -> np.ndarray:
        assert self._allowed is not None
        return np.flatnonzero(self._allowed)

    @cached_property
    def selector(self) -> faiss.IDSelector | None:
        """For FAISS on the CPU; its classic indexes on a GPU take one and never look at it."""
        if self._allowed is None:
            return None
        # FAISS keeps only the address: the bits live as long as this object does.
        self._bits = np.packbits(self._allowed, bitorder="little")
        return faiss.IDSelectorBitmap(self._bits)


def each(queries: np.ndarray, k: int, search_one: Callable[[np.ndarray, int], Found]) -> Found:
    """Scores float32 (Q, k) and rows int64 (Q, k) of queries searched one by one."""
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    if k:
        for number, query in enumerate(np.ascontiguousarray(queries, np.float32)):
            scores[number], rows[number] = search_one(query, k)
    return scores, rows


def read_ahead(path: Path) -> None:
    """Have a file that is going to be read as a whole in memory; one that seems to be there is not read again.

    FAISS maps files for random access, without the kernel's own reading ahead: a scan that meets each page on the disk
    takes ten times as long as reading it all first.
    """
    with open(path, "rb", buffering=0) as file:
        size, block = path.stat().st_size, bytearray(_READ_BYTES)
        if hasattr(os, "RWF_NOWAIT"):
            try:
                for at in range(0, size, max(size // _LOOKS, 1)):
                    os.preadv(file.fileno(), [memoryview(block)[:1]], at, os.RWF_NOWAIT)
                return
            except OSError:  # not in memory, or a file system that can't tell
                pass
        while file.readinto(block):
            pass


def read_mapped(path: Path) -> faiss.Index:
    """An index whose bulk stays in its file. Raises RuntimeError where the file is no index."""
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
