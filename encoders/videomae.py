"""VideoMAE: closed-set classifiers of 16 frames, by transformers.

Tong et al. 2022 (arXiv:2203.12602), from MCG-NJU/VideoMAE by the weights on Hugging Face, of which only files that are
on this machine are used: fetched before (`vidx encoders fetch`), or found in the cache of Hugging Face's own tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders._registry import registered, spec_from
from vidx.encoders._spec import EncoderSpec
from vidx.encoders._weights import damaged_hint, resolved
from vidx.errors import UnknownChoice, WeightsDamaged, WeightsMisfit, WeightsMissing
from vidx.pixels import IMAGENET

if TYPE_CHECKING:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

NAMES = registered("videomae")

_FAMILY = "videomae"
_WHAT = "VideoMAE classifier"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # of a repository at Hugging Face
_RENAMED = {".attention.q_bias": ".attention.query.bias", ".attention.v_bias": ".attention.value.bias"}


def from_state_dict(state: Mapping[str, Any], *, config: Mapping[str, Any]) -> VideoMAEForVideoClassification:
    """A network of transformers from its tensors, older names included, and what its config.json says.

    Takes (B, frames, 3, side, side) with ImageNet's mean and deviation. Raises WeightsMisfit.
    """
    import torch
    from transformers import VideoMAEForVideoClassification

    from vidx.encoders._checkpoint import assign
    from vidx.encoders._layouts import section

    settings = _settings(config)
    try:
        with torch.device("meta"):
            network = VideoMAEForVideoClassification(settings)
    except (ValueError, ArithmeticError) as error:
        raise _misfit(error) from error
    embeddings = network.videomae.embeddings
    # Neither a parameter nor a buffer: no file holds it, and what was made on the meta device may hold nothing.
    embeddings.position_embeddings = torch.from_numpy(position_table(embeddings.num_patches, settings.hidden_size))
    assign(network, _new_names(section(state)), _WHAT)
    return network


def position_table(n_tokens: int, width: int) -> np.ndarray:
    """Sines at even and cosines at odd channels, float32 (1, n_tokens, width).

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5; MCG-NJU/VideoMAE modeling_finetune.py.
    """
    channels = np.arange(width)
    angles = np.arange(n_tokens)[:, None] / 10000 ** (2 * (channels // 2) / width)
    return np.where(channels % 2, np.cos(angles), np.sin(angles)).astype(np.float32)[None]


class VideoMAEClassifier:
    """Says which of its classes a video shows; labels are those of its config."""

    def __init__(self, network: VideoMAEForVideoClassification) -> None:
        named = dict(network.config.id2label or {})
        self.labels = [label for _, label in sorted(named.items(), key=lambda item: int(item[0]))]
        self._network = network

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities float32 (B, classes) of clips, uint8 (B, T, side, side, 3) RGB.

        T and side are those of the network, 16 and 224 in all that are published. Raises ValueError.
        """
        from vidx.encoders._classifier import colours, probabilities

        size = (self._network.config.num_frames, *self._network.videomae.embeddings.patch_embeddings.image_size)
        if frames.shape[1:4] != size:
            raise ValueError(f"this network takes (T, height, width) of {size}, not {frames.shape[1:4]}")
        return probabilities(self._network(pixel_values=colours(frames, IMAGENET, self._network)).logits)


def from_folder(folder: Path) -> VideoMAEClassifier:
    """The classifier in a folder as Hugging Face lays it out: config.json and model.safetensors.

    Raises WeightsMissing, WeightsDamaged, WeightsMisfit.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise WeightsMissing(f"{folder} has no {name}", hint=f"a {_WHAT} is {_CONFIG} and {_WEIGHTS}")
    return _from_files(folder / _CONFIG, folder / _WEIGHTS)


def named(name: str) -> EncoderSpec:
    """The spec of `videomae:ID` for any id at Hugging Face, taken to be as the published ones. Raises UnknownChoice."""
    model = name.removeprefix(f"{_FAMILY}:")
    if not _ID.fullmatch(model) or ".." in model:
        raise UnknownChoice(f"{model!r} is no id at Hugging Face", hint=f"choose from: {', '.join(NAMES)}")
    facts = {"family": _FAMILY, "recipe": _FAMILY, "frames": 16, "side_px": 224, "dim": 0, "parameters": 0}
    addresses = {"address": f"hf://{model}/{_WEIGHTS}", "config": f"hf://{model}/{_CONFIG}"}
    return spec_from(name, {**facts, **addresses, "trained_on": "what its page says", "licence": "see its page"})


def from_name(name: str) -> VideoMAEClassifier:
    """The classifier `videomae:ID`, ID being an id at Hugging Face whose files are on this machine; nothing is fetched.

    Raises UnknownChoice, WeightsMissing, WeightsAltered, WeightsDamaged, WeightsMisfit.
    """
    weights, config = (file.found() for file in resolved(NAMES.get(name) or named(name)).weights)
    assert weights is not None
    assert config is not None
    return _from_files(config, weights)


def _from_files(config: Path, weights: Path) -> VideoMAEClassifier:
    from vidx.encoders._checkpoint import read_checkpoint

    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsDamaged(f"{config} can't be read ({error})", hint=damaged_hint(config)) from error
    return VideoMAEClassifier(from_state_dict(read_checkpoint(weights), config=settings))


def _settings(config: Mapping[str, Any]) -> VideoMAEConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import VideoMAEConfig

    if not isinstance(config, Mapping) or config.get("model_type") != _FAMILY:
        raise WeightsMisfit(f"this is no {_WHAT}: its config says so", hint=f"model_type must be {_FAMILY}")
    try:
        return VideoMAEConfig.from_dict(dict(config))
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise _misfit(error) from error


def _misfit(error: Exception) -> WeightsMisfit:
    reason = " ".join(str(error).split())
    return WeightsMisfit(f"this is no {_WHAT}, by its config: {reason}", hint=f"see {_CONFIG}")


def _new_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names as transformers 5 has them; files from before it have others for two biases."""
    renamed = {}
    for key, tensor in state.items():
        name = key
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        renamed[key if name in state else name] = tensor
    return renamed
