"""CLIP frame by frame and the mean over frames: the baseline that knows no time.

Radford et al. 2021 (arXiv:2103.00020); openai/CLIP clip/model.py, by open_clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from vidx.encoders import EncoderSpec
from vidx.encoders._registry import registered
from vidx.errors import UnknownChoice

if TYPE_CHECKING:
    from torch import Tensor

    from vidx.encoders._frames_network import FramesNetwork
    from vidx.encoders._network_encoder import NetworkEncoder
    from vidx.encoders._open_clip import OpenClipNetwork

_WHAT = "CLIP checkpoint"

NAMES = registered("clip")


def named(name: str) -> EncoderSpec:
    """The spec of clip:MODEL/PRETRAINED, any model that open_clip knows. Raises UnknownChoice."""
    if ":" in name.removeprefix("clip:"):  # open_clip would fetch hf-hub:... here, and read local-dir:...
        raise UnknownChoice(
            f"{name} is none of open_clip's own models", hint="it is clip:MODEL/PRETRAINED, as clip:ViT-B-32/openai"
        )
    from vidx.encoders._open_clip import spec_of

    return spec_of(name)


def bring_tokenizer(spec: EncoderSpec) -> None:
    """Fetch what texts need beside the weights. Raises WeightsMissing."""
    if spec.name not in NAMES:
        from vidx.encoders._open_clip import bring_tokenizer

        bring_tokenizer(spec.name)


def build(spec: EncoderSpec) -> NetworkEncoder:
    """The encoder; its files are read when it is first used."""
    from vidx.encoders._network_encoder import NetworkEncoder

    return NetworkEncoder(spec, _mean_of_units if spec.name in NAMES else partial(_of_open_clip, spec.name))


def _mean_of_units(state: Mapping[str, Any], *, text_state: None = None) -> FramesNetwork:
    """A network whose head is the one of retrieval: every frame counts as much, however long its vector."""
    from vidx.encoders._heads import MeanOfUnits

    network = from_state_dict(state)
    network.head = MeanOfUnits()
    return network


def _of_open_clip(name: str, state: Mapping[str, Any], *, text_state: None = None) -> OpenClipNetwork:
    from vidx.encoders._open_clip import network_of

    return network_of(name, state)


def from_state_dict(state: Mapping[str, Any], *, text_state: None = None, **facts: Any) -> FramesNetwork:
    """A network from a released file as it was loaded, in OpenAI's or transformers' names; its head is the mean.

    Facts: vision_heads, text_heads, activation. Raises WeightsMisfit.
    """
    from vidx.encoders._facts import Facts
    from vidx.encoders._frames_network import frames_network
    from vidx.encoders._layouts import clip_alone, clip_sides

    sides = clip_sides(clip_alone(state, _WHAT), _WHAT)
    return frames_network(_WHAT, Facts(**facts), **vars(sides), head={})


def reference_outputs(
    network: FramesNetwork, inputs: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What a reference file holds after `output.`: two ways of pooling, raw frames or frames of unit norm."""
    from vidx.encoders._heads import Mean, MeanOfUnits
    from vidx.encoders._towers import unit

    frames, texts = network.frame_features(inputs["frames"]), network.text_features(inputs["token_ids"])
    outputs = {
        "frame_features": frames,
        "frame_features_norm": unit(frames),
        "frame_logits": network.logits(frames, texts),
        "text_features": texts,
        "text_features_norm": unit(texts),
    }
    for name, pooling in (("mean_then_norm", Mean()), ("norm_then_mean_then_norm", MeanOfUnits())):
        outputs[f"video_features_{name}"] = unit(pooling(frames))
        outputs[f"logits_{name}"] = network.logits(pooling(frames), texts)
    return outputs
