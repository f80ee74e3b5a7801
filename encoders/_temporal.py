"""Ways to let frames exchange something inside CLIP's vision tower; no released checkpoint uses one.

From whwu95/Text4Vis clip/model.py and modules/temporal_modeling.py. Pictures come as (B * T, tokens, width), the class
token first.
"""

from __future__ import annotations

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

TOKEN_SHIFT, TOKEN_CONVOLUTION, BLOCK_SHIFT = "tokenshift", "tokent1d", "tsm"
CHOICES = (BLOCK_SHIFT, TOKEN_SHIFT, TOKEN_CONVOLUTION)


def shifted(tokens: Tensor, fold: int) -> Tensor:
    """(B, T, ..., width) with the first `fold` channels of the frame after, the next of the one before; 0 beyond."""
    out = tokens.clone()
    out[:, :-1, ..., :fold] = tokens[:, 1:, ..., :fold]
    out[:, -1, ..., :fold] = 0
    out[:, 1:, ..., fold : 2 * fold] = tokens[:, :-1, ..., fold : 2 * fold]
    out[:, 0, ..., fold : 2 * fold] = 0
    return out


class ShiftedBlock(nn.Module):
    """A block whose input, the residual included, has an eighth of the patches' channels shifted either way in time."""

    def __init__(self, net: nn.Module, frames: int) -> None:
        super().__init__()
        self.net, self._frames = net, frames

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        in_time = x.unflatten(0, (-1, self._frames))
        patches = shifted(in_time[:, :, 1:], x.shape[-1] // 8)
        out: Tensor = self.net(torch.cat([in_time[:, :, :1], patches], dim=2).flatten(0, 1), attn_mask=attn_mask)
        return out


class TokenShift(nn.Module):
    """A quarter of the class token's channels shifted either way in time."""

    def forward(self, token: Tensor) -> Tensor:
        return shifted(token, token.shape[-1] // 4)


class TokenConvolution(nn.Module):
    """A convolution over time for each channel of the class token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)

    def forward(self, token: Tensor) -> Tensor:
        out: Tensor = self.conv(token.transpose(1, 2)).transpose(1, 2)
        return out


class ControlledBlock(ResidualAttentionBlock):
    """A block with something done to the class token before the attention and again before the MLP."""

    control_point: nn.Module
    frames: int

    def forward(self, q_x: Tensor, k_x: None = None, v_x: None = None, attn_mask: Tensor | None = None) -> Tensor:
        x = self._controlled(q_x)
        x = x + self.attention(self.ln_1(x), attn_mask=attn_mask)
        x = self._controlled(x)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out

    def _controlled(self, x: Tensor) -> Tensor:
        in_time = x.unflatten(0, (-1, self.frames))
        token = self.control_point(in_time[:, :, 0]).unsqueeze(2)
        return torch.cat([token, in_time[:, :, 1:]], dim=2).flatten(0, 1)


def make_temporal(tower: VisionTransformer, choice: str, frames: int) -> None:
    """Let the blocks of a tower look at `frames` frames at once, by one of CHOICES."""
    blocks = tower.transformer.resblocks
    for number, block in enumerate(blocks):
        if choice == BLOCK_SHIFT:
            blocks[number] = ShiftedBlock(block, frames)
            continue
        block.__class__ = ControlledBlock
        block.frames = frames
        with torch.device("meta"):
            width = tower.class_embedding.shape[0]
            block.control_point = TokenShift() if choice == TOKEN_SHIFT else TokenConvolution(width)


class JointTower(nn.Module):
    """A vision tower over the patches of all frames in one sequence, patch by patch in time: one vector per video.

    Pictures (B * T, 3, side, side) to (B, d).
    """

    def __init__(self, tower: VisionTransformer, frames: int) -> None:
        super().__init__()
        self.conv1: nn.Module
        self.ln_pre: nn.Module
        self.ln_post: nn.Module
        self.transformer: nn.Module
        for name, part in tower.named_children():
            self.add_module(name, part)
        self.class_embedding, self.positional_embedding = tower.class_embedding, tower.positional_embedding
        self.proj = tower.proj
        self.time_embedding = nn.Parameter(torch.empty(frames, tower.class_embedding.shape[0], device="meta"))

    def forward(self, pictures: Tensor) -> Tensor:
        frames, places = len(self.time_embedding), self.positional_embedding
        patches = self.conv1(pictures).flatten(2).transpose(1, 2) + places[1:]
        in_time = patches.unflatten(0, (-1, frames)) + self.time_embedding[:, None]
        token = (self.class_embedding + places[0]).expand(len(in_time), 1, -1)
        x = self.ln_pre(torch.cat([token, in_time.transpose(1, 2).flatten(1, 2)], dim=1))
        out: Tensor = self.ln_post(self.transformer(x)[:, 0]) @ self.proj
        return out
