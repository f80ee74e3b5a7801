"""VideoMAE classifiers: loaded from local files alone, the same as transformers makes of them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidx.encoders import videomae
from vidx.encoders.videomae import VideoMAEClassifier, from_folder, from_name, from_state_dict, position_table
from vidx.errors import UnknownChoice, WeightsDamaged, WeightsMisfit, WeightsMissing

pytestmark = [
    pytest.mark.slow,  # networks and their libraries take seconds to import
    pytest.mark.usefixtures("one_thread"),
]

modeling = pytest.importorskip("transformers.models.videomae.modeling_videomae")

CONFIG = {
    "model_type": "videomae",
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-6,
    "id2label": {"0": "archery", "1": "bowling", "2": "curling"},
    "label2id": {"archery": 0, "bowling": 1, "curling": 2},
    "architectures": ["VideoMAEForVideoClassification"],
}


def original(**changes):
    """transformers' own network with random weights, none of them at its start value."""
    from transformers import VideoMAEConfig

    network = modeling.VideoMAEForVideoClassification(VideoMAEConfig.from_dict({**CONFIG, **changes})).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return network


@pytest.fixture(scope="module")
def state():
    return original().state_dict()


@pytest.fixture
def folder(tmp_path, state):
    """As Hugging Face lays it out."""
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def frames(n_frames: int = 4, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, n_frames, side, side, 3), dtype=np.uint8)


def test_probabilities_are_those_of_transformers(folder):
    classifier = from_folder(folder)
    colours = (frames() / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    pixels = torch.tensor(colours, dtype=torch.float32).permute(0, 1, 4, 2, 3)
    expected = original()(pixel_values=pixels).logits.softmax(dim=1).detach().numpy()
    found = classifier.predict(frames())
    assert classifier.labels == ["archery", "bowling", "curling"]
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the two clips are not told alike


def test_labels_are_in_the_order_of_their_numbers(state):
    names = {str(number): f"name {number}" for number in reversed(range(12))}
    wide = {**state, "classifier.weight": torch.zeros(12, 24), "classifier.bias": torch.zeros(12)}
    labels = VideoMAEClassifier(from_state_dict(wide, config={**CONFIG, "id2label": names})).labels
    assert labels == [f"name {number}" for number in range(12)]


# Positions are in no file


@pytest.mark.parametrize(("n_tokens", "width"), [(8, 24), (1568, 12), (3, 7)])
def test_positions_are_those_of_transformers(n_tokens, width):
    expected = modeling.get_sinusoid_encoding_table(n_tokens, width).numpy()
    found = position_table(n_tokens, width)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)


def test_positions_are_right_after_loading(state):
    loaded = from_state_dict(state, config=CONFIG).videomae.embeddings.position_embeddings
    torch.testing.assert_close(loaded, original().videomae.embeddings.position_embeddings, atol=1e-6, rtol=0)


def test_positions_are_right_where_the_network_was_made_without_numbers(state, monkeypatch):
    expected = original().videomae.embeddings.position_embeddings
    made = lambda n_tokens, width: torch.empty(1, n_tokens, width, device="meta")  # noqa: E731
    monkeypatch.setattr(modeling, "get_sinusoid_encoding_table", made)
    network = from_state_dict(state, config=CONFIG)
    torch.testing.assert_close(network.videomae.embeddings.position_embeddings, expected, atol=1e-6, rtol=0)


def test_a_network_of_meta_tensors_runs(state):
    network = from_state_dict({key: tensor.to("meta") for key, tensor in state.items()}, config=CONFIG)
    assert network(pixel_values=torch.zeros(2, 4, 3, 32, 32, device="meta")).logits.shape == (2, 3)


def test_a_network_of_full_size_runs_on_the_meta_device():
    names = {str(number): f"name {number}" for number in range(400)}
    config = {"model_type": "videomae", "id2label": names, "num_hidden_layers": 1}
    from transformers import VideoMAEConfig

    with torch.device("meta"):
        state = modeling.VideoMAEForVideoClassification(VideoMAEConfig.from_dict(config)).state_dict()
    network = from_state_dict(state, config=config)
    assert network(pixel_values=torch.zeros(1, 16, 3, 224, 224, device="meta")).logits.shape == (1, 400)
    assert network.videomae.embeddings.position_embeddings.shape == (1, 1568, 768)


# Files of other versions, and files that don't fit


def test_names_from_before_transformers_5_load(state):
    names = {".attention.query.bias": ".attention.q_bias", ".attention.value.bias": ".attention.v_bias"}
    old = {}
    for key, tensor in state.items():
        for new_name, old_name in names.items():
            key = key.replace(new_name, old_name)
        old[key] = tensor
    assert sum(key.endswith(("q_bias", "v_bias")) for key in old) == 4
    loaded = from_state_dict(old, config=CONFIG).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())


def test_a_bias_under_both_its_names_is_refused(state):
    old = "videomae.encoder.layer.1.attention.attention.q_bias"
    with pytest.raises(WeightsMisfit, match=old):
        from_state_dict({**state, old: torch.zeros(24)}, config=CONFIG)


@pytest.mark.parametrize("eps", [1e-12, 0.25])
def test_the_eps_of_blocks_is_that_of_the_config(state, eps):
    network = from_state_dict(state, config={**CONFIG, "layer_norm_eps": eps})
    assert {layer.layernorm_before.eps for layer in network.videomae.encoder.layer} == {eps}
    assert {layer.layernorm_after.eps for layer in network.videomae.encoder.layer} == {eps}


def test_a_tensor_that_is_missing_or_of_a_wrong_shape_is_named(state):
    for key in state:
        with pytest.raises(WeightsMisfit) as refusal:
            from_state_dict({other: tensor for other, tensor in state.items() if other != key}, config=CONFIG)
        assert key in str(refusal.value)
        with pytest.raises(WeightsMisfit) as refusal:
            from_state_dict({**state, key: torch.zeros(5)}, config=CONFIG)
        assert key in str(refusal.value)


def test_a_tensor_too_many_is_named(state):
    with pytest.raises(WeightsMisfit, match=r"decoder\.head\.weight"):
        from_state_dict({**state, "decoder.head.weight": torch.zeros(2)}, config=CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "vit"},
        {"hidden_size": "wide"},
        {"num_attention_heads": 5},
        {"patch_size": 0},
    ],
)
def test_a_config_that_makes_no_such_network_is_refused(state, changes):
    with pytest.raises(WeightsMisfit, match="config"):
        from_state_dict(state, config={**CONFIG, **changes})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsMissing, match=name):
        from_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_cut_file_is_told_as_one(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsDamaged, match=name):
        from_folder(folder)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32, 3), (2, 4, 16, 16, 3), (2, 4, 32, 16, 3), (2, 4, 32, 32, 4)])
def test_other_frames_than_the_network_takes_are_refused(folder, shape):
    with pytest.raises(ValueError, match=r"takes|must be"):
        from_folder(folder).predict(np.zeros(shape, np.uint8))


# By name


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of Hugging Face's, and no way out of this machine."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path / "weights"))

    def refuse(*_):
        pytest.fail("something tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "hub"


def put(hub: Path, state, files=("config.json", "model.safetensors")) -> None:
    snapshot = hub / "models--some--classifier" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    if "config.json" in files:
        (snapshot / "config.json").write_text(json.dumps(CONFIG))
    if "model.safetensors" in files:
        save_file(state, snapshot / "model.safetensors")


def test_a_name_loads_what_is_in_the_cache(hub, folder, state):
    put(hub, state)
    found = from_name("videomae:some/classifier").predict(frames())
    assert np.array_equal(found, from_folder(folder).predict(frames()))


def test_a_name_loads_what_was_fetched(hub, tmp_path, folder, state):
    place = tmp_path / "weights" / "videomae:some/classifier"
    place.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (folder / file).rename(place / file)
    found = from_name("videomae:some/classifier").predict(frames())
    assert found == pytest.approx(VideoMAEClassifier(from_state_dict(state, config=CONFIG)).predict(frames()), abs=1e-6)


@pytest.mark.parametrize("files", [(), ("config.json",), ("model.safetensors",)])
def test_what_is_not_in_the_cache_is_missing_and_not_fetched(hub, state, files):
    put(hub, state, files)
    with pytest.raises(WeightsMissing) as refusal:
        from_name("videomae:some/classifier")
    assert "vidx encoders fetch videomae:some/classifier" in refusal.value.hint


@pytest.mark.parametrize("name", ["videomae:", "videomae:a/b/c", "videomae:../x", "videomae:a"])
def test_a_name_that_is_no_id_is_refused(hub, name):
    with pytest.raises(UnknownChoice, match="no id at Hugging Face"):
        from_name(name)


def test_each_published_classifier_has_weights_and_the_names_of_its_classes():
    assert len(videomae.NAMES) == 7
    for name, spec in videomae.NAMES.items():
        assert [file.role for file in spec.weights] == ["video", "config"]
        assert all(file.address.startswith(f"hf://{name.removeprefix('videomae:')}/") for file in spec.weights)
        assert spec.classifies
        assert (spec.space.frames, spec.space.preprocess.crop_px, spec.space.normalise) == (16, 224, "imagenet")


def test_a_classifier_is_fetched_by_its_name_and_then_loads(tmp_path, monkeypatch, folder):
    """The folder plays the hub: its files lie at /OWNER/NAME/resolve/main."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    from vidx import encoders
    from vidx.encoders._fetch import fetch

    root = tmp_path / "www"
    (root / "some/classifier/resolve").mkdir(parents=True)
    (root / "some/classifier/resolve/main").symlink_to(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=root))
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    fetch(encoders.spec("videomae:some/classifier"), lambda *_: None)
    server.shutdown()
    server.server_close()
    assert from_name("videomae:some/classifier").labels == ["archery", "bowling", "curling"]
