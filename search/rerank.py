"""Hits scored again from their frames, as an encoder's authors score: for what stored vectors alone can't tell."""

from __future__ import annotations

from dataclasses import replace

from vidx.encoders import VideoTextEncoder
from vidx.errors import InputError, MediaError
from vidx.indexer.frames import frames_of_clip
from vidx.schema.records import Hit
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search.query import Asked


def check_rerank(encoder: VideoTextEncoder, asked: Asked) -> None:
    """Raises InputError where there is nothing that scoring again would add."""
    if len(asked.texts) != 1 or asked.examples or asked.taught or asked.unwanted or asked.then:
        raise InputError("--rerank scores one text alone", hint="give one TEXT, without --like, --not and --then")
    if not hasattr(encoder, "exact_scores"):
        raise InputError(
            f"{encoder.spec.name} scores by its vectors alone; there is nothing to re-rank",
            hint="leave out --rerank, or index with an X-CLIP encoder",
        )


def rerank(
    store: Store, space: Space, encoder: VideoTextEncoder, text: str, ranked: list[tuple[Hit, int]], n: int
) -> tuple[list[tuple[Hit, int]], str]:
    """Hits with their best clips, the first `n` ordered by the exact score of that clip, which becomes the hit's.

    Behind them come those whose files can't be decoded now, and the rest, with their scores as they were. Also says how
    many could not be decoded, or nothing.
    """
    scored, left = [], []
    for hit, clip_id in ranked[:n]:
        try:
            frames = frames_of_clip(store, space.name, clip_id)
        except MediaError:
            left.append((hit, clip_id))
            continue
        score = float(encoder.exact_scores(frames[None], [text])[0, 0])  # type: ignore[attr-defined]
        # Another kind of score than the one that was calibrated.
        scored.append((replace(hit, score=round(score, 6), calibrated=None), clip_id))
    scored.sort(key=lambda pair: (-pair[0].score, pair[1]))
    again = [
        (replace(hit, rank=rank), clip_id) for rank, (hit, clip_id) in enumerate([*scored, *left, *ranked[n:]], start=1)
    ]
    tried = len(scored) + len(left)
    return again, f"{len(left)} of {tried} hits could not be decoded and keep their scores" if left else ""
