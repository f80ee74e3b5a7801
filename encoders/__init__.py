"""Encoders, one file per model family. Knows tensors, nothing of files or videos.

A family module exports `NAMES` (name to EncoderSpec) and `build(spec)`, and imports torch only inside functions: a
search with `conse` never loads it. One whose names are not all known beforehand also has `named(name)`, for
FAMILY:REST; one that needs more than its weights `bring_tokenizer(spec)`. Files that start with an underscore are
shared parts.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.encoders._trained import PREFIX, is_trained, is_trained_folder, spec_named, spec_of_space
from vidx.encoders._weights import resolved
from vidx.errors import EncoderBroken, InputError, UnknownChoice, WeightsMisfit
from vidx.plugins import available, load
from vidx.schema.spaces import Space

__all__ = ["EncoderSpec", "VideoTextEncoder", "WeightsFile", "is_trained_folder"]

DEFAULT = "xclip-base-patch32"  # of a new store, where its weights are here or can be had
FALLBACK = "conse"  # else; it needs no model hub

_NORM_TOLERANCE = 1e-3


class VideoTextEncoder(Protocol):
    """Video clips and texts into one space, as NumPy arrays: what they are compared with is NumPy and FAISS."""

    spec: EncoderSpec
    precision: str  # of the video tower, as the indexed table records it

    @property
    def device(self) -> str:
        """Where the video tower runs; asking may load torch."""

    @property
    def logit_scale(self) -> float:
        """What cosines with labels are multiplied with before a softmax over them."""

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """Takes uint8 (B, T, H, W, 3) of the spec's size; returns float32 (B, dim), rows of unit norm."""

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 (N, dim), rows of unit norm."""


def specs() -> dict[str, EncoderSpec]:
    """Every encoder there is, by name; those of open families (clip:MODEL/PRETRAINED) apart."""
    return {name: spec for family in available("encoders") for name, spec in load("encoders", family).NAMES.items()}


def spec(name: str) -> EncoderSpec:
    """What is known of an encoder; X-CLIP's may be named as on Hugging Face, one that was trained here by its folder.

    Raises UnknownChoice, naming like ones, InputError, WeightsMissing or WeightsDamaged for such a folder.
    """
    if is_trained(name):
        return spec_named(name)
    name = name.removeprefix("microsoft/")
    family = name.split(":")[0].split("-")[0]  # most names begin with their family; looking there first is quick
    module = None
    with suppress(UnknownChoice):
        module = load("encoders", family)
    if module is not None and name in module.NAMES:
        found: EncoderSpec = module.NAMES[name]
        return found
    if ":" in name and hasattr(module, "named"):
        made: EncoderSpec = module.named(name)  # type: ignore[union-attr]
        return made
    known = specs()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, 4, cutoff=0.5) or [DEFAULT, FALLBACK]
        raise UnknownChoice(
            f"no encoder called {name!r}", hint=f"choose one that `vidx encoders` lists, as {', '.join(close)}"
        )
    return known[name]


def known_as(name: str) -> str:
    """The name that a space has for an encoder: of one that was trained here `trained:` and its folder's.

    Raises UnknownChoice.
    """
    if is_trained_folder(name):
        return PREFIX + Path(name).absolute().name
    return name if name.startswith(PREFIX) else spec(name).name


def here(name: str, weights: Sequence[Path] = ()) -> EncoderSpec:
    """The spec of an encoder that can be used on this machine, its weights found or given.

    Raises UnknownChoice, InputError, WeightsMissing, WeightsAltered.
    """
    found = spec(name)
    if found.classifies:
        raise InputError(f"{name} gives labels, not vectors to search", hint=f"take {DEFAULT} or {FALLBACK} to search")
    return resolved(found, weights)


def of_space(space: Space) -> EncoderSpec:
    """The spec of the encoder that made a space, with the very files it was made with, wherever they lie now.

    They may be gone: texts need them only once. What it would make may still be another space. Raises UnknownChoice,
    and WeightsMissing for one that was trained here and is gone.
    """
    if is_trained(space.encoder):
        return spec_of_space(space)
    return resolved(spec(space.encoder), digests=space.weights)


def build(spec: EncoderSpec) -> VideoTextEncoder:
    """An encoder ready for use, from a spec that `here` or `of_space` returned; weights are read when first needed."""
    encoder: VideoTextEncoder = load("encoders", spec.family).build(spec)
    return encoder


def try_out(spec: EncoderSpec) -> None:
    """Encode a text and a clip, so that what is wrong with files of weights shows before anything is written.

    Raises WeightsError.
    """
    encoder, side_px = build(spec), spec.space.preprocess.crop_px
    texts = encoder.encode_text(["a trial"])
    videos = encoder.encode_video(np.zeros((1, spec.space.frames, side_px, side_px, 3), np.uint8))
    if texts.shape[1] != videos.shape[1]:
        raise WeightsMisfit(
            f"the weights for texts give {texts.shape[1]} dimensions, those for videos {videos.shape[1]}",
            hint="give those of the CLIP that the encoder was made from",
        )


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
