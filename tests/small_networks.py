"""Small networks of every family with random weights, under the names of released ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vidx import encoders
from vidx.encoders import actionclip, clip, text4vis, xclip
from vidx.encoders._heads import TemporalTransformer
from vidx.encoders._spec import EncoderSpec
from vidx.schema.records import Preprocess
from vidx.tests.test_network_encoder import write_weights
from vidx.tests.test_reference import small_clip

SIDE_PX, FRAMES = 32, 8
N_TOKENS = 49408


KNOWN = (
    (clip, "clip-vitb32", ("clip",)),
    (clip, "clip-vitl14", ("other",)),
    (text4vis, "text4vis-vitb32-f8", ("text4vis", "clip")),
    (actionclip, "actionclip-vitb32-8f", ("actionclip",)),
    (actionclip, "actionclip-mmaction2-vitb32-8f", ("port",)),
    (xclip, "xclip-zero", ("xclip",)),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their files."""
    folder = tmp_path_factory.mktemp("weights")
    _write(folder)
    return folder


@pytest.fixture(autouse=True)
def networks(weights: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """They stand in the place of `clip-vitb32` and so on, in every test of a module that imports this."""
    monkeypatch.setenv("VIDX_WEIGHTS", str(weights / "kept"))
    for module, name, files in KNOWN:
        monkeypatch.setitem(module.NAMES, name, _small(name, [weights / f"{file}.pt" for file in files]))


def _write(folder: Path) -> None:
    """Their weights."""
    base, other = small_clip(N_TOKENS), small_clip(N_TOKENS)
    other = {key: tensor.flip(0) if tensor.dim() else tensor for key, tensor in other.items()}
    head = TemporalTransformer(64, 1, 2, 77, 1e-12).state_dict()
    torch.manual_seed(3)
    head = {key: tensor + 0.1 * torch.randn(tensor.shape) for key, tensor in head.items()}
    video = {key: tensor for key, tensor in base.items() if key.startswith(("visual.", "logit_scale"))}
    fusion = {f"module.{key}": tensor for key, tensor in head.items()}
    port = {f"clip.{key}": tensor for key, tensor in base.items()}
    adapter = {key: tensor[:FRAMES] if "position" in key else tensor for key, tensor in head.items()}
    port |= {f"adapter.{key}": tensor for key, tensor in adapter.items()}
    files: dict[str, Any] = {
        "clip": base,
        "other": other,
        "text4vis": {"model_state_dict": video, "fusion_model_state_dict": fusion},
        "actionclip": {"model_state_dict": base, "fusion_model_state_dict": fusion},
        "port": {"state_dict": port},
    }
    for name, state in files.items():
        torch.save(state, folder / f"{name}.pt")
    write_weights(folder / "xclip.pt", num_frames=FRAMES)


def _small(name: str, paths: list[Path]) -> EncoderSpec:
    spec = encoders.spec(name)
    weights = [
        replace(file, path=path, sha256=None, address=None, place=None)
        for file, path in zip(spec.weights, paths, strict=True)
    ]
    preprocess = Preprocess(SIDE_PX + 4, SIDE_PX, spec.space.preprocess.filter)
    space = replace(spec.space, preprocess=preprocess, frames=FRAMES, dim=64)
    return replace(spec, space=space, weights=tuple(weights), patch_px=16)
