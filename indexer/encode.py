"""Decoded clips to vectors, in full batches across videos, for each space of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vidx.encoders import VideoTextEncoder, check_vectors
from vidx.indexer.answers import Answer, Clip, Ended, Opened
from vidx.indexer.jobs import Job, Settled
from vidx.indexer.still import Extent, is_still
from vidx.schema.records import DecodedClip

_PATIENCE = 8  # a batch goes before it is full once so many times its size wait for it, as still clips may
_NO_VECTOR = np.empty(0, np.float32)


@dataclass(frozen=True)
class EncodedClip:
    """Clip `number` of a job's plan with its vector in a space, float32 (dim,), unit norm; the pixels are gone."""

    job: Job
    space: str
    number: int
    start_s: float
    end_s: float
    frame_pts: tuple[int, ...]
    frame_pts_s: tuple[float, ...]
    vector: np.ndarray
    thumbnail: bytes | None
    thumbnail_pts: int
    damaged: bool = False  # see Clip


def encode(
    answers: Iterable[Answer | Settled],
    encoders: Mapping[str, VideoTextEncoder],
    batch_size: int,
    *,
    skip_still: bool = False,
) -> Iterator[Opened | EncodedClip | Ended | Settled]:
    """Replace every Clip by an EncodedClip for each part of its job; `encoders` are by the name of the space.

    The answers of a job stay in order; all else passes at once. With `skip_still`, a clip that is still against the
    last encoded one of its video gets the vector of that. Raises EncoderBroken when the vectors can't be right.
    """
    references: dict[tuple[str, str], _Source] = {}  # by video_id and space, of jobs under way
    waiting: list[_Waiting | Opened | Ended] = []
    batches: dict[str, list[_Source]] = {space: [] for space in encoders}
    for answer in answers:
        if isinstance(answer, Clip):
            for part, view in zip(answer.job.parts, answer.views, strict=True):
                key = answer.job.video_id, part.space
                source = _source(view.pixels, references, key) if skip_still else _Source(view.pixels)
                if source.vector is not None:
                    yield _encoded(answer, part.space, view, source.vector)
                    continue
                waiting.append(_Waiting(_encoded(answer, part.space, view, _NO_VECTOR), source))
                if source not in batches[part.space]:
                    batches[part.space].append(source)
        elif isinstance(answer, Opened | Ended):
            for part in answer.job.parts:
                references.pop((answer.job.video_id, part.space), None)
            if any(earlier.job == answer.job for earlier in waiting):
                waiting.append(answer)  # behind the clips of its job
            else:
                yield answer
        else:
            yield answer
            continue
        is_full = any(len(batch) == batch_size for batch in batches.values())
        if is_full or len(waiting) >= _PATIENCE * batch_size * len(encoders):
            yield from _with_vectors(waiting, batches, encoders)
            waiting, batches = [], {space: [] for space in encoders}
    yield from _with_vectors(waiting, batches, encoders)


@dataclass(eq=False)
class _Source:
    """What one vector is made of; `pixels` are gone once it is there."""

    pixels: np.ndarray | None
    extent: Extent | None = None  # where still clips are looked for
    vector: np.ndarray | None = None


@dataclass(frozen=True)
class _Waiting:
    """A clip whose vector is not there yet."""

    clip: EncodedClip
    source: _Source

    @property
    def job(self) -> Job:
        return self.clip.job


def _source(pixels: np.ndarray, references: dict[tuple[str, str], _Source], key: tuple[str, str]) -> _Source:
    """The reference of a clip's video if the clip is still against it; else the clip itself, the next reference."""
    extent, reference = Extent.of(pixels), references.get(key)
    if reference is not None and reference.extent is not None and is_still(extent, reference.extent):
        return reference
    references[key] = source = _Source(pixels, extent)
    return source


def _with_vectors(
    waiting: list[_Waiting | Opened | Ended],
    batches: dict[str, list[_Source]],
    encoders: Mapping[str, VideoTextEncoder],
) -> Iterator[Opened | EncodedClip | Ended]:
    for space, batch in batches.items():
        if not batch:
            continue
        frames = np.stack([source.pixels for source in batch if source.pixels is not None])
        vectors = encoders[space].encode_video(frames)
        check_vectors(vectors, frames, encoders[space].spec.name)
        for source, vector in zip(batch, vectors, strict=True):
            source.pixels, source.vector = None, vector
    for item in waiting:
        if isinstance(item, _Waiting):
            assert item.source.vector is not None
            yield replace(item.clip, vector=item.source.vector)
        else:
            yield item


def _encoded(answer: Clip, space: str, clip: DecodedClip, vector: np.ndarray) -> EncodedClip:
    return EncodedClip(
        job=answer.job,
        space=space,
        number=answer.number,
        start_s=clip.start_s,
        end_s=clip.end_s,
        frame_pts=clip.frame_pts,
        frame_pts_s=clip.frame_pts_s,
        vector=vector,
        thumbnail=clip.thumbnail,
        thumbnail_pts=clip.thumbnail_pts,
        damaged=answer.damaged,
    )
