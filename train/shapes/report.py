"""What an encoder makes of a pool of `shapes`: how often captions find their clips, and what it tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidx.encoders import VideoTextEncoder
from vidx.indexer.frames import Look, looked_at
from vidx.indexer.sampling import Sampling
from vidx.train.shapes.captions import colour_prompts, motion_prompts, shape_prompts, whole_caption
from vidx.train.shapes.pool import PoolClip
from vidx.train.shapes.scenes import COLOURS, MOTIONS, PAIRS, REVERSED, SHAPES, Content

_AT_ONCE = 16


def clip_vectors(encoder: VideoTextEncoder, pool: Sequence[PoolClip]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (N, d) of the files of a pool, decoded, and of the same frames the other way round."""
    look = Look(Sampling("centres", encoder.spec.space.frames), encoder.spec.space.preprocess)
    straight, turned = [], []
    for seen in looked_at((clip.path, (look,)) for clip in pool):
        if not seen.views:
            raise ValueError(f"a clip of the pool can't be decoded: {seen.reason}")
        straight.append(encoder.encode_video(seen.views[0]))
        turned.append(encoder.encode_video(np.ascontiguousarray(seen.views[0][:, ::-1])))
    return np.concatenate(straight), np.concatenate(turned)


def figures_of(encoder: VideoTextEncoder, pool: Sequence[PoolClip]) -> dict[str, float]:
    """Recall, motions, shapes and colours among the prompts for each, pairs; all and held out (`/held_out`)."""
    videos, turned = clip_vectors(encoder, pool)
    held_out = np.array([clip.is_held_out for clip in pool])
    figures: dict[str, float] = {"cosine_to_reversed": float((videos * turned).sum(axis=1).mean())}
    ranks = _ranks(encoder, videos, pool)
    for count in (1, 5, 10):
        figures |= _parted(f"recall_{count}", ranks < count, held_out)
    for name, right in _told(encoder, videos, pool).items():
        figures |= _parted(name, right, held_out)
    return figures | _pairs(encoder, videos, turned, pool)


def _ranks(encoder: VideoTextEncoder, videos: np.ndarray, pool: Sequence[PoolClip]) -> np.ndarray:
    """How many clips stand before the one that each caption belongs to."""
    scores = encoder.encode_text([clip.text for clip in pool]) @ videos.T
    ranks: np.ndarray = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return ranks


def _told(encoder: VideoTextEncoder, videos: np.ndarray, pool: Sequence[PoolClip]) -> dict[str, np.ndarray]:
    """Whether the nearest prompt is right: of all motions; of shapes and colours, NaN where there are two things."""
    told = {}
    kinds = (
        ("motion", motion_prompts(), MOTIONS),
        ("shape", shape_prompts(), SHAPES),
        ("colour", colour_prompts(), COLOURS),
    )
    for field, prompts, names in kinds:
        nearest = (videos @ encoder.encode_text(prompts).T).argmax(axis=1)
        wanted = [names.index(getattr(clip.contents[0], field)) for clip in pool]
        told[field] = (nearest == np.array(wanted)).astype(float)
        if field != "motion":
            told[field][[len(clip.contents) > 1 for clip in pool]] = np.nan
    return told


def _pairs(
    encoder: VideoTextEncoder, videos: np.ndarray, turned: np.ndarray, pool: Sequence[PoolClip]
) -> dict[str, float]:
    """Of clips of each pair of motions, and of the same played backwards: how often the true caption is nearer.

    Nearer than the one with the motion reversed. What can't tell a clip from its reversal is right in exactly half.
    """
    true = encoder.encode_text([clip.text for clip in pool])
    false = encoder.encode_text([whole_caption(_reversed(clip.contents)).text for clip in pool])
    right = np.stack([((true - false) * videos).sum(axis=1), ((false - true) * turned).sum(axis=1)])
    figures = {}
    for pair in PAIRS:
        of_pair = np.array([clip.contents[0].motion in pair for clip in pool])
        figures[f"pair/{pair[0]}-{pair[1]}"] = float((right[:, of_pair] > 0).mean())
        figures[f"pair_clips/{pair[0]}-{pair[1]}"] = float(right[:, of_pair].size)
    return figures


def _reversed(contents: tuple[Content, ...]) -> tuple[Content, ...]:
    return tuple(replace(content, motion=REVERSED.get(content.motion, content.motion)) for content in contents)


def _parted(name: str, right: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    parts = {name: right, f"{name}/held_out": right[held_out], f"{name}/seen": right[~held_out]}
    return {part: float(np.nanmean(values)) for part, values in parts.items()}
