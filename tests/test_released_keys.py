"""Every released checkpoint's names and shapes, filled with random numbers, make a network that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vidx.plugins import load

KEYS = Path(__file__).parents[2] / "shared" / "reference" / "keys"
FAMILIES = {"openai": "clip", "text4vis": "text4vis", "xclip": "xclip", "actionclip": "actionclip"}
LISTINGS = sorted(path.stem for path in KEYS.glob("*.json") if path.stem.split("-")[0] in FAMILIES)
MOST_ON_CPU = 120_000_000  # parameters; of larger networks only the shapes are computed, on the meta device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LISTINGS, reason="the listings of released keys are not beside this repository"),
]


@pytest.mark.parametrize("name", LISTINGS)
def test_a_file_with_the_keys_of_a_released_one_makes_a_network_that_runs(name):
    listing = json.loads((KEYS / f"{name}.json").read_text())
    device = "cpu" if listing["parameters"] < MOST_ON_CPU else "meta"
    loaded = {
        section: {key: torch.full(shape, 0.01, device=device) for key, shape in shapes.items()}
        for section, shapes in listing["sections"].items()
    }
    network = load("encoders", FAMILIES[name.split("-")[0]]).from_state_dict(loaded)

    given = sum(tensor.numel() for tensors in loaded.values() for tensor in tensors.values())
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == given  # none left out, none added
    assert not any(tensor.is_meta for tensor in network.state_dict().values()) or device == "meta"
    config = listing["config"]
    frames, side = config.get("T") or config.get("num_adapter_segs") or 8, config["image_resolution"]
    pixels = torch.zeros(1, frames, 3, side, side, device=device)
    with torch.inference_mode():
        assert network.video_features(pixels).shape == (1, config["embed_dim"])
        if "text4vis" not in name:  # whose text tower is that of CLIP
            tokens = torch.zeros(2, config["context_length"], dtype=torch.int64, device=device)
            assert network.text_features(tokens).shape == (2, config["embed_dim"])
