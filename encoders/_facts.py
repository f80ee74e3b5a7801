"""What the tensors of a checkpoint can't tell about the network they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Arguments of every family's `from_state_dict`; None is what released checkpoints have, or what tensors tell."""

    frames: int | None = None  # of a video; needed by what looks at several frames at once
    vision_heads: int | None = None  # else width / 64
    text_heads: int | None = None
    header_heads: int | None = None  # else those of the text tower
    activation: str | None = None  # quick_gelu or gelu
    header: str | None = None
    temporal: str | None = None  # tsm, tokenshift, tokent1d
    prompts: int | None = None  # texts for each label
    views: int | None = None  # clips or crops of each video
    chunks: Sequence[int] | None = None  # frames of each call of a stream
    num_classes: int | None = None
    conv_type: str | None = None
    causal: bool | None = None
