"""Reference outputs of `vidx.pixels`: one frame through the test-time resize and crops of each code base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidx.pixels import CLIP, IMAGENET, OPENCV, fit, normalise, three_crops
from vidx.schema.records import Preprocess


def reference_outputs(inputs: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a reference file holds after `output.`: crops, uint8 (side, side, 3); inputs, float32 (3, side, side)."""
    frame = inputs["frame_u8"].numpy()
    scale, crop = config["scale"], config["crop"]
    pil, opencv = Preprocess(scale, crop), Preprocess(scale, crop, OPENCV)
    outputs = {
        "actionclip_center_u8": fit(frame, pil),
        "clip_official": normalise(fit(frame, Preprocess(crop, crop)), CLIP),
        "mmaction_center_u8": fit(frame, opencv),
        "text4vis_center": normalise(fit(frame, pil), CLIP),
        "text4vis_center_u8": fit(frame, pil),
        "text4vis_threecrop_u8": three_crops(frame, pil),
        "xclip_center": normalise(fit(frame, opencv), IMAGENET),
        "xclip_threecrop_u8": three_crops(frame, Preprocess(crop, crop, OPENCV)),
    }
    return {name: torch.from_numpy(array.copy()) for name, array in outputs.items()}
