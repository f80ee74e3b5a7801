"""Closed-set classifiers: networks that tell which of the classes they were trained on a video shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidx.encoders._label_sets import published_names
from vidx.errors import WeightsMisfit
from vidx.pixels import Normalisation, normalise

_KINETICS_600 = 600


class VideoClassifier(Protocol):
    """What every classifier does. Those of streams also have `step(frames, state) -> (probabilities, state)`."""

    labels: list[str]  # of the classes, in the order of the probabilities

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Takes uint8 (B, T, H, W, 3) RGB; returns float32 (B, len(labels)), rows that sum to 1."""


def class_labels(n_classes: int, given: Sequence[str] | None = None) -> list[str]:
    """The given names, else those of Kinetics-600 for as many classes, else `class 0` and so on.

    Raises WeightsMisfit where there are not as many names as classes.
    """
    if given is not None and len(given) != n_classes:
        raise WeightsMisfit(
            f"the network tells {n_classes} classes apart, but there are {len(given)} labels",
            hint="give one label for each class, in the order of training",
        )
    if given is not None:
        return list(given)
    if n_classes == _KINETICS_600:
        return published_names("kinetics600")
    return [f"class {number}" for number in range(n_classes)]


def colours(frames: np.ndarray, normalisation: Normalisation, network: nn.Module) -> Tensor:
    """Square pictures, uint8 (B, T, side, side, 3), as float32 (B, T, 3, side, side) where the network is.

    Raises ValueError for anything else.
    """
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[4] != 3 or frames.shape[2] != frames.shape[3]:
        raise ValueError(f"frames must be uint8 (B, T, side, side, 3), not {frames.dtype} {frames.shape}")
    return torch.from_numpy(normalise(frames, normalisation)).to(next(network.parameters()).device)


def probabilities(logits: Tensor) -> np.ndarray:
    """Softmax of logits (B, classes), as float32 NumPy."""
    array: np.ndarray = logits.detach().float().softmax(dim=1).cpu().numpy()
    return array
