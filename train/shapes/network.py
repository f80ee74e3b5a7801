"""The network of `shapes`: X-CLIP by transformers, small, with a beginning from which a short training learns.

Ni et al. 2022 (arXiv:2208.02816). Texts are not adjusted to videos (no prompt layers), so that vectors can be indexed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import XCLIPConfig, XCLIPModel, XCLIPTextConfig, XCLIPVisionConfig

from vidx.encoders._small_tokens import LENGTH
from vidx.encoders._xclip_network import XCLIPNetwork
from vidx.train.shapes.data import FIELDS, FRAMES, SIDE_PX
from vidx.train.shapes.scenes import COLOURS
from vidx.train.shapes.states import PER_COLOUR, PER_PATCH


@dataclass(frozen=True)
class Size:
    """Widths are multiples of 64, as heads are 64 wide."""

    patch_px: int = 8
    vision: int = 128
    vision_layers: int = 3
    mit_layers: int = 2
    text: int = 128
    text_layers: int = 2
    dim: int = 128


SIZE = Size()


def new_network(size: Size, vocabulary: int, frames: int = FRAMES) -> XCLIPNetwork:
    """With random weights; the largest token id ends a text."""
    vision = XCLIPVisionConfig(
        hidden_size=size.vision,
        intermediate_size=4 * size.vision,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision // 64,
        image_size=SIDE_PX,
        patch_size=size.patch_px,
        num_frames=frames,
        mit_hidden_size=size.dim,
        mit_intermediate_size=4 * size.dim,
        mit_num_hidden_layers=size.mit_layers,
        mit_num_attention_heads=size.dim // 64,
        hidden_act="quick_gelu",
    )
    text = XCLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=size.text,
        intermediate_size=4 * size.text,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text // 64,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
    )
    config = XCLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=size.dim,
        prompt_layers=0,
        prompt_alpha=0.0,
        prompt_num_attention_heads=size.dim // 64,
    )
    model = XCLIPModel(config)
    _begin(model, size)
    return XCLIPNetwork(model)


def _begin(model: XCLIPModel, size: Size) -> None:
    """Patches as frequencies, places as sines: what a vision tower would take long to find."""
    embeddings = model.vision_model.embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.copy_(2 * _frequencies(size.vision, size.patch_px))
        embeddings.position_embedding.weight[1:] = 0.5 * _places(SIDE_PX // size.patch_px, size.vision)
        embeddings.position_embedding.weight[0] = 0
        model.mit.position_embedding.normal_(std=0.5)


def _frequencies(width: int, patch_px: int) -> Tensor:
    """The lowest frequencies of a patch in brightness and two opponent colours, (width, 3, patch, patch)."""
    at = (torch.arange(patch_px) + 0.5) * torch.pi / patch_px
    waves = torch.stack([(at * k).cos() * (1 if k else 0.5**0.5) for k in range(patch_px)]) * (2 / patch_px) ** 0.5
    order = sorted(((i, j) for i in range(patch_px) for j in range(patch_px)), key=lambda pair: (sum(pair), pair))
    colours = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    filters = [colour[:, None, None] * torch.outer(waves[i], waves[j]) for i, j in order for colour in colours]
    weight = torch.stack(filters[:width])
    if len(weight) < width:
        weight = torch.cat([weight, 0.05 * torch.randn(width - len(weight), *weight.shape[1:])])
    return weight


def _places(cells: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (cells * cells, width)."""
    rates = torch.exp(torch.arange(width // 4) / (width // 4) * -np.log(100.0))
    angles = (torch.arange(cells)[:, None] + 0.5) * rates * torch.pi / 2
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(cells, cells, -1)
    columns = waves[None].expand(cells, cells, -1)
    return torch.cat([rows, columns], dim=2).reshape(cells * cells, width)


class Heads(nn.Module):
    """What is asked of vectors in training alone, dropped afterwards."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.facts = nn.ModuleList(nn.Linear(size.dim, len(names) + 1) for _ in range(2) for names in FIELDS)
        self.frame = nn.Linear(size.vision, len(COLOURS) * PER_COLOUR)
        self.patch = nn.Linear(size.vision, PER_PATCH)
