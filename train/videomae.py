"""Fine-tuning of VideoMAE, all of it, as the tutorial of transformers does on a part of UCF101.

https://huggingface.co/docs/transformers/tasks/video_classification: 16 frames in 16 * 4 / 30 s, random crops of 224 of
a short side of 256 to 320, mirror images, AdamW at 5e-5, 4 epochs, a tenth of the steps to warm up. Here the rate falls
along a cosine, where it falls in a line there, and one clip from the middle of a video tells its class.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidx.encoders._checkpoint import read_checkpoint
from vidx.encoders._layouts import section
from vidx.encoders._weights import damaged_hint, digest_of, resolved
from vidx.encoders.videomae import NAMES, from_state_dict, named
from vidx.errors import InputError, WeightsDamaged, WeightsMisfit
from vidx.train.augment import View
from vidx.train.classifier import Classifier, Plan, Tell, describe, new_head, train
from vidx.train.trained_classifier import Tested, tested

WEIGHTS = "videomae:MCG-NJU/videomae-base"  # to begin with, where no others are named
NORMALISE = "imagenet"
_WARMUP_SHARE = 0.1
_SPACING_S = 4 / 30
_ENCODER = "videomae."  # before the names of all tensors but those of heads
_CONFIG, _FILE = "config.json", "model.safetensors"


def train_videomae(folder: Path, plan: Plan, tell: Tell, *, mirrors: bool = True) -> Tested:
    """Train, or go on where a run in `folder` was stopped, then measure on the test videos.

    Raises InputError, UnknownChoice, WeightsMissing, WeightsDamaged, WeightsMisfit.
    """
    config, weights = files_of(plan.weights)
    parts = plan.parts()
    network, facts = new_classifier(config, weights, parts.classes, plan.seed)
    view = View(
        facts["num_frames"], _SPACING_S, facts["image_size"], filter="squash-bilinear", crops=True, mirrors=mirrors
    )
    began = {"weights": plan.weights, "sha256": digest_of(weights)}
    describe(folder, plan, parts, view, family="videomae", normalise=NORMALISE, config=facts, began_with=began)
    module = Classifier(network, logits, NORMALISE)
    settings = plan.settings(len(parts.training), warmup_share=_WARMUP_SHARE)
    left_out = train(folder, module, view, parts, settings, plan.batch, tell)
    return tested(folder, parts, plan.batch, left_out)


def logits(network: nn.Module, colours: Tensor) -> Tensor:
    """(B, classes) of colours (B, T, 3, side, side)."""
    found: Tensor = network(pixel_values=colours).logits
    return found


def files_of(weights: str) -> tuple[Path, Path]:
    """config.json and weights of a folder as Hugging Face lays it out, of a file beside its config.json, or of a name.

    A name is `videomae:ID`, ID being an id at Hugging Face; nothing is fetched. Raises InputError, UnknownChoice,
    WeightsMissing.
    """
    path = Path(weights)
    if path.is_dir() or path.is_file():
        folder, file = (path, path / _FILE) if path.is_dir() else (path.parent, path)
        for needed in (folder / _CONFIG, file):
            if not needed.is_file():
                raise InputError(f"{weights}: no {needed.name} there", hint=f"needed are {_CONFIG} and {_FILE}")
        return folder / _CONFIG, file
    found, found_config = (one.found() for one in resolved(NAMES.get(weights) or named(weights)).weights)
    assert found is not None
    assert found_config is not None
    return found_config, found


def new_classifier(
    config: Path, weights: Path, classes: tuple[str, ...], seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with the encoder of a checkpoint, of pre-training or of another classifier, and a new head.

    Returns what its config.json would be, too. Raises WeightsDamaged, WeightsMisfit.
    """
    from transformers import VideoMAEConfig

    try:
        read = json.loads(config.read_text(encoding="utf-8"))
        size = VideoMAEConfig.from_dict(dict(read))
    except Exception as error:  # of JSON, of the text, and whatever transformers makes of odd values
        raise WeightsDamaged(f"{config} can't be read ({error})", hint=damaged_hint(config)) from error
    labels = {"id2label": {str(n): name for n, name in enumerate(classes)}, "num_labels": len(classes)}
    facts = {
        **{name: value for name, value in read.items() if not name.startswith(("id2label", "label2id", "_"))},
        **labels,
        "label2id": {name: n for n, name in enumerate(classes)},
        "num_frames": size.num_frames,
        "image_size": size.image_size,
        "architectures": ["VideoMAEForVideoClassification"],
    }
    state = {name: tensor for name, tensor in section(read_checkpoint(weights)).items() if name.startswith(_ENCODER)}
    if not state:
        raise WeightsMisfit(f"{weights} is no VideoMAE: no tensor's name begins with {_ENCODER}")
    weight, bias = new_head(len(classes), size.hidden_size, seed, size.initializer_range)
    state |= {"classifier.weight": weight, "classifier.bias": bias}
    if size.use_mean_pooling:
        state |= {"fc_norm.weight": torch.ones(size.hidden_size), "fc_norm.bias": torch.zeros(size.hidden_size)}
    return from_state_dict({name: tensor.clone() for name, tensor in state.items()}, config=facts), facts
