"""Templates that labels are put into, as the authors of an encoder use them for a data set."""

from __future__ import annotations

from dataclasses import dataclass

from vidx.encoders._spec import EncoderSpec

# OpenAI's for CLIP (openai/CLIP, data/prompts.md: Kinetics700 and UCF101).
_KINDS = ("photo", "video", "example", "demonstration")
_DOINGS = ("", "using ", "doing ", "during ", "performing ", "practicing ")
_KINETICS = tuple(
    f"a {kind} of {who}{{}}." for who in ("", *(f"a person {doing}" for doing in _DOINGS)) for kind in _KINDS
)
_UCF101 = tuple(
    f"a {kind} of {who} person {doing}{{}}." for doing in _DOINGS for who in ("a", "the") for kind in _KINDS
)
_OF_CLIP = {
    "kinetics400": _KINETICS,
    "kinetics600": _KINETICS,
    "hmdb51": _KINETICS,  # none were published
    "activitynet": _KINETICS,
    "ucf101": _UCF101,
}


@dataclass(frozen=True)
class Prompts:
    """Templates with `{}` where the label goes, and what is averaged over them: `vectors` or `probabilities`."""

    templates: tuple[str, ...]
    averaged: str = "vectors"


def prompts_of(spec: EncoderSpec, label_set: str | None) -> Prompts:
    """Those for one of LABEL_SETS, or, with None, for labels of the user's.

    ActionCLIP's probabilities are a mean over its prompts (sallymmx/ActionCLIP, test.py); of CLIP's prompts the vectors
    are averaged (Radford et al. 2021, section 3.1.4).
    """
    if spec.family == "clip":
        return Prompts(_OF_CLIP.get(label_set or "", ("{}",)))
    averaged = "probabilities" if spec.family == "actionclip" else "vectors"
    return Prompts(spec.templates or ("{}",), averaged)
