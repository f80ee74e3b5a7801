"""How the authors of each family of encoders test: which frames, views and prompts, and what is averaged when.

Where implementations disagree, and what was published: docs/explanation/evaluation.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vidx.encoders import EncoderSpec
from vidx.encoders._prompts import prompts_of
from vidx.errors import InputError
from vidx.indexer.frames import Look
from vidx.indexer.sampling import RULES, Sampling
from vidx.pixels import OPENCV, SQUASH
from vidx.schema.records import Preprocess

POOLINGS = ("mean", "unit-mean", "scores")
FUSIONS = ("features", "probabilities", "similarities")

# By family: the rule for one view, that for several clips, and what is averaged over views.
_RULES = {
    "text4vis": ("starts", "shifted", "features"),  # datasets/video.py, test.py
    "xclip": ("centres", "drawn", "probabilities"),  # datasets/pipeline.py, main.py
    "actionclip": ("middles", "interleaved", "probabilities"),  # datasets/datasets.py; its several clips are not told
    "clip": ("starts", "interleaved", "similarities"),
}
_OTHERS = ("centres", "interleaved", "similarities")
_MMACTION2 = "clip-mmaction2"  # how the colours of that port are normalised, by which it is known
_PERSON = ("a video of a person {}.",)


@dataclass(frozen=True)
class Protocol:
    """A test, whole. `pooling` is None for encoders that make one vector of a clip by themselves.

    Pooling of frame vectors: `mean` of them as they are; `unit-mean` of unit vectors, made of unit norm again;
    `scores`: each frame's cosines, averaged. Fusion of views averages `features` as they are, `probabilities` or
    `similarities`. `averaged` is what is averaged over prompts: vectors or probabilities.
    """

    look: Look
    pooling: str | None
    fusion: str
    templates: tuple[str, ...]
    averaged: str
    scale: float | None = None  # of cosines before the softmax; None: the encoder's own

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        sampling, preprocess = self.look.sampling, self.look.preprocess
        return {
            "frames": sampling.frames,
            "sampling": sampling.rule,
            "views": f"{sampling.clips}x{preprocess.crops}",
            "short_side_px": preprocess.short_side_px,
            "crop_px": preprocess.crop_px,
            "filter": preprocess.filter,
            "pooling": self.pooling or "of the network",
            "fusion": self.fusion,
            "templates": list(self.templates),
            "averaged_over_templates": self.averaged,
        }


@dataclass(frozen=True)
class Wish:
    """What the user wants otherwise than the authors of an encoder; None leaves it to them."""

    views: tuple[int, int] = (1, 1)  # clips, crops
    frames: int | None = None
    sampling: str | None = None
    pooling: str | None = None
    fusion: str | None = None
    templates: tuple[str, ...] = ()
    frames_per_s: float | None = None


AS_AUTHORS = Wish()


def protocol_of(spec: EncoderSpec, wish: Wish, label_set: str | None = None) -> Protocol:
    """The test of an encoder, on one of the published label sets or on labels of the user's.

    Raises InputError for what the encoder can't do.
    """
    of_frames = spec.family == "clip"
    if wish.frames not in (None, spec.space.frames) and not of_frames:
        raise InputError(
            f"{spec.name} looks at {spec.space.frames} frames, not {wish.frames}", hint="leave out --frames"
        )
    if wish.pooling is not None and not of_frames:
        raise InputError(f"{spec.name} pools its frames by itself", hint="leave out --pooling")
    one, several, fusion = _RULES.get(spec.family, _OTHERS)
    if spec.space.normalise == _MMACTION2:
        one = "centres"
    clips, crops = wish.views
    rule = wish.sampling or (one if clips == 1 else several)
    try:
        sampling = Sampling(rule, wish.frames or spec.space.frames, clips, wish.frames_per_s)
    except ValueError as error:
        raise InputError(str(error), hint=f"choose --sampling from: {', '.join(RULES)}") from error
    prompts = prompts_of(spec, label_set)
    return Protocol(
        look=Look(sampling, _prepared(spec, crops)),
        pooling=(wish.pooling or "scores") if of_frames else None,
        fusion=wish.fusion or fusion,
        templates=wish.templates or (_PERSON if of_frames else prompts.templates),
        averaged=prompts.averaged,
        scale=spec.test_scale or (100.0 if of_frames else None),
    )


def _prepared(spec: EncoderSpec, crops: int) -> Preprocess:
    """The full-size path of a space; mmcv's three crops start from the short side itself."""
    preprocess = replace(spec.space.preprocess, shrink_to=0, crops=crops)
    if crops == 3 and preprocess.filter.startswith(SQUASH):
        raise InputError(f"{spec.name} sees pictures made square; there are no three crops of them", hint="use Cx1")
    if crops == 3 and preprocess.filter == OPENCV:
        return replace(preprocess, short_side_px=preprocess.crop_px)
    return preprocess
