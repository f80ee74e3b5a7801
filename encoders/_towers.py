"""CLIP's two towers by open_clip, sized from the tensors of a checkpoint in OpenAI's names (openai/CLIP clip/model.py).

Heads are 64 wide in every published model; a fact says otherwise. Activations are QuickGELU in all that descend from
OpenAI's weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from open_clip.transformer import LayerNorm, QuickGELU, TextTransformer, VisionTransformer
from torch import Tensor, nn

from vidx.encoders._checkpoint import State, layers_in, require
from vidx.errors import WeightsMisfit

HEAD_WIDTH = 64
BLOCKS = "transformer.resblocks."
_EPS = 1e-5

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


def activation_named(name: str | None) -> Callable[[], nn.Module]:
    """QuickGELU for None. Raises WeightsMisfit."""
    if (name or "quick_gelu") not in ACTIVATIONS:
        raise WeightsMisfit(f"there is no activation {name!r} here", hint=f"known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name or "quick_gelu"]


def vision_tower(state: State, what: str, *, heads: int | None, activation: str | None) -> VisionTransformer:
    """A tower on the meta device for pictures (N, 3, side, side), sized by `visual.*` tensors without that prefix."""
    require(("conv1.weight", "positional_embedding", "proj"), state, what)
    width, _, _, patch = state["conv1.weight"].shape
    with torch.device("meta"):
        return VisionTransformer(
            image_size=side_px(state),
            patch_size=patch,
            width=width,
            layers=layers_in(state, BLOCKS),
            heads=heads or width // HEAD_WIDTH,
            mlp_ratio=4.0,
            output_dim=state["proj"].shape[1],
            act_layer=activation_named(activation),
            norm_layer=partial(LayerNorm, eps=_EPS),
        )


def side_px(state: Mapping[str, Tensor]) -> int:
    """Side of the pictures that a vision tower takes."""
    return math.isqrt(state["positional_embedding"].shape[0] - 1) * state["conv1.weight"].shape[-1]


def text_tower(state: State, what: str, *, heads: int | None, activation: str | None) -> TextTransformer:
    """A tower on the meta device for token ids (N, L), sized by the tensors of the text side."""
    require(("token_embedding.weight", "positional_embedding", "text_projection"), state, what)
    vocabulary, width = state["token_embedding.weight"].shape
    with torch.device("meta"):
        tower = TextTransformer(
            context_length=state["positional_embedding"].shape[0],
            vocab_size=vocabulary,
            width=width,
            heads=heads or width // HEAD_WIDTH,
            layers=layers_in(state, BLOCKS),
            output_dim=state["text_projection"].shape[1],
            act_layer=activation_named(activation),
            norm_layer=partial(LayerNorm, eps=_EPS),
        )
    length = tower.context_length  # the mask is no part of a checkpoint
    tower.attn_mask = torch.full((length, length), -math.inf, device=state["text_projection"].device).triu_(1)
    return tower


@dataclass(frozen=True)
class TextSide:
    """A text tower by itself: tensors under OpenAI's names, and what they don't tell."""

    tensors: State
    heads: int
    activation: str


def activation_of(block: Any) -> str:
    """The name in ACTIVATIONS of what a block of open_clip uses. Raises KeyError for anything else."""
    names: dict[type, str] = {QuickGELU: "quick_gelu", nn.GELU: "gelu"}
    return names[type(block.mlp.gelu)]


def unit(features: Tensor) -> Tensor:
    """Rows divided by their L2 norm."""
    return features / features.norm(dim=-1, keepdim=True)
