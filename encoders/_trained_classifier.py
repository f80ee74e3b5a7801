"""Classifiers that `vidx train` made: a folder whose network tells clips by labels of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidx.encoders._checkpoint import read_checkpoint
from vidx.encoders._classifier import VideoClassifier
from vidx.encoders._trained import CLASSIFIERS, MODEL, PREFIX, WEIGHTS, read_model
from vidx.encoders._weights import digest_of
from vidx.errors import InputError, WeightsDamaged, WeightsMissing
from vidx.schema.records import Preprocess


class TrainedClassifier:
    """Says which of its `labels` a clip shows.

    `sampling` are the fields of the `vidx.indexer.sampling.Sampling` that it was measured with; `name` and `digest` say
    which weights these are.
    """

    def __init__(self, network: VideoClassifier, facts: Mapping[str, Any], name: str, digest: str) -> None:
        """Raises KeyError and TypeError for `facts` that lack something."""
        self.labels, self.name, self.digest = network.labels, name, digest
        self.sampling: dict[str, Any] = dict(facts["sampling"])
        self.preprocess = Preprocess(**facts["preprocess"])
        self._network = network

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """float32 (B, len(labels)), rows that sum to 1, of clips uint8 (B, T, side, side, 3) RGB. Raises ValueError."""
        with torch.inference_mode():
            return self._network.predict(frames)


def load_classifier(folder: Path) -> TrainedClassifier:
    """The classifier in a folder that `vidx train videomae` or `movinet` made, on a GPU where there is one.

    Raises WeightsMissing, WeightsDamaged, WeightsMisfit, and InputError for a folder of anything else.
    """
    folder = folder.absolute()
    if not (folder / MODEL).is_file():
        raise InputError(
            f"{folder} is no trained model: it has no {MODEL}", hint="name a FOLDER of `vidx train movinet ROOT FOLDER`"
        )
    facts = read_model(folder)
    if facts.get("family") not in CLASSIFIERS:
        raise InputError(
            f"{folder} has an encoder, not a classifier",
            hint=f"index with it, `vidx index ARCHIVE --encoder {folder}`, then `vidx tag --labels FILE`",
        )
    if not (folder / WEIGHTS).is_file():
        raise WeightsMissing(f"{folder} has no {WEIGHTS} yet", hint="let its training come to a first check")
    state, digest = read_checkpoint(folder / WEIGHTS), digest_of(folder / WEIGHTS)
    try:
        return TrainedClassifier(_rebuilt(facts, state), facts, PREFIX + folder.name, digest)
    except (KeyError, TypeError) as error:
        raise WeightsDamaged(f"{folder / MODEL} lacks {error}", hint="train the model again") from error


def _rebuilt(facts: Mapping[str, Any], state: Mapping[str, Any]) -> VideoClassifier:
    from vidx.encoders import movinet, videomae

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if facts["family"] == "videomae":
        encoder = videomae.from_state_dict(state, config=facts["config"])
        nn.Module.to(encoder, device)
        return videomae.VideoMAEClassifier(encoder)
    network = movinet.from_state_dict(state, causal=facts["causal"])
    return movinet.MoViNetClassifier(network.to(device), facts["labels"])
