"""X-CLIP: frames exchange messages inside the vision tower, texts are adjusted to each video.

Ni et al. 2022 (arXiv:2208.02816); microsoft/VideoX X-CLIP/models/xclip.py, by transformers' XCLIPModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidx.encoders import EncoderSpec
from vidx.encoders._registry import registered

if TYPE_CHECKING:
    from torch import Tensor

    from vidx.encoders._xclip_encoder import XCLIPEncoder
    from vidx.encoders._xclip_network import XCLIPNetwork

_WHAT = "X-CLIP checkpoint"

NAMES = registered("xclip")


def build(spec: EncoderSpec) -> XCLIPEncoder:
    """The encoder; its files are read when it is first used."""
    from vidx.encoders._xclip_encoder import XCLIPEncoder

    return XCLIPEncoder(spec, from_state_dict)


def from_state_dict(state: Mapping[str, Any], *, text_state: None = None, **facts: Any) -> XCLIPNetwork:
    """A network from a released file as it was loaded, in the authors' or transformers' names.

    Facts: vision_heads, text_heads, header_heads, activation. Raises WeightsMisfit.
    """
    from vidx.encoders._facts import Facts
    from vidx.encoders._layouts import section
    from vidx.encoders._names import is_transformers, to_transformers
    from vidx.encoders._xclip_network import xclip_network

    tensors = section(state, "model", "state_dict")
    return xclip_network(tensors if is_transformers(tensors) else to_transformers(tensors), _WHAT, Facts(**facts))


def reference_outputs(
    network: XCLIPNetwork, inputs: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What a reference file holds after `output.`; the videos given are the views of `multiview_probs_sum`."""
    from vidx.encoders._towers import unit

    frames, context = network.towers(inputs["frames"])
    videos, texts = network.integrated(frames), network.text_features(inputs["token_ids"])
    adjusted = network.adjusted(texts, context)
    logits = network.logits(videos, adjusted)
    return {
        "frame_features": frames,
        "patch_context": context,
        "video_features": videos,
        "video_features_norm": unit(videos),
        "text_features": texts,
        "text_features_norm": unit(texts),
        "video_conditioned_text_features": adjusted,
        "video_conditioned_text_features_norm": unit(adjusted),
        "logits": logits,
        "probs": logits.softmax(dim=1),
        "multiview_probs_sum": logits.softmax(dim=1).sum(dim=0, keepdim=True),
    }
