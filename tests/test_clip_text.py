"""CLIP's text tower in NumPy equals the original in torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from vidx.encoders._clip_text import ClipText
from vidx.encoders._tokenizer import token_ids
from vidx.errors import WeightsDamaged, WeightsMisfit

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
WITH_TEXTS = sorted(
    path.stem
    for path in REFERENCE.glob("*.safetensors")
    if path.stem.startswith(("clip", "text4vis", "action", "xclip"))
)
WIDTH, HEADS, DIM, VOCABULARY, LENGTH = 32, 4, 24, 99, 20  # of the small towers made here
END = VOCABULARY - 1

Tensors = dict[str, np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread() -> Iterator[None]:
    """As in `vidx search`: on a busy machine, threads wait for each other much longer than they work."""
    with threadpool_limits(1, user_api="blas"):
        yield


def open_clip_tower(activation: str, seed: int, *sizes: int) -> object:
    """open_clip's tower with random weights, those that start at zero and one too."""
    import torch
    from open_clip.transformer import QuickGELU, TextTransformer

    length, vocabulary, width, heads, layers, dim = sizes
    torch.manual_seed(seed)
    layer = {"quick_gelu": QuickGELU, "gelu": torch.nn.GELU}[activation]
    tower = TextTransformer(length, vocabulary, width, heads, layers, output_dim=dim, act_layer=layer).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return tower


def tensors_of(tower: object) -> Tensors:
    return {name: tensor.numpy() for name, tensor in tower.state_dict().items()}


def small_tensors() -> Tensors:
    """A tower of two blocks, by NumPy alone."""
    generator = np.random.default_rng(3)
    shapes = {
        "token_embedding.weight": (VOCABULARY, WIDTH),
        "positional_embedding": (LENGTH, WIDTH),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
        "text_projection": (WIDTH, DIM),
    }
    for number in range(2):
        block = f"transformer.resblocks.{number}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
        for name, rows, columns in (("c_fc", 4 * WIDTH, WIDTH), ("c_proj", WIDTH, 4 * WIDTH)):
            shapes |= {f"{block}.mlp.{name}.weight": (rows, columns), f"{block}.mlp.{name}.bias": (rows,)}
        shapes |= {f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": (3 * WIDTH,)}
        shapes |= {f"{block}.attn.out_proj.weight": (WIDTH, WIDTH), f"{block}.attn.out_proj.bias": (WIDTH,)}
    return {name: generator.normal(size=shape).astype(np.float32) / 4 for name, shape in shapes.items()}


def padded(texts: list[list[int]], length: int = LENGTH) -> np.ndarray:
    return np.array([[*text, END, *[0] * (length - len(text) - 1)] for text in texts], np.int64)


def assert_close(ours: np.ndarray, theirs: np.ndarray, relative: float = 1e-5) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())


@pytest.mark.skipif(not WITH_TEXTS, reason="the folder of reference outputs is not beside this repository")
@pytest.mark.parametrize("name", WITH_TEXTS)
def test_text_features_are_those_of_the_original(name: str) -> None:
    with safe_open(REFERENCE / f"{name}.safetensors", "numpy") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        heads = json.loads(file.metadata()["config"])["transformer_heads"]
    prefix = next(key for key in stored if key.endswith("token_embedding.weight")).removesuffix(
        "token_embedding.weight"
    )
    tensors = {key.removeprefix(prefix): tensor for key, tensor in stored.items() if key.startswith(prefix)}
    features = ClipText(tensors, heads=heads).encode(stored["input.token_ids"])
    assert_close(features, stored["output.text_features"])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_are_those_of_open_clip(activation: str) -> None:
    import torch

    tower = open_clip_tower(activation, 5, LENGTH, VOCABULARY, WIDTH, HEADS, 3, DIM)
    ids = padded([[1, 2, 3], [], [90] * (LENGTH - 1), [7, 7]])
    with torch.inference_mode():
        theirs = tower(torch.from_numpy(ids)).numpy()
    assert_close(ClipText(tensors_of(tower), heads=HEADS, activation=activation).encode(ids), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_of_a_tower_of_full_size_are_those_of_open_clip(activation: str) -> None:
    import torch

    tower = open_clip_tower(activation, 6, 77, 49408, 512, 8, 12, 512)
    ids = token_ids(["a dog runs through the snow", "", "a video of a person playing guitar.", "word " * 100])
    with torch.inference_mode():
        theirs = tower(torch.from_numpy(ids)).numpy()
    assert_close(ClipText(tensors_of(tower), heads=8, activation=activation).encode(ids), theirs)


@pytest.mark.slow
@settings(deadline=None)
@given(texts=st.lists(st.lists(st.integers(1, END - 1), max_size=LENGTH - 1), min_size=1, max_size=6), data=st.data())
def test_neither_padding_nor_company_nor_what_follows_the_end_counts(
    texts: list[list[int]], data: st.DataObject
) -> None:
    tower = ClipText(small_tensors(), heads=HEADS)
    together = tower.encode(padded(texts))
    for text, features in zip(texts, together, strict=True):
        assert_close(tower.encode(padded([text], len(text) + 1))[0], features)
        after = data.draw(st.integers(0, END))
        assert_close(tower.encode(np.where(padded([text]) == 0, after, padded([text])))[0], features)


def test_every_token_and_its_place_count() -> None:
    tower = ClipText(small_tensors(), heads=HEADS)
    features = tower.encode(padded([[1, 2, 3], [2, 1, 3], [1, 2, 4], [1, 2], [1, 2, 3]]))
    assert_close(features[4], features[0])
    for other in features[1:4]:
        assert np.abs(features[0] - other).max() > 0.01


def test_far_negative_values_are_no_warning_and_no_nan() -> None:
    tensors = small_tensors()
    tensors["transformer.resblocks.0.mlp.c_fc.bias"] = np.full(4 * WIDTH, -500, np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(ClipText(tensors, heads=HEADS).encode(padded([[1, 2]]))).all()


def test_more_texts_than_go_through_at_once_keep_their_order() -> None:
    tower = ClipText(small_tensors(), heads=HEADS)
    texts = [[1 + number % 90] * (1 + number % 3) for number in range(300)]
    expected = np.concatenate([tower.encode(padded([text])) for text in texts])
    assert_close(tower.encode(padded(texts)), expected)


def test_no_texts_have_no_features() -> None:
    assert ClipText(small_tensors(), heads=HEADS).encode(np.zeros((0, LENGTH), np.int64)).shape == (0, DIM)


def test_half_precision_is_computed_in_single(tmp_path: Path) -> None:
    half = {name: tensor.astype(np.float16) for name, tensor in small_tensors().items()}
    single = {name: tensor.astype(np.float32) for name, tensor in half.items()}
    save_file(half, tmp_path / "half.safetensors", {"heads": str(HEADS), "activation": "gelu"})
    expected = ClipText(single, heads=HEADS, activation="gelu").encode(padded([[5, 6]]))
    assert np.array_equal(ClipText(half, heads=HEADS, activation="gelu").encode(padded([[5, 6]])), expected)
    assert np.array_equal(ClipText.read(tmp_path / "half.safetensors").encode(padded([[5, 6]])), expected)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "text.safetensors"
    others = {"position_ids": np.arange(LENGTH), "visual.proj": np.zeros((3, 3), np.float32)}
    save_file({**small_tensors(), **others}, path, {"heads": str(HEADS), "activation": "quick_gelu"})
    return path


def test_a_tower_from_a_file_is_the_one_that_was_saved(written: Path) -> None:
    ids = padded([[1, 2, 3], [4]])
    assert np.array_equal(ClipText.read(written).encode(ids), ClipText(small_tensors(), heads=HEADS).encode(ids))


def test_of_the_table_of_tokens_only_what_is_needed_is_read(tmp_path: Path) -> None:
    rows = 400_000  # 51 MB
    tensors = small_tensors() | {"token_embedding.weight": np.zeros((rows, WIDTH), np.float32)}
    path = tmp_path / "large.safetensors"
    save_file(tensors, path, {"heads": str(HEADS), "activation": "quick_gelu"})
    del tensors
    code = f"""
import resource, sys
from pathlib import Path
import numpy as np
from vidx.encoders._clip_text import ClipText
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ClipText.read(Path(sys.argv[1])).encode(np.array([[1, 5, {rows - 1}]]))
grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
assert grown_bytes < 25_000_000, grown_bytes
assert not {{"torch", "open_clip"}} & sys.modules.keys()
"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_what_is_no_text_tower_is_refused(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    for name, content in {"cut": whole[:-9], "empty": b"", "text": b"no tensors" * 9}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsDamaged, match=f"{name} can't be read as a text tower"):
            ClipText.read(tmp_path / name)
    with pytest.raises(WeightsDamaged, match="absent can't be read"):
        ClipText.read(tmp_path / "absent")
    save_file(small_tensors(), tmp_path / "unlabelled")
    with pytest.raises(WeightsDamaged, match="heads"):
        ClipText.read(tmp_path / "unlabelled")


def test_missing_tensors_and_unknown_activations_are_named() -> None:
    name = "transformer.resblocks.1.mlp.c_proj.bias"
    without = {key: tensor for key, tensor in small_tensors().items() if key != name}
    with pytest.raises(WeightsMisfit, match=f"it lacks {name}"):
        ClipText(without, heads=HEADS)
    with pytest.raises(WeightsMisfit, match="no activation 'relu'"):
        ClipText(small_tensors(), heads=HEADS, activation="relu")
