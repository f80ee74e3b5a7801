"""Encoders around networks: a small X-CLIP with random weights, from the files it is given to hits and their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import XCLIPConfig, XCLIPModel

import vidx
from vidx import encoders
from vidx.encoders import xclip
from vidx.encoders._network_encoder import NetworkEncoder
from vidx.encoders._tokenizer import token_ids
from vidx.encoders._xclip_encoder import XCLIPEncoder
from vidx.errors import InputError, WeightsDamaged, WeightsMisfit, WeightsMissing
from vidx.indexer.frames import frames_of_clip
from vidx.schema.records import Preprocess
from vidx.schema.store import Store

pytestmark = pytest.mark.slow  # networks and their libraries take seconds to import

SIDE_PX, FRAMES, DIM = 32, 4, 64
SMALL = replace(
    encoders.spec("xclip-base-patch32"),
    name="xclip-small",
    patch_px=16,
    space=replace(
        encoders.spec("xclip-base-patch32").space,
        encoder="xclip-small",
        preprocess=Preprocess(SIDE_PX, SIDE_PX),
        frames=FRAMES,
        dim=DIM,
    ),
)
SCENES = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_weights(path: Path, *, seed: int = 0, **vision: int) -> Path:
    torch.manual_seed(seed)
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 1}
    of_vision = {
        **{"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1},
        **{"image_size": SIDE_PX, "patch_size": 16, "num_frames": FRAMES, "mit_hidden_size": DIM},
        **{"mit_intermediate_size": 4 * DIM, "mit_num_attention_heads": 1, **vision},
    }
    config = XCLIPConfig(
        text_config=text, vision_config=of_vision, projection_dim=DIM, prompt_num_attention_heads=1, prompt_alpha=0.9
    )
    state = XCLIPModel(config).state_dict()
    torch.save({key: tensor + 0.1 * torch.randn(tensor.shape) for key, tensor in state.items()}, path)
    return path


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small encoder is one of those there are, and fetched files go into a folder of the test."""
    monkeypatch.setitem(xclip.NAMES, "xclip-small", SMALL)
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "small.pth")


@pytest.fixture
def videos(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, colour in SCENES.items():

        def draw(number: int, size: tuple[int, int], colour: tuple[int, int, int] = colour) -> np.ndarray:
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            picture[number % size[1] :, : 1 + number % size[0]] = colour
            return picture

        make_video(folder / f"{name}.mp4", n_frames=60, draw=draw)
    return folder


def encoder_of(weights: Path) -> XCLIPEncoder:
    built = encoders.build(encoders.here("xclip-small", [weights]))
    assert isinstance(built, XCLIPEncoder)
    return built


def clips(n: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)


def index(tmp_path: Path, videos: Path, **options: Any) -> vidx.api.Archive:
    archive = vidx.open(tmp_path / "store")
    archive.index(videos, **options)
    return archive


def test_vectors_are_those_of_the_network_and_of_unit_norm(weights: Path) -> None:
    encoder, frames = encoder_of(weights), clips(3)
    with torch.inference_mode():
        direct = encoder.network.video_features(encoder.pixels(frames)).numpy()
    expected = direct / np.linalg.norm(direct, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_video(frames), expected, atol=2e-6)


def test_pixels_are_normalised_as_the_space_says(weights: Path) -> None:
    frames = clips(1)
    levels = frames.astype(np.float64) / 255
    expected = (levels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = encoder_of(weights).pixels(frames).numpy()
    np.testing.assert_allclose(found, expected.transpose(0, 1, 4, 2, 3), atol=1e-6)


def test_a_clips_vector_does_not_depend_on_the_clips_beside_it(weights: Path) -> None:
    encoder, frames = encoder_of(weights), clips(5)
    together = encoder.encode_video(frames)
    for number in range(5):
        assert np.array_equal(encoder.encode_video(frames[number : number + 1])[0], together[number])


def test_texts_get_the_vectors_of_the_network_with_and_without_it(weights: Path) -> None:
    texts = ["a dog", "a person climbing stairs, seen from far away"]
    first = encoder_of(weights)
    with torch.inference_mode():
        direct = first.network.text_features(torch.from_numpy(token_ids(texts))).numpy()
    expected = direct / np.linalg.norm(direct, axis=1, keepdims=True)
    np.testing.assert_allclose(first.encode_text(texts), expected, atol=2e-6)
    later = encoder_of(weights)
    np.testing.assert_allclose(later.encode_text(texts), expected, atol=2e-6)
    assert "network" not in vars(later)  # which importing torch and the network's library is spared


def test_where_the_text_tower_can_not_be_kept_texts_still_work(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file where the folder should be")
    assert encoder_of(weights).encode_text(["a dog"]).shape == (1, DIM)


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        ({"num_frames": 8}, "is for 8 frames, encoder xclip-small for 4"),
        ({"image_size": 48}, "is for 48 pixels a side, encoder xclip-small for 32"),
        ({"patch_size": 8}, "is for 8 pixels a side of a patch, encoder xclip-small for 16"),
    ],
)
def test_weights_of_another_size_are_refused_and_leave_no_store(
    tmp_path: Path, videos: Path, vision: dict[str, int], told: str
) -> None:
    other = write_weights(tmp_path / "other.pth", **vision)
    with pytest.raises(WeightsMisfit, match=told):
        index(tmp_path, videos, encoder="xclip-small", weights=(other,))
    assert not (tmp_path / "store").exists()


def test_texts_of_another_dimension_than_videos_are_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = encoders.here("xclip-small", [weights])
    encoders.try_out(spec)
    monkeypatch.setattr(XCLIPEncoder, "encode_text", lambda *_: np.zeros((1, 2 * DIM), np.float32))
    with pytest.raises(WeightsMisfit, match="for texts give 128 dimensions, those for videos 64"):
        encoders.try_out(spec)


def test_a_fetched_file_that_is_none_leaves_no_store_and_is_to_be_removed(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was left behind by a page to log in, which was taken for the file."""
    [file] = encoders.spec("xclip-base-patch32").weights
    place = tmp_path / "weights" / "xclip-base-patch32" / "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_text("<html>Please log in to this network.</html>")
    found = replace(SMALL, weights=(replace(file, path=None, place=place),))
    monkeypatch.setitem(xclip.NAMES, "xclip-small", found)
    with pytest.raises(WeightsDamaged, match="it is a web page") as caught:
        index(tmp_path, videos, encoder="xclip-small")
    assert caught.value.hint == "remove it, then run `vidx encoders fetch NAME` again"
    assert not (tmp_path / "store").exists()


def test_a_store_remembers_which_weights_it_was_made_with(tmp_path: Path, videos: Path, weights: Path) -> None:
    archive = index(tmp_path, videos, encoder="xclip-small", weights=(weights,))
    assert archive.index(videos)["unchanged"] == 3
    assert len(archive.search("a dog").hits) == 3
    weights.rename(tmp_path / "moved.pth")
    assert len(archive.search("a dog").hits) == 3  # the text tower was kept
    with pytest.raises(WeightsMissing, match="not on this machine"):
        archive.index(videos)
    archive.index(videos, weights=(tmp_path / "moved.pth",))
    assert archive.index(videos)["unchanged"] == 3
    assert len(Store.open(tmp_path / "store").spaces()) == 1


def test_two_encoders_side_by_side_are_chosen_by_name(tmp_path: Path, videos: Path, weights: Path) -> None:
    archive = index(tmp_path, videos, encoder="xclip-small", weights=(weights,))
    other = write_weights(tmp_path / "other.pth", seed=1)
    archive.index(videos, encoder="xclip-small", weights=(other,))
    store = Store.open(tmp_path / "store")
    first, second = sorted(store.spaces(), key=lambda name: name != store.facts().default_space)
    assert archive.search("a dog").space == first
    assert archive.search("a dog", encoder=second).space == second
    with pytest.raises(InputError, match="several spaces of xclip-small"):
        archive.search("a dog", encoder="xclip-small")
    with pytest.raises(InputError, match="was indexed with conse"):
        archive.search("a dog", encoder="conse")


def test_reranked_hits_have_the_scores_of_texts_as_each_clip_sees_them(
    tmp_path: Path, videos: Path, weights: Path
) -> None:
    archive = index(tmp_path, videos, encoder="xclip-small", weights=(weights,))
    plain, exact = archive.search("a dog", by="clip"), archive.search("a dog", by="clip", rerank=3)
    encoder, store = encoder_of(weights), Store.open(tmp_path / "store")
    network = encoder.network
    for hit in exact.hits:
        pixels = encoder.pixels(frames_of_clip(store, exact.space, hit.clip_ids[0])[None].copy())
        with torch.inference_mode():
            tokens = torch.from_numpy(token_ids(["a dog"]))
            whole = network.model(input_ids=tokens, pixel_values=pixels)
        assert hit.score == pytest.approx(whole.logits_per_video.item() / network.logit_scale.exp().item(), abs=2e-6)
    scores = [hit.score for hit in exact.hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit.rank for hit in exact.hits] == [1, 2, 3]
    assert {hit.score for hit in plain.hits}.isdisjoint(scores)


def test_only_so_many_hits_are_reranked_and_files_that_are_gone_come_behind_them(
    tmp_path: Path, videos: Path, weights: Path
) -> None:
    archive = index(tmp_path, videos, encoder="xclip-small", weights=(weights,))
    plain = archive.search("a dog").hits
    Path(plain[0].path).unlink()
    answer = archive.search("a dog", rerank=2)
    hits = answer.hits
    assert answer.notes == ["1 of 2 hits could not be decoded and keep their scores"]
    assert [hit.path for hit in hits] == [plain[1].path, plain[0].path, plain[2].path]
    assert hits[1].score == plain[0].score
    assert hits[2].score == plain[2].score
    assert archive.search("a dog", k=1, rerank=3).hits[0].rank == 1
    assert archive.search("a dog").notes == []


def test_reranking_needs_a_text_and_an_encoder_that_adjusts_it(
    tmp_path: Path, videos: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = index(tmp_path, videos, encoder="xclip-small", weights=(weights,))
    with pytest.raises(InputError, match="--rerank scores one text"):
        archive.search(like=(str(videos / "red.mp4"),), rerank=3)
    monkeypatch.setattr(xclip, "build", lambda spec: NetworkEncoder(spec, xclip.from_state_dict))
    with pytest.raises(InputError, match="nothing to re-rank"):
        archive.search("a dog", rerank=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_vectors_in_half_precision_are_close_to_those_of_a_cpu(weights: Path) -> None:
    gpu, cpu = encoder_of(weights), encoder_of(weights)
    cpu.device = "cpu"
    frames = clips(20)
    assert (gpu.device, gpu.precision) == ("cuda", "bfloat16")
    cosines = (gpu.encode_video(frames) * cpu.encode_video(frames)).sum(axis=1)
    assert cosines.min() > 0.995
    assert np.array_equal(gpu.encode_video(frames)[3:5], gpu.encode_video(frames[3:5]))
