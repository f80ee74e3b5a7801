"""Networks that hand single frames, encoded by CLIP's vision tower, to a head: CLIP, Text4Vis, ActionCLIP."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from vidx.encoders._checkpoint import State, assign
from vidx.encoders._facts import Facts
from vidx.encoders._heads import ANY_FRAMES, EPS_ORIGINAL, POSITIONS, check_head, head_from
from vidx.encoders._temporal import BLOCK_SHIFT, TOKEN_CONVOLUTION, JointTower, make_temporal
from vidx.encoders._towers import HEAD_WIDTH, TextSide, activation_of, side_px, text_tower, unit, vision_tower
from vidx.errors import WeightsMisfit


class FramesNetwork(nn.Module):
    """`visual` encodes pictures, `head` a video's frames, `text` token ids. A joint tower encodes videos by itself.

    `frames`: how many a video must have; None where any number goes.
    """

    def __init__(
        self, visual: nn.Module, head: nn.Module, text: TextTransformer | None, frames: int | None = None
    ) -> None:
        super().__init__()
        self.visual, self.head, self.text, self.frames = visual, head, text, frames
        self.logit_scale = nn.Parameter(torch.empty((), device="meta"))

    @property
    def is_joint(self) -> bool:
        """Whether there are no features of single frames."""
        return isinstance(self.visual, JointTower)

    @property
    def side_px(self) -> int:
        """Of the square pictures it takes."""
        return side_px(self.visual.state_dict())

    @property
    def patch_px(self) -> int:
        """Of the square patches it sees a picture in."""
        side: int = self.visual.state_dict()["conv1.weight"].shape[-1]
        return side

    @property
    def dim(self) -> int:
        """Of its features."""
        tower: Any = self.visual
        width: int = tower.proj.shape[1]
        return width

    def frame_features(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, T, 3, side, side) to (B, T, d), not of unit norm."""
        features: Tensor = self.visual(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        return features

    def video_features(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, T, 3, side, side) to (B, d), not of unit norm."""
        features: Tensor
        features = self.visual(pixels.flatten(0, 1)) if self.is_joint else self.head(self.frame_features(pixels))
        return features

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L), int64 and ended by the largest, to (N, d), not of unit norm. Raises WeightsMisfit."""
        if self.text is None:
            raise WeightsMisfit("these weights have no text tower", hint="give those of the CLIP they were made from")
        missing = self.text.context_length - tokens.shape[1]
        features: Tensor = self.text(nn.functional.pad(tokens, (0, missing)))  # whose mask has its full length
        return features

    def text_side(self) -> TextSide | None:
        """The text tower by itself, if there is one."""
        if self.text is None:
            return None
        activation = activation_of(self.text.transformer.resblocks[0])
        return TextSide(dict(self.text.state_dict()), self.text.heads, activation)

    def logits(self, videos: Tensor, texts: Tensor) -> Tensor:
        """Cosines (B, N) of features, times the learned scale."""
        return self.logit_scale.exp() * unit(videos) @ unit(texts).T


def frames_network(
    what: str,
    facts: Facts,
    *,
    visual: State,
    text: State | None,
    scale: Tensor,
    head: State,
    left: State,
    eps: float = EPS_ORIGINAL,
) -> FramesNetwork:
    """A network that has exactly these tensors, each without its prefix; `left` must be empty. Raises WeightsMisfit."""
    tower: nn.Module = vision_tower(visual, what, heads=facts.vision_heads, activation=facts.activation)
    if (choice := facts.temporal or _temporal_of(visual)) is not None:
        make_temporal(tower, choice, _frames(facts, what))
    if "time_embedding" in visual:
        tower = JointTower(tower, len(visual["time_embedding"]))
    texts = None
    if text is not None:
        texts = text_tower(text, what, heads=facts.text_heads, activation=facts.activation)
    heads = facts.header_heads or facts.text_heads or _text_heads(text, tower)
    header = head_from(head, what, heads=heads, eps=eps)
    check_head(header, facts.header, what)
    network = FramesNetwork(tower, header, texts, _fixed_frames(visual, head, facts))
    parts = {"visual": visual, "head": head, "text": text or {}}
    state = {f"{part}.{key}": tensor for part, tensors in parts.items() for key, tensor in tensors.items()}
    assign(network, {**state, **left, "logit_scale": scale}, what)
    return network


def _temporal_of(visual: State) -> str | None:
    if any(".net." in key for key in visual):
        return BLOCK_SHIFT
    return TOKEN_CONVOLUTION if any("control_point." in key for key in visual) else None


def _fixed_frames(visual: State, head: State, facts: Facts) -> int | None:
    """Of networks whose blocks or whose positions count on it."""
    if "time_embedding" in visual:
        return len(visual["time_embedding"])
    if "transformer.pos_embed" in head:
        return head["transformer.pos_embed"].shape[1] - 1
    positions = head.get(POSITIONS)
    if positions is not None and len(positions) != ANY_FRAMES:
        return len(positions)
    return facts.frames if (facts.temporal or _temporal_of(visual)) else None


def _frames(facts: Facts, what: str) -> int:
    if facts.frames is None:
        raise WeightsMisfit(
            f"how many frames this {what} looks at is not in its weights", hint="give the fact `frames`"
        )
    return facts.frames


def _text_heads(text: State | None, tower: Any) -> int:
    """Heads of the header: those of the text tower, which has the header's width in every released model."""
    if text is not None:
        return text["ln_final.weight"].shape[0] // HEAD_WIDTH
    width: int = tower.proj.shape[1]
    return max(1, width // HEAD_WIDTH)
