"""Pictures of scenes: anti-aliased shapes on a grey and uneven ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidx.train.shapes.scenes import Scene, Thing

_RGB = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (40, 70, 225),
    "yellow": (240, 215, 40),
    "purple": (150, 50, 190),
    "orange": (245, 135, 25),
    "cyan": (40, 205, 215),
    "white": (245, 245, 245),
}
_JITTER = 0.04  # of colours
_GROUND = (0.06, 0.5)
_NOISE = 0.02
_EDGE_PX = 1.0

# Each shape covers as much as a circle of radius 1.
_SQUARE = 0.886  # half its side
_TRIANGLE = 0.777  # the circle inside it
_BAR = (1.15, 0.42)  # half the length and width of a cross's bars
_SIDES = np.radians([90, 210, 330])


@dataclass(frozen=True)
class Look:
    """What is drawn at random beside the scene: the ground, float32 (side, side, 3), and the things' colours."""

    ground: np.ndarray
    colours: tuple[np.ndarray, ...]
    noise: float


def draw_look(random: np.random.Generator, scene: Scene, side: int) -> Look:
    """Ground and colours for pictures of `side` pixels."""
    colours = tuple(
        (np.array(_RGB[thing.colour]) / 255 + random.uniform(-_JITTER, _JITTER, 3)).clip(0, 1).astype(np.float32)
        for thing in scene.things
    )
    return Look(_ground(random, side), colours, float(random.uniform(0, _NOISE)))


def pictures(random: np.random.Generator, scene: Scene, look: Look) -> np.ndarray:
    """uint8 (T, side, side, 3)."""
    side = len(look.ground)
    n_frames = len(scene.things[0].x)
    frames = np.repeat(look.ground[None], n_frames, axis=0)
    middles = ((np.arange(side) + 0.5) / side).astype(np.float32)
    for thing, colour in zip(scene.things, look.colours, strict=True):
        shown = _cover(thing, middles, side) * thing.opacity[:, None, None].astype(np.float32)
        frames += shown[..., None] * (colour - frames)
    frames += random.standard_normal(frames.shape, np.float32) * np.float32(look.noise)
    return (frames.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _cover(thing: Thing, middles: np.ndarray, side: int) -> np.ndarray:
    """How much of each pixel the thing covers, float32 (T, side, side)."""
    radius = thing.radius[:, None, None].astype(np.float32)
    dx = (middles[None, None] - thing.x[:, None, None].astype(np.float32)) / radius
    dy = (middles[None, :, None] - thing.y[:, None, None].astype(np.float32)) / radius
    cos, sin = np.float32(np.cos(thing.tilt)), np.float32(np.sin(thing.tilt))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    pixel = np.float32(side) * radius / np.float32(_EDGE_PX)
    cover: np.ndarray = np.clip(0.5 - _distance(thing.shape, u, v) * pixel, 0, 1)
    return cover


def _distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """From the outline of a shape of radius 1, negative inside; near the outline in units of the radius."""
    match shape:
        case "circle":
            distance: np.ndarray = np.sqrt(u * u + v * v) - 1
            return distance
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) - np.float32(_SQUARE)
        case "triangle":
            sides = [u * np.float32(np.cos(at)) + v * np.float32(np.sin(at)) for at in _SIDES]
            return np.maximum(np.maximum(sides[0], sides[1]), sides[2]) - np.float32(_TRIANGLE)
        case "cross":
            across, along = np.abs(u), np.abs(v)
            long, wide = map(np.float32, _BAR)
            bars = [np.maximum(across - a, along - b) for a, b in ((long, wide), (wide, long))]
            return np.minimum(*bars)
    raise ValueError(f"no shape {shape!r}")


def _ground(random: np.random.Generator, side: int) -> np.ndarray:
    """Grey with a weak tint, a slope of light and two textures, float32 (side, side, 3)."""
    grey = random.uniform(*_GROUND) + random.uniform(-0.03, 0.03, 3)
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, side), np.linspace(-0.5, 0.5, side))
    slope = random.uniform(-0.15, 0.15, 2)
    ground = grey + (slope[0] * across + slope[1] * down)[..., None]
    for cells in (4, 11):
        ground = ground + random.uniform(0, 0.05) * _texture(random, cells, side)[..., None]
    clipped: np.ndarray = ground.clip(0, 1).astype(np.float32)
    return clipped


def _texture(random: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """Noise that changes smoothly from cell to cell, about -1 to 1, (side, side)."""
    corners = random.uniform(-1, 1, (cells + 1, cells + 1))
    at = np.linspace(0, cells, side, endpoint=False)
    low, share = at.astype(int), at % 1
    rows = corners[low] * (1 - share)[:, None] + corners[low + 1] * share[:, None]
    texture: np.ndarray = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return texture
