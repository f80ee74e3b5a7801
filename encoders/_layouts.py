"""Where in a released file which tensors lie: sections, prefixes, and a CLIP's two sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidx.encoders._checkpoint import State
from vidx.encoders._names import from_transformers, is_transformers
from vidx.errors import WeightsMisfit

SCALARS = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's archives; tensors' shapes say it too
TEXT_PARTS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


def section(loaded: Mapping[str, Any], *names: str) -> State:
    """The tensors of the first section there is of these names, else of the file itself.

    Every `module.` in a name is left out: it comes from how the network was trained.
    """
    found = next((loaded[name] for name in (*names, "") if isinstance(loaded.get(name), Mapping)), loaded)
    return {str(key).replace("module.", ""): value for key, value in found.items() if isinstance(value, Tensor)}


def clip_alone(loaded: Mapping[str, Any], what: str) -> State:
    """The tensors of a file that holds a CLIP and nothing beside it. Raises WeightsMisfit."""
    if "fusion_model_state_dict" in loaded:
        raise WeightsMisfit(f"this is no {what}: it has a temporal head beside the CLIP", hint="see `vidx encoders`")
    return section(loaded, "state_dict", "model_state_dict")


def below(state: State, prefix: str) -> State:
    """The tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class ClipSides:
    """A whole CLIP, its vision tower's names without `visual.`; `left` is what belongs to neither side."""

    visual: State
    text: State
    scale: Tensor
    left: State


def clip_sides(state: State, what: str) -> ClipSides:
    """Split a CLIP in OpenAI's or transformers' names. Raises WeightsMisfit."""
    if is_transformers(state):
        state = from_transformers(state)
    if "logit_scale" not in state:
        raise WeightsMisfit(f"this is no {what}, or it was cut: it lacks logit_scale", hint="see `vidx encoders`")
    text = {key: tensor for key, tensor in state.items() if key.startswith(TEXT_PARTS)}
    known = {*text, *SCALARS, "logit_scale"}
    left = {key: tensor for key, tensor in state.items() if key not in known and not key.startswith("visual.")}
    return ClipSides(below(state, "visual."), text, state["logit_scale"], left)
