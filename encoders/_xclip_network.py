"""X-CLIP by transformers, sized from the tensors of a checkpoint in either form (microsoft/VideoX X-CLIP/models)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import XCLIPConfig, XCLIPModel, XCLIPTextConfig, XCLIPVisionConfig

from vidx.encoders._checkpoint import State, assign, layers_in, require
from vidx.encoders._facts import Facts
from vidx.encoders._names import from_transformers
from vidx.encoders._towers import HEAD_WIDTH, TextSide, activation_named, unit
from vidx.errors import WeightsMisfit

_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_PLACES = "vision_model.embeddings.position_embedding.weight"
_TOKENS = "text_model.embeddings.token_embedding.weight"
_TEXT_PLACES = "text_model.embeddings.position_embedding.weight"
_FRAMES = "mit.position_embedding"


class XCLIPNetwork(nn.Module):
    """Frames exchange messages in the vision tower; texts are adjusted to each video by its patches."""

    model: Any  # XCLIPModel; its settings are typed as what they may be, too, before it is made

    def __init__(self, model: XCLIPModel) -> None:
        super().__init__()
        self.model = model

    @property
    def frames(self) -> int:
        """How many frames a video has; no other number works."""
        count: int = self.model.config.vision_config.num_frames
        return count

    @property
    def side_px(self) -> int:
        """Of the square pictures it takes."""
        side: int = self.model.config.vision_config.image_size
        return side

    @property
    def patch_px(self) -> int:
        """Of the square patches it sees a picture in."""
        side: int = self.model.config.vision_config.patch_size
        return side

    @property
    def dim(self) -> int:
        """Of its features."""
        width: int = self.model.config.projection_dim
        return width

    @property
    def logit_scale(self) -> Tensor:
        """Its logarithm, a scalar."""
        scale: Tensor = self.model.logit_scale
        return scale

    def towers(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Frame features (B, T, d), and the patch context (B, P, d) that texts are adjusted by.

        Takes normalised pictures (B, T, 3, side, side). Section 3.2 and 3.3 of the paper (arXiv:2208.02816).
        """
        model, batch = self.model, len(pixels)
        seen = model.vision_model(pixel_values=pixels.flatten(0, 1))
        frames = model.visual_projection(seen.pooler_output).unflatten(0, (batch, -1))
        patches = model.prompts_visual_layernorm(seen.last_hidden_state[:, 1:]) @ model.prompts_visual_projection
        return frames, patches.unflatten(0, (batch, -1)).mean(dim=1)

    def integrated(self, frames: Tensor) -> Tensor:
        """Frame features (B, T, d) to video features (B, d)."""
        features: Tensor = self.model.mit(frames).pooler_output
        return features

    def video_features(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, T, 3, side, side) to (B, d), not of unit norm."""
        return self.integrated(self.towers(pixels)[0])

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L), int64 and ended by the largest, to (N, d), not of unit norm; the same for all videos."""
        features: Tensor = self.model.text_projection(self.model.text_model(input_ids=tokens).pooler_output)
        return features

    def text_side(self) -> TextSide:
        """The text tower by itself."""
        parts, config = ("text_model.", "text_projection."), self.model.config.text_config
        own = {key: tensor for key, tensor in self.model.state_dict().items() if key.startswith(parts)}
        return TextSide(from_transformers(own), config.num_attention_heads, config.hidden_act)

    def adjusted(self, texts: Tensor, context: Tensor) -> Tensor:
        """Text features (N, d) as each video sees them: (B, N, d), by its patch context (B, P, d)."""
        repeated = texts.expand(len(context), -1, -1)
        prompts: Tensor = self.model.prompts_generator(repeated, context)
        return repeated + prompts

    def logits(self, videos: Tensor, adjusted: Tensor) -> Tensor:
        """Cosines (B, N) of video features and adjusted texts, times the learned scale."""
        return self.logit_scale.exp() * torch.einsum("bd,bnd->bn", unit(videos), unit(adjusted))


class FrameMeanNetwork(XCLIPNetwork):
    """A network of one frame, for clips of any number: each frame alone, then the mean of their features."""

    frames = None  # type: ignore[assignment]  # whatever a clip has

    def integrated(self, frames: Tensor) -> Tensor:
        """Frame features (B, T, d) to video features (B, d)."""
        return super().integrated(frames.flatten(0, 1)[:, None]).unflatten(0, (len(frames), -1)).mean(dim=1)


def xclip_network(state: State, what: str, facts: Facts) -> XCLIPNetwork:
    """A network that has exactly these tensors, under transformers' names. Raises WeightsMisfit."""
    state = {key: tensor for key, tensor in state.items() if not key.endswith("position_ids")}
    require((_PATCHES, _PLACES, _TOKENS, _TEXT_PLACES, _FRAMES, "visual_projection.weight"), state, what)
    with torch.device("meta"):
        model = XCLIPModel(_config(state, facts))
    device = state[_PATCHES].device
    for embeddings, key in ((model.vision_model.embeddings, _PLACES), (model.text_model.embeddings, _TEXT_PLACES)):
        # Counts that are no part of a checkpoint.
        places: Any = torch.arange(state[key].shape[0], device=device).expand(1, -1)
        embeddings.position_ids = places
    assign(model, state, what)
    return XCLIPNetwork(model)


def _config(state: State, facts: Facts) -> XCLIPConfig:
    width, _, _, patch = state[_PATCHES].shape
    vocabulary, text_width = state[_TOKENS].shape
    _, frames, dim = state[_FRAMES].shape
    if facts.frames not in (None, frames):
        raise WeightsMisfit(f"these weights are for {frames} frames, not {facts.frames}", hint="see `vidx encoders`")
    activation_named(facts.activation)
    vision = XCLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers_in(state, "vision_model.encoder.layers."),
        num_attention_heads=facts.vision_heads or width // HEAD_WIDTH,
        image_size=math.isqrt(state[_PLACES].shape[0] - 1) * patch,
        patch_size=patch,
        num_frames=frames,
        mit_hidden_size=dim,
        mit_intermediate_size=4 * dim,
        mit_num_hidden_layers=layers_in(state, "mit.encoder.layers."),
        mit_num_attention_heads=facts.header_heads or dim // HEAD_WIDTH,
        hidden_act=facts.activation or "quick_gelu",
    )
    text = XCLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=layers_in(state, "text_model.encoder.layers."),
        num_attention_heads=facts.text_heads or text_width // HEAD_WIDTH,
        max_position_embeddings=state[_TEXT_PLACES].shape[0],
        hidden_act=facts.activation or "quick_gelu",
    )
    return XCLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=dim,
        prompt_layers=layers_in(state, "prompts_generator.decoder."),
        prompt_num_attention_heads=facts.header_heads or dim // HEAD_WIDTH,
        prompt_hidden_act=facts.activation or "quick_gelu",
    )
