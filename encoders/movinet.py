"""MoViNet: small closed-set classifiers of whole clips, or of streams frame by frame.

Kondratyuk et al. 2021 (arXiv:2103.11511), by the weights of Atze00/MoViNet-pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders._registry import registered
from vidx.pixels import UNIT

if TYPE_CHECKING:
    from torch import Tensor

    from vidx.encoders._movinet_network import MoViNet, StreamState

NAMES = registered("movinet")

_WHAT = "MoViNet checkpoint"


def from_state_dict(state: Mapping[str, Any], *, text_state: None = None, **facts: Any) -> MoViNet:
    """A network from a released file as it was loaded: base or stream form, whichever its tensors are of.

    Facts: causal, num_classes; the tensors tell them too. Raises WeightsMisfit.
    """
    from vidx.encoders._facts import Facts
    from vidx.encoders._layouts import section
    from vidx.encoders._movinet_shapes import movinet_network

    return movinet_network(section(state, "state_dict", "model_state_dict"), _WHAT, Facts(**facts))


def reference_outputs(network: MoViNet, inputs: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a reference file holds after `output.`; of a causal network also the clip as a stream, and a second time."""
    from vidx.encoders._movinet_network import Memory

    video = inputs["video"]
    if not network.causal:
        return dict(network.stages(video, None))
    memory = Memory(None, video.shape[2])
    outputs = dict(network.stages(video, memory))
    outputs["logits_second_pass_without_reset"], _ = network.step(video, memory.state())
    outputs["logits_per_frame"] = network.stream(video.split(1, dim=2))
    if chunks := facts.get("chunks"):
        outputs["logits_per_chunk"] = network.stream(video.split(list(chunks), dim=2))
    return outputs


class MoViNetClassifier:
    """Says which of its classes a video shows; frames are square RGB and get no other preparation.

    Labels are those given, else the 600 of Kinetics for a network with as many classes.
    """

    def __init__(self, network: MoViNet, labels: Sequence[str] | None = None) -> None:
        from vidx.encoders._classifier import class_labels

        self.labels = class_labels(network.n_classes, labels)
        self._network = network

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities float32 (B, classes) of whole clips, uint8 (B, T, H, W, 3) RGB. Raises ValueError."""
        from vidx.encoders._classifier import probabilities

        return probabilities(self._network(self._video(frames)))

    def step(self, frames: np.ndarray, state: StreamState | None) -> tuple[np.ndarray, StreamState]:
        """Probabilities float32 (B, classes) after the next frames of some streams, and the state to go on with.

        Takes uint8 (B, T, H, W, 3) RGB and the state that the call before returned, None at the start. Raises
        ValueError, also for a network that is not causal.
        """
        from vidx.encoders._classifier import probabilities

        logits, state = self._network.step(self._video(frames), state)
        return probabilities(logits), state

    def _video(self, frames: np.ndarray) -> Tensor:
        from vidx.encoders._classifier import colours

        return colours(frames, UNIT, self._network).transpose(1, 2)
