"""Heads that make one vector of a video out of those of its frames: (B, T, d) to (B, d), not normalised.

From sallymmx/ActionCLIP modules/Visual_Prompt.py and whwu95/Text4Vis modules/video_clip.py; the adapter from
open-mmlab/mmaction2 projects/actionclip/models/adapter.py. Released checkpoints use the mean and the transformer.
"""

from __future__ import annotations

from functools import partial

import torch
from open_clip.transformer import QuickGELU, Transformer
from torch import Tensor, nn

from vidx.encoders._checkpoint import State, layers_in, require
from vidx.encoders._towers import BLOCKS, unit
from vidx.errors import WeightsMisfit

EPS_ORIGINAL = 1e-12  # its LayerNorm is TensorFlow's
EPS_MMACTION2 = 1e-5
POSITIONS = "frame_position_embeddings.weight"
ANY_FRAMES = 77  # positions in heads that take up to as many frames; others have one for each


class Mean(nn.Module):
    """The mean of the frames as they are; ActionCLIP's `meanP`, Text4Vis' `None`."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=1)


class MeanOfUnits(nn.Module):
    """The mean of frames of unit norm."""

    def forward(self, frames: Tensor) -> Tensor:
        return unit(frames).mean(dim=1)


class TemporalTransformer(nn.Module):
    """Pre-norm blocks over frames with learned positions, the frames without positions added back, then the mean."""

    def __init__(self, width: int, heads: int, layers: int, positions: int, eps: float) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(positions, width)
        norm = partial(nn.LayerNorm, eps=eps)
        self.transformer = Transformer(width, layers, heads, act_layer=QuickGELU, norm_layer=norm)

    def forward(self, frames: Tensor) -> Tensor:
        placed = frames + self.frame_position_embeddings.weight[: frames.shape[1]]
        mixed: Tensor = self.transformer(placed)
        return (mixed + frames).mean(dim=1)


class Recurrent(nn.Module):
    """One LSTM layer, frames added back, mean. Its checkpoints carry positions that it does not use."""

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(positions, width)
        self.lstm_visual = nn.LSTM(width, width, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        mixed, _ = self.lstm_visual(frames)
        return (mixed + frames).mean(dim=1)


class DepthwiseConvolution(nn.Module):
    """A convolution over time for each channel, frames added back, mean.

    The original reads the (T, d) block as (d, T) without transposing it; so does this, or the numbers differ.
    """

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(positions, width)
        self.shift = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        batch, length, width = frames.shape
        mixed = self.shift(frames.reshape(batch, width, length)).transpose(1, 2)
        return (mixed + frames).mean(dim=1)


class _ClassToken(nn.Module):
    def __init__(self, width: int, length: int, layers: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, length + 1, width))
        layer = nn.TransformerEncoderLayer(width, nhead=8, dim_feedforward=2048, batch_first=True)
        self.transformer_enc = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)


class ClassToken(nn.Module):
    """A class token before the frames, torch's post-norm encoder, the class token out."""

    def __init__(self, width: int, length: int, layers: int, positions: int) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(positions, width)
        self.transformer = _ClassToken(width, length, layers)

    def forward(self, frames: Tensor) -> Tensor:
        inner = self.transformer
        tokens = torch.cat([inner.cls_token.expand(len(frames), -1, -1), frames], dim=1)
        encoded: Tensor = inner.transformer_enc(tokens + inner.pos_embed)
        return encoded[:, 0]


_NAMED: dict[str, type[nn.Module]] = {
    "None": Mean,
    "meanP": Mean,
    "Transf": TemporalTransformer,
    "LSTM": Recurrent,
    "Conv_1D": DepthwiseConvolution,
    "Transf_cls": ClassToken,
}


def check_head(head: nn.Module, name: str | None, what: str) -> None:
    """Raises WeightsMisfit where a head is not of the kind that its authors call `name`."""
    if name is not None and type(head) is not _NAMED.get(name):
        found = next(known for known, kind in _NAMED.items() if type(head) is kind)
        raise WeightsMisfit(
            f"this is no {what} with the head {name}: its tensors are those of {found}",
            hint=f"heads are {', '.join(_NAMED)}; a part of the file may be missing",
        )


def head_from(state: State, what: str, *, heads: int, eps: float) -> nn.Module:
    """The head whose tensors these are, on the meta device; the mean where there are none. Raises WeightsMisfit."""
    if not state:
        return Mean()
    require((POSITIONS,), state, what)
    positions, width = state[POSITIONS].shape
    with torch.device("meta"):
        if any(key.startswith("lstm_visual.") for key in state):
            return Recurrent(width, positions)
        if "shift.weight" in state:
            return DepthwiseConvolution(width, positions)
        if "transformer.pos_embed" in state:
            length = state["transformer.pos_embed"].shape[1] - 1
            return ClassToken(width, length, layers_in(state, "transformer.transformer_enc.layers."), positions)
        return TemporalTransformer(width, heads, layers_in(state, BLOCKS), positions, eps)
