"""Decoded clips to vectors, in full batches across videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vidx.encoders import VideoTextEncoder, check_vectors
from vidx.indexer.decode import Answer, Clip, Ended, Opened
from vidx.indexer.probe import Job, Settled
from vidx.schema.records import DecodedClip


@dataclass(frozen=True)
class EncodedClip:
    """A clip with its vector, float32 (dim,), unit norm; the pixels are gone."""

    job: Job
    start_s: float
    end_s: float
    frame_pts: tuple[int, ...]
    frame_pts_s: tuple[float, ...]
    vector: np.ndarray
    thumbnail: bytes | None
    thumbnail_pts: int
    damaged: bool = False  # see Clip


def encode(
    answers: Iterable[Answer | Settled], encoder: VideoTextEncoder, batch_size: int
) -> Iterator[Opened | EncodedClip | Ended | Settled]:
    """Replace every Clip by an EncodedClip. The answers of a job stay in order; all else passes at once.

    Raises EncoderBroken when the vectors can't be right.
    """
    waiting: list[Answer] = []
    n_clips = 0
    for answer in answers:
        if isinstance(answer, Clip):
            waiting.append(answer)
            n_clips += 1
        elif isinstance(answer, Opened | Ended) and any(earlier.job == answer.job for earlier in waiting):
            waiting.append(answer)  # behind the clips of its job
        else:
            yield answer
        if n_clips == batch_size:
            yield from _encode_batch(waiting, encoder)
            waiting, n_clips = [], 0
    yield from _encode_batch(waiting, encoder)


def _encode_batch(waiting: list[Answer], encoder: VideoTextEncoder) -> Iterator[Opened | EncodedClip | Ended]:
    clips = [answer.clip for answer in waiting if isinstance(answer, Clip)]
    vectors = iter(_vectors(clips, encoder))
    for answer in waiting:
        yield _encoded(answer, next(vectors)) if isinstance(answer, Clip) else answer


def _vectors(clips: list[DecodedClip], encoder: VideoTextEncoder) -> np.ndarray:
    if not clips:
        return np.empty((0, encoder.spec.space.dim), np.float32)
    frames = np.stack([clip.pixels for clip in clips])
    vectors = encoder.encode_video(frames)
    check_vectors(vectors, frames, encoder.spec.name)
    return vectors


def _encoded(answer: Clip, vector: np.ndarray) -> EncodedClip:
    clip = answer.clip
    return EncodedClip(
        job=answer.job,
        start_s=clip.start_s,
        end_s=clip.end_s,
        frame_pts=clip.frame_pts,
        frame_pts_s=clip.frame_pts_s,
        vector=vector,
        thumbnail=clip.thumbnail,
        thumbnail_pts=clip.thumbnail_pts,
        damaged=answer.damaged,
    )
