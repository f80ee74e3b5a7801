"""`vidx tag` with X-CLIP, from stored vectors and from frames, against the network's own logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidx
from vidx.encoders._tokenizer import token_ids
from vidx.encoders._xclip_encoder import XCLIPEncoder
from vidx.encoders._xclip_network import XCLIPNetwork
from vidx.indexer.frames import frames_of_clip
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.test_network_encoder import encoder_of, index, known, videos, weights

__all__ = ["known", "videos", "weights"]  # fixtures
pytestmark = pytest.mark.slow

LABELS = ["red", "a green ball", "the sea", "dancing", "climbing stairs", "snow", "a dog"]


@pytest.fixture
def archive(tmp_path: Path, videos: Path, weights: Path, known: None) -> vidx.api.Archive:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    return index(tmp_path, videos, encoder="xclip-small", weights=weights, clip_s=2, stride_s=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def told(archive: vidx.api.Archive) -> dict[int, dict[str, tuple[float, float]]]:
    """Score and probability of each label of each clip."""
    rows = Snapshot(Store.open(archive.path)).rows("SELECT clip_id, label, score, probability FROM tags")
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for clip_id, label, score, probability in rows:
        found.setdefault(clip_id, {})[label] = (score, probability)
    return found


def frames_by_clip(archive: vidx.api.Archive) -> dict[int, np.ndarray]:
    store = Store.open(archive.path)
    [space] = store.spaces()
    ids = [clip_id for (clip_id,) in Snapshot(store).rows(f"SELECT clip_id FROM {Snapshot(store).clips(space)}")]
    return {clip_id: frames_of_clip(store, space, clip_id) for clip_id in ids}


def check_against_the_network(
    archive: vidx.api.Archive, labels: Path, network: XCLIPNetwork, encoder: XCLIPEncoder, *, exact: bool
) -> None:
    done = archive.tag(labels, top=len(LABELS), exact=exact)
    assert done.n_clips > 5
    tags, frames = told(archive), frames_by_clip(archive)
    assert sorted(tags) == sorted(frames)
    scale = float(network.logit_scale.exp())
    for clip_id, pictures in frames.items():
        with torch.inference_mode():
            texts = network.text_features(torch.from_numpy(token_ids(LABELS)))
            of_frames, context = network.towers(encoder.pixels(pictures[None]))
            seen = network.adjusted(texts, context) if exact else texts[None]
            logits = network.logits(network.integrated(of_frames), seen).numpy()
        [expected] = softmax(logits)
        np.testing.assert_allclose([tags[clip_id][label][1] for label in LABELS], expected, atol=2e-5)
        np.testing.assert_allclose([tags[clip_id][label][0] for label in LABELS], logits[0] / scale, atol=2e-6)


@pytest.mark.parametrize("exact", [False, True])
def test_probabilities_are_those_of_the_networks_own_logits(
    archive: vidx.api.Archive, tmp_path: Path, weights: Path, exact: bool
) -> None:
    encoder = encoder_of(weights)
    check_against_the_network(archive, tmp_path / "labels.txt", encoder.network, encoder, exact=exact)


def test_so_they_are_on_real_videos(shared: Path, tmp_path: Path, weights: Path, known: None) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    archive = index(tmp_path, shared / "videos" / "sign_language", encoder="xclip-small", weights=weights)
    encoder = encoder_of(weights)
    check_against_the_network(archive, tmp_path / "labels.txt", encoder.network, encoder, exact=True)


def test_clips_that_can_not_be_decoded_get_no_rows_and_are_told(
    archive: vidx.api.Archive, tmp_path: Path, videos: Path
) -> None:
    n_before = len(frames_by_clip(archive))
    (videos / "red.mp4").unlink()
    done = archive.tag(tmp_path / "labels.txt", exact=True)
    assert len(told(archive)) == n_before * 2 // 3
    assert done.notes == [f"{n_before // 3} of {n_before} clips could not be decoded and got no rows"]


def test_exact_is_refused_where_vectors_are_all_there_is(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4")
    archive = vidx.open(tmp_path / "store")
    archive.index(tmp_path / "videos", encoder="conse")
    (tmp_path / "labels.txt").write_text("a dog")
    with pytest.raises(vidx.errors.InputError, match="scores by its vectors alone"):
        archive.tag(tmp_path / "labels.txt", exact=True)
