"""clip:MODEL/PRETRAINED, any model that open_clip knows, and OpenAI's own files by their names here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from vidx import encoders
from vidx.encoders import VideoTextEncoder
from vidx.errors import UnknownChoice, WeightsMisfit, WeightsMissing
from vidx.schema.records import Preprocess

pytestmark = pytest.mark.slow  # networks and their libraries take seconds to import

NAME = "clip:ViT-B-32/openai"
TEXTS = ["a dog", "a person climbing stairs"]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-32-quickgelu").eval()


@pytest.fixture
def weights(model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path / "weights"))
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def built(name: str, weights: Path) -> VideoTextEncoder:
    return encoders.build(encoders.here(name, [weights]))


@pytest.mark.parametrize("name", [NAME, "clip-vitb32"])
def test_vectors_are_means_of_the_models_own_and_activation_comes_from_the_tag(
    name: str, model: torch.nn.Module, weights: Path
) -> None:
    encoder = built(name, weights)
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 224, 224, 3), np.uint8)
    mean, std = np.array(open_clip.OPENAI_DATASET_MEAN), np.array(open_clip.OPENAI_DATASET_STD)
    pixels = torch.from_numpy(((frames[0] / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        video = model.encode_image(pixels, normalize=True).mean(dim=0)
        texts = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), normalize=True)
    np.testing.assert_allclose(encoder.encode_video(frames)[0], video / video.norm(), atol=2e-6)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), texts, atol=2e-6)


def test_the_spec_says_how_the_model_prepares_pictures() -> None:
    assert encoders.spec(NAME).space.preprocess == Preprocess(224, 224)
    assert encoders.spec(NAME).space.normalise == "clip"
    siglip = encoders.spec("clip:ViT-B-16-SigLIP/webli").space
    assert siglip.preprocess == Preprocess(224, 224, filter="squash-bicubic")
    assert (siglip.normalise, siglip.dim) == ("half", 768)
    odd = encoders.spec("clip:ViT-L-14/laion2b_s32b_b82k").space
    assert (odd.normalise, odd.dim) == ("half", 768)


def test_an_unknown_model_or_tag_is_refused_with_the_tags_there_are() -> None:
    with pytest.raises(UnknownChoice, match="no ViT-B-32/nothing") as caught:
        encoders.spec("clip:ViT-B-32/nothing")
    assert "openai" in caught.value.hint
    with pytest.raises(UnknownChoice, match="no nothing/openai"):
        encoders.spec("clip:nothing/openai")


def test_weights_that_are_not_here_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing) as caught:
        encoders.here("clip:ViT-B-32/laion2b_s34b_b79k")
    assert "vidx encoders fetch clip:ViT-B-32/laion2b_s34b_b79k" in caught.value.hint


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    with pytest.raises(WeightsMisfit, match="no checkpoint of clip:ViT-B-16/openai"):
        built("clip:ViT-B-16/openai", weights).encode_text(["a dog"])
