"""Text4Vis: CLIP's vision tower and a temporal transformer, trained against fixed text vectors.

Wu et al. 2023 (arXiv:2207.01297); whwu95/Text4Vis modules/video_clip.py. Its checkpoints hold no text tower: that of
the CLIP they were made from serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidx.encoders import EncoderSpec
from vidx.encoders._registry import RELEASED_HEAD, TEST_SCALE, registered

if TYPE_CHECKING:
    from torch import Tensor

    from vidx.encoders._frames_network import FramesNetwork
    from vidx.encoders._network_encoder import NetworkEncoder

_WHAT, _BASE = "Text4Vis checkpoint", "CLIP checkpoint"

NAMES = registered("text4vis")


def build(spec: EncoderSpec) -> NetworkEncoder:
    """The encoder; its files are read when it is first used."""
    from vidx.encoders._network_encoder import NetworkEncoder

    return NetworkEncoder(spec, from_state_dict, frames=spec.space.frames, header=RELEASED_HEAD)


def from_state_dict(
    state: Mapping[str, Any], *, text_state: Mapping[str, Any] | None = None, **facts: Any
) -> FramesNetwork:
    """A network from a released file as it was loaded; `text_state` is the base CLIP, whole or its text side.

    Without it the network encodes videos only, unless the file has a text tower, as those of `train_nce.py` do. Facts:
    frames (for tsm, tokenshift and tokent1d), vision_heads, text_heads, header_heads, activation, temporal. Raises
    WeightsMisfit.
    """
    from vidx.encoders._facts import Facts
    from vidx.encoders._frames_network import frames_network
    from vidx.encoders._layouts import below, clip_alone, clip_sides, section

    tensors = section(state, "model_state_dict")
    head = below(tensors, "fusion_model.")
    if "fusion_model_state_dict" in state:
        head |= section(state, "fusion_model_state_dict")
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith("fusion_model.")}
    sides = clip_sides(own, _WHAT)
    parts = vars(sides) | {"text": sides.text or None}
    if text_state is not None:
        parts["text"] = clip_sides(clip_alone(text_state, _BASE), _BASE).text
    return frames_network(_WHAT, Facts(**facts), **parts, head=head)


def reference_outputs(
    network: FramesNetwork, inputs: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What a reference file holds after `output.`; the videos given are the views of `multiview_probs_scale100`."""
    from vidx.encoders._towers import unit

    pixels = inputs["frames"]
    videos, texts = network.video_features(pixels), network.text_features(inputs["token_ids"])
    views = videos.mean(dim=0, keepdim=True)
    outputs = {
        "video_features": videos,
        "video_features_norm": unit(videos),
        "video_features_reversed": network.video_features(pixels.flip(1)),
        "text_features": texts,
        "text_features_norm": unit(texts),
        "logits": network.logits(videos, texts),
        "probs_scale100": (TEST_SCALE * unit(videos) @ unit(texts).T).softmax(dim=1),
        "multiview_probs_scale100": (TEST_SCALE * unit(views) @ unit(texts).T).softmax(dim=1),
    }
    return outputs if network.is_joint else {**outputs, "frame_features": network.frame_features(pixels)}
