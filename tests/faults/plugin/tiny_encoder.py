"""Encoders without weights, for tests: the same frames give the same vector, to the last bit, in any batch.

A vector is made of the sums of pixels over the cells of a coarse grid, in whole numbers until it is normalised. Two
environment variables, both for tests: TINY_RECORD names a file that gets one line of JSON per clip with the digest of
the very frames that were embedded; TINY_DELAY_S is slept through for each clip.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence

import numpy as np

from vidx.encoders import EncoderSpec
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

_CELLS = 4
_COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0), "white": (255,) * 3}


def _spec(name: str, frames: int, px: int) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        family="tiny",
        description="where a clip is how bright and of which colour; knows the names of five colours",
        licence="Apache-2.0",
        space=Space(
            encoder=name,
            weights={"video": hashlib.sha256(b"tiny 1").hexdigest()},
            preprocess=Preprocess(short_side_px=px, crop_px=px),
            frames=frames,
            pooling="none",
            dim=frames * _CELLS * _CELLS * 3 + 1,
        ),
        weights=(),
    )


NAMES = {"tiny": _spec("tiny", 3, 32), "tiny-5": _spec("tiny-5", 5, 48)}


def build(spec: EncoderSpec) -> Tiny:
    """The encoder of a spec."""
    return Tiny(spec)


class Tiny:
    """See `vidx.encoders.VideoTextEncoder`."""

    precision = "float32"
    device = "cpu"

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (B, T, h, w, 3) to float32 (B, dim), rows of unit norm."""
        vectors = _vectors(frames)
        for clip, vector in zip(frames, vectors, strict=True):
            time.sleep(float(os.environ.get("TINY_DELAY_S", "0")))
            _record(clip, vector)
        return vectors

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """The vector of a clip that is plain and of the colour named, grey for other words."""
        colours = np.array([_COLOURS.get(text, (128, 128, 128)) for text in texts], np.uint8)
        frames, px = self.spec.space.frames, self.spec.space.preprocess.crop_px
        return _vectors(np.broadcast_to(colours[:, None, None, None], (len(texts), frames, px, px, 3)))


def digest(frames: np.ndarray) -> str:
    """Of one clip, uint8 (T, h, w, 3): its shape and every pixel."""
    return hashlib.sha256(repr(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()


def _vectors(frames: np.ndarray) -> np.ndarray:
    n_clips, n_frames, px = frames.shape[:3]
    side = px // _CELLS
    cells = frames.reshape(n_clips, n_frames, _CELLS, side, _CELLS, side, 3).sum(axis=(3, 5), dtype=np.int64)
    signed = cells.reshape(n_clips, -1) - side * side * 127.5
    constant = np.full((len(frames), 1), side * side * 127.5)  # else greys that differ in brightness alone were one
    whole = np.concatenate([signed, constant], axis=1)
    return (whole / np.sqrt((whole**2).sum(axis=1, keepdims=True))).astype(np.float32)


def _record(clip: np.ndarray, vector: np.ndarray) -> None:
    if path := os.environ.get("TINY_RECORD"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"frames": digest(clip), "vector": vector.tobytes().hex()}) + "\n")
