"""Events that follow one another in one video: `--then`.

Cosines of two texts can't be compared, so each clip's score for each event is first brought to standard deviations
above the mean of all clips (`Background`). A chain takes one clip for each event, each later than the one before by at
most `within_s`, middle to middle; its score is the mean over its clips. The best chain of all is found, not the one
that starts with the best first event (dynamic programming over the clips of each video).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidx.config import SearchOptions
from vidx.errors import InputError, StoreMissing
from vidx.search.collection import Background, Collection
from vidx.search.retrieve import Span
from vidx.vectors._exact import scores_of

_CANDIDATES = 10_000  # best clips of each event; a video must hold one of each to be looked at


def sequences(
    collection: Collection, vectors: list[np.ndarray], options: SearchOptions, kept: np.ndarray | None = None
) -> list[Span]:
    """The k best chains for the unit vectors of the events, in their order; no two of one video overlap in time.

    `kept`, ascending ids int64 (n,), are the clips that count; None means all. A span's peak is its first event; its
    `score` is the mean cosine, `calibrated` the mean that it is ranked by. Raises InputError, StoreMissing.
    """
    if options.by == "clip":
        raise InputError("events that follow one another are no single clip", hint="leave out --by clip")
    if collection.live.n_clips == 0:
        raise StoreMissing(
            f"no video is indexed with {collection.space.encoder} yet", hint="run `vidx index FOLDER` first"
        )
    backgrounds = [collection.background(vector) for vector in vectors]
    found: list[Span] = []
    for live_range, bound in _promising(collection, vectors, backgrounds, kept):
        worst = found[options.k - 1].calibrated if len(found) >= options.k else None
        if worst is not None and bound < worst:
            break
        chains = _chains(collection, vectors, backgrounds, live_range, options, kept)
        found += list(chains)[: 1 if options.by == "video" else None]
        found.sort(key=lambda span: (-(span.calibrated or 0.0), span.peak))
    least = options.min_score
    return [span for span in found if least is None or (span.calibrated or 0.0) >= least][: options.k]


def _promising(
    collection: Collection, vectors: list[np.ndarray], backgrounds: list[Background], kept: np.ndarray | None
) -> Iterator[tuple[int, float]]:
    """Videos among whose clips are good ones for every event, and what a chain there can score at most, best first."""
    best: dict[int, list[float]] = {}
    for number, (vector, background) in enumerate(zip(vectors, backgrounds, strict=True)):
        scores, ids = collection.search(vector, _CANDIDATES, kept)
        for live_range, score in zip(
            collection.live.place(ids).tolist(), _standard(scores, background).tolist(), strict=True
        ):
            events = best.setdefault(live_range, [])
            if len(events) == number:  # the first clip of a video is its best; a video that lacks an event is out
                events.append(score)
    bounds = {video: float(np.mean(events)) for video, events in best.items() if len(events) == len(vectors)}
    yield from sorted(bounds.items(), key=lambda item: (-item[1], item[0]))


def _chains(
    collection: Collection,
    vectors: list[np.ndarray],
    backgrounds: list[Background],
    live_range: int,
    options: SearchOptions,
    kept: np.ndarray | None,
) -> Iterator[Span]:
    """Chains of one video that do not overlap in time, best first."""
    clips = collection.of_video(live_range, kept)
    middles = clips.times_s.mean(axis=1)
    scores = np.stack([scores_of(clips.vectors, vector) for vector in vectors])
    standard = np.stack([_standard(row, background) for row, background in zip(scores, backgrounds, strict=True)])
    ends, parents = best_chains(standard, middles, options.within_s)
    taken: list[tuple[float, float]] = []
    for last in np.argsort(-ends, kind="stable"):
        if not np.isfinite(ends[last]):
            return
        chain = [int(last)]
        for event in reversed(parents):
            chain.insert(0, int(event[chain[0]]))
        start_s, end_s = float(clips.times_s[chain[0], 0]), float(clips.times_s[chain, 1].max())
        if all(end_s <= start or end <= start_s for start, end in taken):
            taken.append((start_s, end_s))
            yield Span(
                score=float(np.mean([scores[event, clip] for event, clip in enumerate(chain)])),
                calibrated=float(ends[last] / len(vectors)),
                live_range=live_range,
                start_s=start_s,
                end_s=end_s,
                peak=int(clips.ids[chain[0]]),
                peak_s=float(middles[chain[0]]),
                clip_ids=tuple(int(clips.ids[clip]) for clip in chain),
            )


def best_chains(scores: np.ndarray, middles_s: np.ndarray, within_s: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """For scores (events, n) of clips in the order of time: the best sum of a chain that ends with each clip, (n,).

    -inf where none does. And for each event but the first the clip that comes before each clip in its best chain.
    """
    best, parents = scores[0].astype(np.float64), []
    for row in scores[1:]:
        ahead, parent = np.full(len(row), -np.inf), np.zeros(len(row), np.int64)
        for step in range(1, len(row)):
            apart_s = middles_s[step:] - middles_s[:-step]
            if not (near := apart_s <= within_s).any():
                break
            better = near & (apart_s > 0) & (best[:-step] > ahead[step:])
            ahead[step:][better] = best[:-step][better]
            parent[step:][better] = np.flatnonzero(better)
        best = ahead + row
        parents.append(parent)
    return best, parents


def _standard(scores: np.ndarray, background: Background) -> np.ndarray:
    """Standard deviations above the mean, float64."""
    return (scores.astype(np.float64) - background.mean) / max(background.deviation, 1e-9)
