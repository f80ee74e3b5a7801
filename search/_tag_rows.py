"""Probabilities to rows of the tags table: which labels a clip, a stretch of time or a video gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vidx.schema.tag_tables import NUMBERED
from vidx.search._tag_scores import SINGLE, Scored

CLIP, SEGMENT, VIDEO = "clip", "segment", "video"
LEVELS = (CLIP, SEGMENT, VIDEO)
RELEASE = 0.5  # of its threshold: a label that began goes on down to this; hysteresis
_FEW = 16  # labels of a clip, up to which they are looked for one after the other
_TOUCH_S = 0.05  # clips this close in time touch


@dataclass(frozen=True)
class Block:
    """Clips of whole videos, those of a video together and in order of time.

    `videos` int64 (n,) are live ranges, `ids` int64 (n,), `times_s` float64 (n, 2), `vectors` float32 (n, dim).
    """

    videos: np.ndarray
    ids: np.ndarray
    times_s: np.ndarray
    vectors: np.ndarray

    def at(self, rows: np.ndarray) -> Block:
        """Those of a mask bool (n,) or of positions."""
        return Block(self.videos[rows], self.ids[rows], self.times_s[rows], self.vectors[rows])

    @property
    def firsts(self) -> np.ndarray:
        """Where each video begins, int64 (V,)."""
        return np.flatnonzero(np.diff(self.videos, prepend=-1))


@dataclass(frozen=True)
class Rule:
    """Which labels are told: at most `top`, of at least `thresholds` float32 (C,); parents, from `n_told` on, apart.

    All but the `taught` columns also have to reach the background.
    """

    thresholds: np.ndarray
    n_told: int
    top: int
    mode: str
    taught: tuple[int, int] = (0, 0)  # from, to

    def passes(self, values: np.ndarray, background: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Whether probabilities (n, m) of `columns`, int (m,) or (n, m), are enough; `background` is float32 (n,)."""
        taught = (columns >= self.taught[0]) & (columns < self.taught[1])
        return (values >= self.thresholds[columns]) & ((values >= background[:, None]) | taught)


@dataclass(frozen=True)
class Rows:
    """Rows of one level. `labels` are columns, -1 where nothing matches; then what came nearest stands beside it."""

    level: str
    videos: np.ndarray  # int64 (r,), live ranges
    ids: np.ndarray  # int64 (r,), -1 where a row is of no single clip
    times_s: np.ndarray  # float64 (r, 2)
    labels: np.ndarray  # int64 (r,)
    cosines: np.ndarray  # float32 (r,)
    probabilities: np.ndarray  # float32 (r,)
    thresholds: np.ndarray  # float32 (r,)
    ranks: np.ndarray  # int32 (r,), from 1; 0 where nothing matches


def rows_of(level: str, block: Block, scored: Scored, rule: Rule) -> Rows:
    """The rows of a level for the clips of whole videos."""
    if level == SEGMENT:
        return _segments(block, scored, rule)
    if level == CLIP:
        return _of_units(level, block.videos, block.ids, block.times_s, scored, rule)
    firsts = block.firsts
    together = np.add if rule.mode == SINGLE else np.maximum
    counts = np.diff(np.append(firsts, len(block.ids)))[:, None].astype(np.float32)
    divisor = counts if rule.mode == SINGLE else np.float32(1)
    video = Scored(
        together.reduceat(scored.cosines, firsts, axis=0) / divisor,
        together.reduceat(scored.probabilities, firsts, axis=0) / divisor,
        np.add.reduceat(scored.background, firsts) / counts[:, 0],
    )
    starts_s, ends_s = block.times_s.T
    times_s = np.stack([starts_s[firsts], np.maximum.reduceat(ends_s, firsts)], axis=1)
    return _of_units(level, block.videos[firsts], np.full(len(firsts), -1), times_s, video, rule)


def _of_units(level: str, videos: np.ndarray, ids: np.ndarray, times_s: np.ndarray, scored: Scored, rule: Rule) -> Rows:
    """The best labels of each clip or video, best first, then its parents; a row without a label where none passes."""
    units, labels, ranks = _best(scored, rule, slice(0, rule.n_told))
    if len(rule.thresholds) > rule.n_told:
        more = _best(scored, rule, slice(rule.n_told, len(rule.thresholds)))
        units, labels, ranks = (np.concatenate(pair) for pair in zip((units, labels, ranks), more, strict=True))
    without = np.setdiff1d(np.arange(len(ids)), units)
    nearest = scored.probabilities[without, : rule.n_told].argmax(axis=1)
    columns = np.concatenate([labels, nearest])
    units = np.concatenate([units, without])
    order = np.argsort(units, kind="stable")
    units, columns = units[order], columns[order]
    return Rows(
        level=level,
        videos=videos[units],
        ids=ids[units],
        times_s=times_s[units],
        labels=np.concatenate([labels, np.full(len(without), -1)])[order],
        cosines=scored.cosines[units, columns],
        probabilities=scored.probabilities[units, columns],
        thresholds=rule.thresholds[columns],
        ranks=np.concatenate([ranks, np.zeros(len(without), ranks.dtype)])[order],
    )


def _best(scored: Scored, rule: Rule, among: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units, columns and ranks of what passes among some columns: by unit, then by probability, ties by column."""
    best = _largest(scored.probabilities[:, among], rule.top)
    values = np.take_along_axis(scored.probabilities[:, among], best, axis=1)
    best += among.start
    passes = rule.passes(values, scored.background, best)
    units, places = np.nonzero(passes)
    return units, best[units, places], np.cumsum(passes, axis=1, dtype=np.int32)[units, places]


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Columns int64 (n, k) of the k largest of each row, largest first, ties by column; all where there are fewer."""
    if k > _FEW:
        return np.argsort(-values, axis=1, kind="stable")[:, :k]
    left, rows = values.copy(), np.arange(len(values))
    best = np.empty((len(values), min(k, values.shape[1])), np.int64)
    for place in range(best.shape[1]):  # many times as fast as a partition
        best[:, place] = left.argmax(axis=1)
        left[rows, best[:, place]] = -1
    return best


def _segments(block: Block, scored: Scored, rule: Rule) -> Rows:
    """Stretches in which a label holds: from where it reaches its threshold, as far as it stays above half of it."""
    probabilities = scored.probabilities
    high = rule.passes(probabilities, scored.background, np.arange(probabilities.shape[1]))
    found = []
    for first, stop in zip(block.firsts.tolist(), [*block.firsts[1:].tolist(), len(block.ids)], strict=True):
        span = slice(first, stop)
        starts_s, ends_s = block.times_s[span].T
        joined = starts_s[1:] <= np.maximum.accumulate(ends_s)[:-1] + _TOUCH_S
        for column in np.flatnonzero(high[span].any(axis=0)).tolist():
            held = probabilities[span, column] >= RELEASE * rule.thresholds[column]
            for at, to in _runs(held, joined):
                if high[first + at : first + to, column].any():
                    found.append((first + at, first + to, column))
    labels = np.array([column for _, _, column in found], np.int64)
    peaks = np.array([at + probabilities[at:to, column].argmax() for at, to, column in found], np.int64)
    times_s = [(block.times_s[at, 0], block.times_s[at:to, 1].max()) for at, to, _ in found]
    return Rows(
        level=SEGMENT,
        videos=block.videos[peaks],
        ids=np.full(len(found), -1),
        times_s=np.array(times_s).reshape(-1, 2),
        labels=labels,
        cosines=scored.cosines[peaks, labels],
        probabilities=probabilities[peaks, labels],
        thresholds=rule.thresholds[labels],
        ranks=_ranks(probabilities[peaks], labels, rule.n_told),
    )


def _runs(held: np.ndarray, joined: np.ndarray) -> list[tuple[int, int]]:
    """Half-open runs of clips that hold a label; `joined` bool (n - 1,): whether each touches the one before."""
    begins = held & np.append(True, ~(held[:-1] & joined))
    ends = held & np.append(~(held[1:] & joined), True)
    return list(zip(np.flatnonzero(begins).tolist(), (np.flatnonzero(ends) + 1).tolist(), strict=True))


def _ranks(probabilities: np.ndarray, labels: np.ndarray, n_told: int) -> np.ndarray:
    """The place of each row's label among all labels of its peak, or of a parent among parents: int32 from 1."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    better = probabilities > own
    of_told, of_parents = better[:, :n_told].sum(axis=1), better[:, n_told:].sum(axis=1)
    return (np.where(labels < n_told, of_told, of_parents) + 1).astype(np.int32)


class Encoding:
    """Rows to Arrow batches of schema NUMBERED: each string once, and its number in the rows."""

    def __init__(self, names: Sequence[str], video_ids: pa.Array, paths: pa.Array, constants: dict[str, str]) -> None:
        """`video_ids` and `paths` are by live range, `constants` the columns that are the same in every row."""
        self._names = pa.array(names, pa.string())
        self._video_ids, self._paths, self._constants = video_ids, paths, constants

    def batch(self, rows: Rows) -> pa.RecordBatch:
        """All columns of a batch."""
        n = len(rows.labels)
        shown, numbers = np.unique(rows.videos, return_inverse=True)
        of_clip = rows.level == CLIP
        columns: dict[str, Any] = {
            "video_id": _numbered(numbers, self._video_ids.take(pa.array(shown))),
            "clip_id": pa.array(rows.ids, pa.int64()) if of_clip else pa.nulls(n, pa.int64()),
            "level": _constant(rows.level, n),
            "path": _numbered(numbers, self._paths.take(pa.array(shown))),
            "start_s": pa.array(rows.times_s[:, 0]),
            "end_s": pa.array(rows.times_s[:, 1]),
            "label": _numbered(rows.labels, self._names),
            "score": pa.array(rows.cosines, pa.float32()),
            "probability": pa.array(rows.probabilities, pa.float32()),
            "threshold": pa.array(rows.thresholds, pa.float32()),
            "rank": pa.array(rows.ranks, pa.int32(), mask=rows.ranks == 0),
            **{name: _constant(value, n) for name, value in self._constants.items()},
        }
        return pa.record_batch([columns[name] for name in NUMBERED.names], schema=NUMBERED)


def _numbered(numbers: np.ndarray, values: pa.Array) -> pa.DictionaryArray:
    indices = pa.array(numbers.astype(np.int32), mask=numbers < 0)
    return pa.DictionaryArray.from_arrays(indices, values)


def _constant(value: str, n: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))
