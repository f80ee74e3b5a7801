"""Transfer of MoViNet to other classes: a new head on a base that stays as it is, then everything if wanted.

As TensorFlow's tutorial does on ten classes of UCF101 (https://www.tensorflow.org/tutorials/video/
transfer_learning_with_movinet): 8 frames of 224 px, every 15th, batches of 8, Adam at 1e-3, 2 epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from vidx.encoders._checkpoint import read_checkpoint
from vidx.encoders._layouts import section
from vidx.encoders._movinet_network import MoViNet
from vidx.encoders._weights import digest_of, located
from vidx.encoders.movinet import NAMES, from_state_dict
from vidx.errors import UnknownChoice, WeightsMisfit
from vidx.train.augment import View
from vidx.train.classifier import Classifier, Plan, Tell, describe, new_head, train
from vidx.train.loop import WEIGHTS as BEST
from vidx.train.trained_classifier import HEAD_FOLDER, Tested, tested

WEIGHTS = "movinet-a0-base"  # to begin with, where no others are named
NORMALISE = "unit"
_FRAMES, _SIDE_PX = 8, 224
_SPACING_S = 15 / 25  # every 15th frame of UCF101
_RATE_OF_ALL = 0.1  # of that of the head
_LAST = "classifier.3.conv_1."
_HEAD_STD = 0.01


def train_movinet(folder: Path, plan: Plan, tell: Tell, *, all_epochs: int = 0, side_px: int = _SIDE_PX) -> Tested:
    """Train, or go on where a run in `folder` was stopped, then measure on the test videos.

    The base is frozen for the plan's epochs; `all_epochs` more train everything, at a tenth of the rate, from the best
    head of the first part. Raises InputError, UnknownChoice, WeightsMissing, WeightsDamaged, WeightsMisfit.
    """
    weights = file_of(plan.weights)
    parts = plan.parts()
    network = new_classifier(weights, parts.classes, plan.seed)
    view = View(_FRAMES, _SPACING_S, side_px, filter="bilinear", crops=False, mirrors=False)
    began = {"weights": plan.weights, "sha256": digest_of(weights)}
    facts = {"causal": network.causal, "all_epochs": all_epochs, "began_with": began}
    describe(folder, plan, parts, view, family="movinet", normalise=NORMALISE, **facts)
    n_videos = len(parts.training)
    head = Classifier(network, logits, NORMALISE, frozen=base_of(network))
    head_folder = folder / HEAD_FOLDER if all_epochs else folder
    left_out = train(head_folder, head, view, parts, plan.settings(n_videos), plan.batch, _of_part("head", tell))
    if all_epochs:
        network.load_state_dict(load_file(head_folder / BEST))
        rest = Plan(**{**vars(plan), "epochs": all_epochs, "learning_rate": _RATE_OF_ALL * plan.learning_rate})
        whole = Classifier(network, logits, NORMALISE)
        left_out |= train(folder, whole, view, parts, rest.settings(n_videos), plan.batch, _of_part("all", tell))
    return tested(folder, parts, plan.batch, left_out)


def _of_part(part: str, tell: Tell) -> Tell:
    return lambda line: tell({"part": part, **line})


def logits(network: nn.Module, colours: Tensor) -> Tensor:
    """(B, classes) of colours (B, T, 3, side, side)."""
    found: Tensor = network(colours.transpose(1, 2))
    return found


def base_of(network: MoViNet) -> Sequence[nn.Module]:
    """All of a network but its classifier."""
    return network.conv1, network.blocks, network.conv7


def file_of(weights: str) -> Path:
    """A file of weights, by its path or by a name of NAMES. Raises UnknownChoice, WeightsMissing."""
    if Path(weights).is_file():
        return Path(weights)
    if weights not in NAMES:
        raise UnknownChoice(f"no file and no MoViNet {weights!r}", hint=f"choose from: {', '.join(NAMES)}")
    return located(NAMES[weights].weights[0], weights)


def new_classifier(weights: Path, classes: Sequence[str], seed: int) -> MoViNet:
    """A network of a released file with a last layer of its own. Raises WeightsDamaged, WeightsMisfit."""
    read = section(read_checkpoint(weights), "state_dict", "model_state_dict")
    state = {name: tensor.clone() for name, tensor in read.items()}
    last = {name: tensor for name, tensor in state.items() if name.startswith(_LAST)}
    if len(last) != 2:
        raise WeightsMisfit(f"{weights} is no MoViNet: it has {len(last)} tensors {_LAST}*, not 2")
    for name, tensor in last.items():
        weight, bias = new_head(len(classes), last[f"{name.rpartition('.')[0]}.weight"].shape[1], seed, _HEAD_STD)
        state[name] = weight.reshape(-1, *tensor.shape[1:]) if name.endswith(".weight") else bias
    return from_state_dict(state)
