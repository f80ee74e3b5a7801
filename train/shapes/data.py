"""Batches to train on, each a pure function of a seed and its number: clips, captions, and what is true of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidx.train.shapes.captions import Caption, draw_caption
from vidx.train.shapes.drawing import draw_look, pictures
from vidx.train.shapes.scenes import COLOURS, MOTIONS, SHAPES, STILL, Content, Scene, draw_contents, draw_scene

FRAMES = 8
SIDE_PX = 64
NOTHING = -1  # of a field: a caption does not tell it, a scene has no such thing
FIELDS = (SHAPES, COLOURS, (*MOTIONS, STILL))
_TIME_JITTER = 0.3  # of the way to the next frame
_TIME_SHIFT = 0.2
_BELOW = 4  # the last bits of a seed tell streams of random numbers apart


@dataclass(frozen=True)
class Clips:
    """Pictures uint8 (N, T, side, side, 3), and of each scene two things' FIELDS by number, int64 (N, 2, 3)."""

    pictures: np.ndarray
    contents: np.ndarray
    scenes: tuple[Scene, ...]


def stream(seed: int, *numbers: int) -> np.random.Generator:
    """Random numbers that depend on nothing but these."""
    return np.random.default_rng([seed, *numbers])


def frame_times(random: np.random.Generator | None = None, frames: int = FRAMES) -> np.ndarray:
    """The middles of equal parts of a clip, from 0 to 1; with `random` not quite."""
    places = np.arange(frames) + 0.5
    if random is not None:
        places = (
            places + random.uniform(-_TIME_JITTER, _TIME_JITTER, frames) + random.uniform(-_TIME_SHIFT, _TIME_SHIFT)
        )
    return (places / frames).clip(0, 1)


def clips(
    random: np.random.Generator, n: int, *, frames: int = FRAMES, side: int = SIDE_PX, held_out: bool = False
) -> Clips:
    """Scenes without what is held out of training, or all with it; with one frame it is one of any time."""
    scenes, shown = [], np.empty((n, frames, side, side, 3), np.uint8)
    for at in range(n):
        times = random.uniform(0, 1, 1) if frames == 1 else frame_times(random, frames)
        scene = draw_scene(random, draw_contents(random, held_out=held_out), times)
        shown[at] = pictures(random, scene, draw_look(random, scene, side))
        scenes.append(scene)
    return Clips(shown, numbers_of([scene.contents for scene in scenes]), tuple(scenes))


def numbers_of(scenes: Sequence[tuple[Content, ...]]) -> np.ndarray:
    """FIELDS of two things each by number, int64 (N, 2, 3)."""
    return _numbers([[tuple(vars(content).values()) for content in contents] for contents in scenes])


def told_numbers(captions: Sequence[Caption]) -> np.ndarray:
    """What captions tell, int64 (N, 2, 3)."""
    return _numbers([[tuple(vars(told).values()) for told in caption.told] for caption in captions])


def _numbers(rows: Sequence[Sequence[tuple[str | None, ...]]]) -> np.ndarray:
    numbers = np.full((len(rows), 2, len(FIELDS)), NOTHING, np.int64)
    for row, things in enumerate(rows):
        for thing, values in enumerate(things):
            for field, value in enumerate(values):
                if value is not None:
                    numbers[row, thing, field] = FIELDS[field].index(value)
    return numbers


def captions_of(random: np.random.Generator, scenes: Sequence[Scene]) -> list[Caption]:
    """One for each."""
    return [draw_caption(random, scene.contents) for scene in scenes]


def fitting(told: np.ndarray, contents: np.ndarray) -> np.ndarray:
    """Which captions (N, 2, 3) are true of which scenes (M, 2, 3): bool (N, M). See `Caption.fits`."""

    def true_of(thing: np.ndarray, of: np.ndarray) -> np.ndarray:
        fits: np.ndarray = ((thing[:, None] == NOTHING) | (thing[:, None] == of[None])).all(axis=-1)
        return fits

    first, second = told[:, 0], told[:, 1]
    straight = true_of(first, contents[:, 0]) & true_of(second, contents[:, 1])
    crossed = true_of(first, contents[:, 1]) & true_of(second, contents[:, 0])
    return straight | crossed
