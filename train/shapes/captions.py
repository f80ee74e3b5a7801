"""Captions of scenes, whole or with parts left out, in several wordings; and which scenes a caption fits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np

from vidx.train.shapes.scenes import COLOURS, MOTIONS, OF_TWO, SHAPES, Content

_SHAPE_WORDS = {
    "circle": ("circle", "disc", "round shape"),
    "square": ("square", "box"),
    "triangle": ("triangle", "triangular shape"),
    "cross": ("cross", "plus sign"),
}
_COLOUR_WORDS = {
    "red": ("red", "scarlet"),
    "green": ("green",),
    "blue": ("blue", "dark blue"),
    "yellow": ("yellow",),
    "purple": ("purple", "violet"),
    "orange": ("orange",),
    "cyan": ("cyan", "turquoise"),
    "white": ("white",),
}
_SOMETHING = ("something", "a shape", "an object", "a thing")
# Finite and participle; the first is how captions of pools and prompts for motions say it.
_MOTION_PHRASES = {
    "left": (("moves to the left", "moving to the left"), ("goes left", "going left"), ("slides left", "sliding left")),
    "right": (
        *(("moves to the right", "moving to the right"), ("goes right", "going right")),
        ("slides right", "sliding right"),
    ),
    "up": (("moves up", "moving up"), ("rises", "rising"), ("goes upwards", "going upwards")),
    "down": (("moves down", "moving down"), ("sinks", "sinking"), ("goes downwards", "going downwards")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger"), ("expands", "expanding")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller"), ("contracts", "contracting")),
    "appear": (("appears", "appearing"), ("shows up", "showing up"), ("comes into view", "coming into view")),
    "disappear": (("disappears", "disappearing"), ("vanishes", "vanishing"), ("goes away", "going away")),
    "blink": (("blinks", "blinking"), ("flashes", "flashing"), ("goes on and off", "going on and off")),
    "shake": (("shakes", "shaking"), ("swings to and fro", "swinging to and fro")),
    "meet": (
        ("come together", "coming together"),
        ("meet", "meeting"),
        ("approach each other", "approaching each other"),
    ),
    "part": (("move apart", "moving apart"), ("separate", "separating"), ("leave each other", "leaving each other")),
}
_BESIDE = ("and {} stands still", "next to {} that stands still", "beside a resting {bare}", "while {} does not move")
_PREFIXES = ("", "", "", "a video of ", "a clip of ", "an animation of ", "there is ")
_Word = TypeVar("_Word", str, tuple[str, str])
_FULL = 0.55  # share of captions that leave nothing out
_KEPT = 0.6  # how likely others keep a part


@dataclass(frozen=True)
class Told:
    """What a caption says of a thing; None: nothing."""

    shape: str | None
    colour: str | None
    motion: str | None

    def fits(self, content: Content) -> bool:
        """Whether it is true of a thing."""
        pairs = ((self.shape, content.shape), (self.colour, content.colour), (self.motion, content.motion))
        return all(told in (None, real) for told, real in pairs)


@dataclass(frozen=True)
class Caption:
    """A text, and what it says of each thing it names, the one that acts first."""

    text: str
    told: tuple[Told, ...]

    def fits(self, contents: tuple[Content, ...]) -> bool:
        """Whether it is true of a scene: of each thing named there is one, another one each."""
        ways = permutations(contents, len(self.told))
        return any(all(told.fits(content) for told, content in zip(self.told, way, strict=True)) for way in ways)


def whole_caption(contents: tuple[Content, ...]) -> Caption:
    """All there is to say, in plain words, always the same."""
    told = tuple(Told(content.shape, content.colour, content.motion) for content in contents)
    first = f"{_article(told[0].colour)} {told[0].colour} {told[0].shape}"
    says = _MOTION_PHRASES[contents[0].motion][0][0]
    if len(told) == 1:
        return Caption(f"{first} {says}", told)
    second = f"{_article(told[1].colour)} {told[1].colour} {told[1].shape}"
    if contents[0].motion in OF_TWO:
        return Caption(f"{first} and {second} {says}", told)
    return Caption(f"{first} {says} and {second} stands still", told)


def motion_prompts() -> list[str]:
    """One for each of MOTIONS, without shape or colour."""
    return [("two shapes " if motion in OF_TWO else "a shape ") + _MOTION_PHRASES[motion][0][0] for motion in MOTIONS]


def shape_prompts() -> list[str]:
    """One for each of SHAPES."""
    return [f"a {shape}" for shape in SHAPES]


def colour_prompts() -> list[str]:
    """One for each of COLOURS."""
    return [f"{_article(colour)} {colour} shape" for colour in COLOURS]


def draw_caption(random: np.random.Generator, contents: tuple[Content, ...]) -> Caption:
    """A caption in one of many wordings that may leave parts out, or the thing at rest."""
    is_full = random.random() < _FULL
    motion = contents[0].motion
    named = len(contents)
    if not is_full and motion not in OF_TWO and random.random() < 0.5:
        named = 1
    told = []
    for content in contents[:named]:
        keeps = [is_full or random.random() < _KEPT for _ in range(3)]
        if motion in OF_TWO:
            keeps[2] = True  # else nothing says that both do the same
        told.append(Told(*(value if keep else None for value, keep in zip(vars(content).values(), keeps, strict=True))))
    if told[1:] == [Told(None, None, None)]:  # "something" beside it
        del told[1]
    return Caption(_worded(random, tuple(told)), tuple(told))


def _worded(random: np.random.Generator, told: tuple[Told, ...]) -> str:
    motion = told[0].motion
    prefix = str(random.choice(_PREFIXES))
    first = _noun(random, told[0])
    form = 1 if prefix else int(random.integers(2))
    says = "" if motion is None else " " + _pick(random, _MOTION_PHRASES[motion])[form]
    if len(told) == 1:
        return f"{prefix}{first}{says}"
    second = _noun(random, told[1])
    if motion in OF_TWO:
        first, second = (first, second) if random.random() < 0.5 else (second, first)
        return f"{prefix}{first} and {second}{says}"
    beside = str(random.choice(_BESIDE)).format(second, bare=second.partition(" ")[2] or "object")
    if told[1].motion is None:
        beside = str(random.choice(("next to {}", "beside {}", "with {}"))).format(second)
    return f"{prefix}{first}{says} {beside}"


def _noun(random: np.random.Generator, told: Told) -> str:
    """A thing with its article."""
    if told.shape is None and told.colour is None:
        return str(random.choice(_SOMETHING))
    shape = (
        str(random.choice(("shape", "object", "thing")))
        if told.shape is None
        else _pick(random, _SHAPE_WORDS[told.shape])
    )
    if told.colour is None:
        return f"{_article(shape)} {shape}"
    colour = _pick(random, _COLOUR_WORDS[told.colour])
    return f"{_article(colour)} {colour} {shape}"


def _pick(random: np.random.Generator, choices: tuple[_Word, ...]) -> _Word:
    """The first half of the time, else any other: the plain wording is known best."""
    return choices[0 if len(choices) == 1 or random.random() < 0.5 else int(random.integers(1, len(choices)))]


def _article(word: str | None) -> str:
    return "an" if word and word[0] in "aeiou" else "a"
