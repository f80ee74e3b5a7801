"""What `benchmarks/recipes.py` compares with: networks as they were before training, with a classifier behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from vidx import encoders
from vidx.indexer.frames import Look, looked_at
from vidx.schema.records import Preprocess
from vidx.train import movinet, videomae
from vidx.train.classifier import Classifier
from vidx.train.clip_text_run import begun
from vidx.train.footage import LabelledVideo, Parts
from vidx.train.trained_classifier import HEAD_FOLDER

_MOST_ROUNDS = 2000


def frozen_accuracy(recipe: str, start: Path, facts: Mapping[str, Any], parts: Parts) -> float:
    """Share of the test videos told right by a logistic regression on vectors of the network that `start` gives.

    `facts` are those of the trained model: how videos are looked at.
    """
    network, vectors_of = _frozen(recipe, start, parts.classes)
    training, test = (
        _outputs(network, vectors_of, facts, videos) for videos in (parts.training + parts.validation, parts.test)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MOST_ROUNDS))
    model.fit(training, [video.label for video in parts.training + parts.validation])
    return float(np.mean(model.predict(test) == [video.label for video in parts.test]))


def _frozen(recipe: str, start: Path, classes: tuple[str, ...]) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Any]]:
    """A network as training begins with it, and what comes before its classes, of colours (B, T, 3, side, side)."""
    if recipe == "videomae":
        network, _ = videomae.new_classifier(*videomae.files_of(str(start)), classes, 0)
        return network, lambda net, colours: net.videomae(pixel_values=colours).last_hidden_state.mean(1)
    if recipe == "movinet":
        whole = movinet.new_classifier(start, classes, 0)
        return whole, lambda net, colours: dict(net.stages(colours.transpose(1, 2), None))["pooled"].flatten(1)
    return begun(recipe, encoders.here(str(start)), 0)[1], lambda net, colours: net.video_features(colours)


def head_accuracy(run: Path, facts: Mapping[str, Any], parts: Parts) -> float:
    """Share of the test videos told right by a MoViNet after the first of two parts, which trains its head alone."""
    head = run / HEAD_FOLDER / movinet.BEST
    network = movinet.from_state_dict(load_file(head))
    found = _outputs(network, movinet.logits, facts, parts.test).argmax(axis=1)
    return float(np.mean(found == [video.label for video in parts.test]))


def _outputs(
    network: nn.Module,
    of_colours: Callable[[nn.Module, Tensor], Any],
    facts: Mapping[str, Any],
    videos: Sequence[LabelledVideo],
) -> np.ndarray:
    """A row for each video, of the clip that tells its class."""
    look = Look.of_fields(facts["sampling"], Preprocess(**facts["preprocess"]))
    module = Classifier(network, of_colours, facts["normalise"]).eval()
    with torch.inference_mode():
        rows = [
            module.logits(torch.from_numpy(looked.views[0])).numpy()
            for looked in looked_at((video.path, (look,)) for video in videos)
        ]
    return np.concatenate(rows)
