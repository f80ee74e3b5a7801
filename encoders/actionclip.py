"""ActionCLIP: both CLIP towers trained on clips and templated labels, a temporal head behind the vision tower.

Wang et al. 2021 (arXiv:2109.08472); sallymmx/ActionCLIP modules/Visual_Prompt.py, and the port in open-mmlab/mmaction2
projects/actionclip, whose head has another LayerNorm and as many positions as frames.
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

_WHAT = "ActionCLIP checkpoint"
_HEAD = "fusion_model."  # before a head's tensors in one section with the rest, as `vidx train` writes them
_UNUSED = "data_preprocessor."  # colours, which MMEngine may save beside a network

NAMES = registered("actionclip")


def build(spec: EncoderSpec) -> NetworkEncoder:
    """The encoder; its files are read when it is first used."""
    from vidx.encoders._network_encoder import NetworkEncoder

    return NetworkEncoder(spec, from_state_dict, frames=spec.space.frames, header=RELEASED_HEAD)


def from_state_dict(state: Mapping[str, Any], *, text_state: None = None, **facts: Any) -> FramesNetwork:
    """A network from a released file of either kind as it was loaded, or from one of `vidx train actionclip`.

    Facts: frames (for tsm), vision_heads, text_heads, header_heads, activation, temporal. Raises WeightsMisfit.
    """
    from vidx.encoders._facts import Facts
    from vidx.encoders._frames_network import frames_network
    from vidx.encoders._heads import EPS_MMACTION2
    from vidx.encoders._layouts import below, clip_sides, section

    tensors = section(state, "model_state_dict", "state_dict")
    if not (port := below(tensors, "clip.")):
        head = below(tensors, _HEAD)
        if "fusion_model_state_dict" in state:
            head |= section(state["fusion_model_state_dict"])
        own = {key: tensor for key, tensor in tensors.items() if not key.startswith(_HEAD)}
        return frames_network(_WHAT, Facts(**facts), **vars(clip_sides(own, _WHAT)), head=head)
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(("clip.", "adapter.", _UNUSED))}
    sides = vars(clip_sides(port, _WHAT))
    sides["left"] = {**sides["left"], **rest}
    return frames_network(_WHAT, Facts(**facts), **sides, head=below(tensors, "adapter."), eps=EPS_MMACTION2)


def reference_outputs(
    network: FramesNetwork, inputs: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What a reference file holds after `output.`; token rows are prompt-major, video rows video-major."""
    from vidx.encoders._towers import unit

    pixels = inputs["frames"]
    videos, texts = network.video_features(pixels), network.text_features(inputs["token_ids"])
    similarity = TEST_SCALE * unit(videos) @ unit(texts).T
    by_prompt = similarity.unflatten(1, (facts.get("prompts") or 1, -1)).softmax(dim=2)
    by_view = by_prompt.unflatten(0, (-1, facts.get("views") or 1))
    return {
        "frame_features": network.frame_features(pixels),
        "video_features": videos,
        "video_features_norm": unit(videos),
        "video_features_reversed": network.video_features(pixels.flip(1)),
        "text_features": texts,
        "text_features_norm": unit(texts),
        "similarity_x100": similarity,
        "probs": by_view.mean(dim=(1, 2)),
        "train_logits": network.logits(videos, texts),
    }
