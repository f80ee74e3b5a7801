"""Encoders, one file per model family. Knows tensors, nothing of files or videos.

A family module exports `NAMES` (name to EncoderSpec) and `build(name)`, and imports torch only inside functions: a
search with `conse` never loads it. Files that start with an underscore are shared parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from vidx.errors import EncoderBroken, UnknownChoice, WeightsMissing
from vidx.plugins import available, load
from vidx.schema.spaces import Space

DEFAULT = "conse"  # of a new store; the only encoder that needs no model hub

_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights: where it comes from, what it must be, and where it lies if it is here."""

    source: str  # what to install or fetch, in words a user can act on
    sha256: str
    size_bytes: int
    path: Path | None


@dataclass(frozen=True)
class EncoderSpec:
    """What is known of an encoder without loading it."""

    name: str
    family: str
    description: str
    licence: str
    space: Space
    weights: tuple[WeightsFile, ...]

    @property
    def is_here(self) -> bool:
        """Whether all its weights are on this machine (their digests are checked when they are loaded)."""
        return all(file.path is not None for file in self.weights)


class VideoTextEncoder(Protocol):
    """Video clips and texts into one space, as NumPy arrays: what they are compared with is NumPy and FAISS."""

    spec: EncoderSpec
    precision: str  # of the video tower, as the indexed table records it

    @property
    def device(self) -> str:
        """Where the video tower runs; asking may load torch."""

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """Takes uint8 (B, T, H, W, 3) of the spec's size; returns float32 (B, dim), rows of unit norm."""

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 (N, dim), rows of unit norm."""


def specs() -> dict[str, EncoderSpec]:
    """Every encoder there is, by name."""
    return {name: spec for family in available("encoders") for name, spec in load("encoders", family).NAMES.items()}


def spec(name: str) -> EncoderSpec:
    """Raises UnknownChoice, naming the encoders there are."""
    family = name.split(":")[0].split("-")[0]  # most names begin with their family; looking there first is quick
    with suppress(UnknownChoice):
        if name in (names := load("encoders", family).NAMES):
            found: EncoderSpec = names[name]
            return found
    known = specs()
    if name not in known:
        raise UnknownChoice(f"no encoder called {name!r}", hint=f"choose from: {', '.join(known)}")
    return known[name]


def here(name: str) -> EncoderSpec:
    """The spec of an encoder that can be used on this machine. Raises UnknownChoice, WeightsMissing."""
    found = spec(name)
    for weights in found.weights:
        if weights.path is None:
            raise WeightsMissing(f"the weights of encoder {name} are not on this machine", hint=weights.source)
    return found


def build(name: str) -> VideoTextEncoder:
    """An encoder ready for use; its weights are read when first needed. Raises UnknownChoice, WeightsMissing."""
    encoder: VideoTextEncoder = load("encoders", spec(name).family).build(name)
    return encoder


def check_vectors(vectors: np.ndarray, frames: np.ndarray, name: str) -> None:
    """Refuse vectors that can't be right: not finite, not of unit norm, or the same for different clips.

    `vectors` (B, dim) float32, `frames` (B, T, H, W, 3) uint8 they were made from. Raises EncoderBroken.
    """
    hint = "nothing wrong was stored; check the weights and the device, or use another --encoder"
    if not np.isfinite(vectors).all():
        raise EncoderBroken(f"encoder {name} returned vectors that are not finite", hint=hint)
    if np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > _NORM_TOLERANCE:
        raise EncoderBroken(f"encoder {name} returned vectors that are not of unit norm", hint=hint)
    other = [clip for clip in range(1, len(frames)) if not np.array_equal(frames[clip], frames[0])]
    if len(other) >= 2 and np.ptp(vectors, axis=0).max() == 0:
        raise EncoderBroken(f"encoder {name} returned one vector for {len(other) + 1} different clips", hint=hint)
