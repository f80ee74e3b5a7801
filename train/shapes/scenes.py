"""What happens in a clip of moving shapes, drawn at random, and which combinations training never sees.

A scene has one object that does something, or two that come together or move apart; beside a single one another may
stand still. Scenes are time-symmetric: reversed in time, every motion is another one or itself, with the same places,
sizes and speeds, so that no single frame tells which of a pair it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
PAIRS = (
    ("left", "right"),
    ("up", "down"),
    ("grow", "shrink"),
    ("appear", "disappear"),
    ("meet", "part"),
)
MOTIONS = (*(motion for pair in PAIRS for motion in pair), "blink", "shake")
REVERSED = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])} | {"blink": "blink", "shake": "shake"}
OF_TWO = ("meet", "part")
STILL = "still"

_HELD_OUT_OF = 8  # one combination of shape, colour and motion in so many is never trained on
_RADIUS = (0.13, 0.19)  # of the side of a picture
_WAY = (0.35, 0.55)
_WAY_TO_MEET = (0.28, 0.36)
_GROWTH = (0.55, 1.4)
_TILT = np.radians(25)


@dataclass(frozen=True)
class Thing:
    """An object at the instants of a clip: arrays (T,), lengths in sides of a picture, y downwards."""

    shape: str
    colour: str
    motion: str
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    opacity: np.ndarray  # 0 to 1
    tilt: float  # by which the shape is turned, in radians


@dataclass(frozen=True)
class Content:
    """What a caption may tell of a thing."""

    shape: str
    colour: str
    motion: str


@dataclass(frozen=True)
class Scene:
    """The things of a clip, the one that acts first."""

    things: tuple[Thing, ...]

    @property
    def contents(self) -> tuple[Content, ...]:
        """What each thing is and does."""
        return tuple(Content(thing.shape, thing.colour, thing.motion) for thing in self.things)


def is_held_out(content: Content) -> bool:
    """Whether training never sees this shape in this colour do this: 48 of 384 combinations.

    Of the four shapes of a colour and a motion at most one is held out, so that colour and motion tell little of it;
    of each shape, colour and motion as many as of another.
    """
    if content.motion == STILL:
        return False
    place = 2 * SHAPES.index(content.shape) + COLOURS.index(content.colour) + MOTIONS.index(content.motion)
    return place % _HELD_OUT_OF == 0


def draw_contents(random: np.random.Generator, held_out: bool | None = None) -> tuple[Content, ...]:
    """Contents of a scene; with or without a combination that is held out, None for either."""
    while True:
        motion = str(random.choice(MOTIONS))
        colours = [str(colour) for colour in random.choice(COLOURS, 2, replace=False)]
        shapes = [str(shape) for shape in random.choice(SHAPES, 2)]
        others = motion in OF_TWO or random.random() < 0.5
        contents: tuple[Content, ...] = (Content(shapes[0], colours[0], motion),)
        if others:
            contents += (Content(shapes[1], colours[1], motion if motion in OF_TWO else STILL),)
        if held_out is None or held_out == any(map(is_held_out, contents)):
            return contents


def draw_scene(random: np.random.Generator, contents: tuple[Content, ...], times: np.ndarray) -> Scene:
    """A scene with these contents at `times` from 0 to 1, float (T,)."""
    motion = contents[0].motion
    radii = random.uniform(*_RADIUS, len(contents))
    progress = _progress(random, times)
    if motion in OF_TWO:
        return Scene(_two(random, contents, radii, progress if motion == "meet" else 1 - progress))
    thing = _moved(random, contents[0], radii[0], times, progress)
    if len(contents) == 1:
        return Scene((thing,))
    return Scene((thing, _beside(random, contents[1], radii[1], thing)))


def _progress(random: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """From 0 to 1, evenly or slower at both ends."""
    ease = random.uniform(0, 1)
    progress: np.ndarray = (1 - ease) * times + ease * (3 * times**2 - 2 * times**3)
    return progress


def _at_rest(random: np.random.Generator, content: Content, radius: float, times: np.ndarray) -> Thing:
    """A thing somewhere in the picture."""
    x, y = random.uniform(radius + 0.02, 0.98 - radius, 2)
    full = np.ones(len(times))
    tilt = float(random.uniform(-_TILT, _TILT))
    return Thing(content.shape, content.colour, content.motion, x * full, y * full, radius * full, full, tilt)


def _moved(
    random: np.random.Generator, content: Content, radius: float, times: np.ndarray, progress: np.ndarray
) -> Thing:
    thing, motion = _at_rest(random, content, radius, times), content.motion
    match motion:
        case "left" | "right" | "up" | "down":
            way = random.uniform(*_WAY)
            middle = random.uniform(0.5 - (0.98 - way) / 2 + radius, 0.5 + (0.98 - way) / 2 - radius)
            along = middle + way * (progress - 0.5) * (1 if motion in ("right", "down") else -1)
            across = thing.y + random.uniform(-0.05, 0.05) * (progress - 0.5)
            return (
                replace(thing, x=along, y=across) if motion in ("left", "right") else replace(thing, x=across, y=along)
            )
        case "grow" | "shrink":
            small, large = _GROWTH
            share = progress if motion == "grow" else 1 - progress
            x, y = random.uniform(radius * large + 0.02, 0.98 - radius * large, 2)
            full = np.ones_like(times)
            return replace(thing, x=x * full, y=y * full, radius=radius * (small + (large - small) * share))
        case "appear" | "disappear":
            switch, ramp = random.uniform(0.3, 0.7), random.uniform(0.02, 0.2)
            shown = np.clip((times - switch) / ramp + 0.5, 0, 1)
            return replace(thing, opacity=shown if motion == "appear" else 1 - shown)
        case "blink":
            cycles, phase = random.uniform(1.8, 2.6), random.uniform(0, 1)
            return replace(thing, opacity=((times * cycles + phase) % 1 < 0.5).astype(float))
        case "shake":
            cycles, phase = random.uniform(1.8, 2.6), random.uniform(0, 2 * np.pi)
            reach = random.uniform(0.09, 0.13)
            middle = random.uniform(radius + reach + 0.02, 0.98 - radius - reach)
            return replace(thing, x=middle + reach * np.sin(2 * np.pi * cycles * times + phase))
    raise ValueError(f"no motion {motion!r} of one thing")


def _beside(random: np.random.Generator, content: Content, radius: float, other: Thing) -> Thing:
    """A thing at rest, of some places the one that the other keeps furthest away from."""
    tried = [_at_rest(random, content, radius, other.x) for _ in range(12)]
    return max(tried, key=lambda thing: float(np.hypot(thing.x - other.x, thing.y - other.y).min()))


def _two(
    random: np.random.Generator, contents: tuple[Content, ...], radii: np.ndarray, progress: np.ndarray
) -> tuple[Thing, ...]:
    """Two things on a line, from far apart to side by side."""
    radii = 0.85 * radii
    near = 1.05 * radii.sum()
    distance = near + random.uniform(*_WAY_TO_MEET) * (1 - progress)
    direction = random.uniform(0, 2 * np.pi)
    ahead = np.array([np.cos(direction), np.sin(direction)])
    reach = np.abs(ahead) * distance.max() / 2 + radii.max()
    centre = random.uniform(np.minimum(reach, 0.5), np.maximum(1 - reach, 0.5))
    things = []
    for side, content, radius in zip((-0.5, 0.5), contents, radii, strict=True):
        thing = _at_rest(random, content, float(radius), progress)
        x, y = (centre[axis] + side * distance * ahead[axis] for axis in (0, 1))
        things.append(replace(thing, x=x, y=y))
    return tuple(things)
