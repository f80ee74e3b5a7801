"""MoViNet against the original's outputs, against its definition in NumPy, and as a stream against whole clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.encoders._reference import compare
from vidx.encoders.movinet import MoViNetClassifier, from_state_dict
from vidx.errors import WeightsMisfit

pytestmark = [
    pytest.mark.slow,  # networks and their libraries take seconds to import
    pytest.mark.usefixtures("one_thread"),
]

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
FILES = sorted(path.stem for path in REFERENCE.glob("movinet-*.safetensors"))
LISTINGS = sorted(path.stem for path in (REFERENCE / "keys").glob("movinet-*.json"))
MOST_ON_CPU = 6_000_000  # parameters; of larger networks only the shapes are computed, on the meta device

FORMS = ["base 3d", "base 2plus1d", "causal 3d", "causal 2plus1d"]
N_CLASSES = 5
NORM = ("weight", "bias", "running_mean", "running_var")
# Channels in, expanded, out; kernel in time and in space; whether it halves the picture.
BLOCKS = {
    "b0_l0": (8, 24, 8, 1, 5, True),
    "b1_l0": (8, 16, 12, 3, 3, True),
    "b1_l1": (12, 20, 12, 5, 3, False),
    "b2_l0": (12, 24, 16, 3, 5, False),
}


def random_state(form: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A small network under the names of released files."""
    flat, causal = form.endswith("2plus1d"), form.startswith("causal")
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def part(name: str, shape: tuple[int, ...], bias: bool) -> None:
        n_out, n_inputs = shape[0], np.prod(shape[1:])
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * 1.5 / n_inputs**0.5
        if bias:
            state[f"{name}.bias"] = torch.randn(n_out, generator=generator)
            return
        norm = name.rpartition(".")[0] + ".norm"
        for statistic in ("weight", "running_var"):
            state[f"{norm}.{statistic}"] = 0.5 + torch.rand(n_out, generator=generator)
        for statistic in ("bias", "running_mean"):
            state[f"{norm}.{statistic}"] = torch.randn(n_out, generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    def layer(name: str, n_out: int, n_in: int, kernel: tuple[int, int, int] = (1, 1, 1), bias: bool = False) -> None:
        if not flat:
            part(f"{name}.conv_1.conv3d", (n_out, n_in, *kernel), bias)
            return
        part(f"{name}.conv_1.conv2d", (n_out, n_in, *kernel[1:]), bias)
        if kernel[0] > 1:
            part(f"{name}.conv_2.conv2d", (n_out, n_in, kernel[0], 1), bias)

    layer("conv1", 8, 3, (1, 3, 3))
    for name, (n_in, width, n_out, n_frames, side, strided) in BLOCKS.items():
        layer(f"blocks.{name}.expand", width, n_in)
        layer(f"blocks.{name}.deep", width, 1, (n_frames, side, side))
        layer(f"blocks.{name}.se.fc1", 8, 2 * width if causal else width, bias=True)
        layer(f"blocks.{name}.se.fc2", width, 8, bias=True)
        layer(f"blocks.{name}.project", n_out, width)
        if strided or n_in != n_out:
            layer(f"blocks.{name}.res.{int(strided)}", n_out, n_in)
        state[f"blocks.{name}.alpha"] = torch.tensor(0.7)
    layer("conv7", 32, 16)
    layer("classifier.0", 40, 32, bias=True)
    layer("classifier.3", N_CLASSES, 40, bias=True)
    return state


def video(side: int = 19, n_frames: int = 7, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, n_frames, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def stream_network():
    return from_state_dict(random_state("causal 2plus1d"))


# Against the original


@pytest.mark.skipif(not FILES, reason="the reference files are not beside this repository")
@pytest.mark.parametrize("name", FILES)
def test_outputs_are_those_of_the_original(name):
    compared = list(compare(REFERENCE / f"{name}.safetensors"))
    assert len(compared) >= 5
    assert [output for output in compared if not output.within] == []


@pytest.mark.skipif(not LISTINGS, reason="the listings of released keys are not beside this repository")
@pytest.mark.parametrize("name", LISTINGS)
def test_a_file_with_the_keys_of_a_released_one_makes_a_network_that_runs(name):
    listing = json.loads((REFERENCE / "keys" / f"{name}.json").read_text())
    on_cpu = listing["parameters"] < MOST_ON_CPU
    device, n_frames, side = ("cpu", 2, 64) if on_cpu else ("meta", 120, 320)
    shapes = listing["sections"][""]
    network = from_state_dict({key: torch.full(shape, 0.01, device=device) for key, shape in shapes.items()})

    assert {key: list(tensor.shape) for key, tensor in network.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in network.parameters()) == listing["parameters"]
    assert network.causal == ("stream" in name)
    assert network(torch.zeros(1, 3, n_frames, side, side, device=device)).shape == (1, 600)


# Against the definition


def naive_logits(form: str, state: dict[str, torch.Tensor], clip: np.ndarray) -> np.ndarray:
    """The network by its definition: every frame from all frames it may see, one kernel position after the other."""
    flat, causal = form.endswith("2plus1d"), form.startswith("causal")
    weights = {key: tensor.double().numpy() for key, tensor in state.items()}
    sigmoid = (lambda x: np.clip(0.2 * x + 0.5, 0, 1)) if flat else (lambda x: 1 / (1 + np.exp(-x)))

    def activation(x):
        return x * np.clip(x + 3, 0, 6) / 6 if flat else x / (1 + np.exp(-x))

    def convolved(x, weight, stride):
        n_frames, height, width = weight.shape[2:]
        ahead = 0 if causal else n_frames // 2
        sides = [-(-size // stride) for size in x.shape[2:]]
        pads = [
            max((out - 1) * stride + k - size, 0)
            for out, k, size in zip(sides, (height, width), x.shape[2:], strict=True)
        ]
        x = np.pad(x, ((0, 0), (n_frames - 1 - ahead, ahead), *((pad // 2, pad - pad // 2) for pad in pads)))
        result = np.zeros((len(weight), x.shape[1] - n_frames + 1, *sides))
        for t, i, j in np.ndindex(n_frames, height, width):
            seen = x[:, t : t + result.shape[1], i : i + stride * sides[0] : stride, j : j + stride * sides[1] : stride]
            kernel = weight[:, :, t, i, j]
            result += kernel[:, :, None, None] * seen if kernel.shape[1] == 1 else np.tensordot(kernel, seen, 1)
        return result

    def layer(name, x, stride=1, activated=True):
        for number in ("conv_1", "conv_2"):
            place = f"{name}.{number}"
            kind = f"{place}.conv2d" if flat else f"{place}.conv3d"
            if f"{kind}.weight" not in weights:
                break
            weight = weights[f"{kind}.weight"]
            if flat:
                weight = weight[:, :, None] if number == "conv_1" else weight[..., None]
            x = convolved(x, weight, stride if number == "conv_1" else 1)
            if f"{kind}.bias" in weights:
                x = x + weights[f"{kind}.bias"][:, None, None, None]
                continue
            norm = {key: weights[f"{place}.norm.{key}"][:, None, None, None] for key in NORM}
            x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3) * norm["weight"] + norm["bias"]
            x = activation(x) if activated else x
        return x

    def pooled(x):
        halves = [-(-size // 2) for size in x.shape[2:]]
        result = np.zeros((*x.shape[:2], *halves))
        shift = [size % 2 for size in x.shape[2:]]
        for i, j in np.ndindex(*halves):
            top, left = 2 * i - shift[0], 2 * j - shift[1]
            seen = x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3]
            result[:, :, i, j] = seen.mean(axis=(2, 3))
        return result

    def means_so_far(x):
        return np.stack([x[:, : t + 1].mean(axis=1) for t in range(x.shape[1])], axis=1)

    x = layer("conv1", clip.astype(np.float64), stride=2)
    for name, (n_in, _, n_out, _, _, strided) in BLOCKS.items():
        block = f"blocks.{name}"
        shortcut = pooled(x) if strided else x
        if strided or n_in != n_out:
            shortcut = layer(f"{block}.res.{int(strided)}", shortcut, activated=False)
        inner = layer(f"{block}.deep", layer(f"{block}.expand", x), stride=2 if strided else 1)
        now = inner.mean(axis=(2, 3), keepdims=True)
        squeezed = np.concatenate([means_so_far(now), now]) if causal else now.mean(axis=1, keepdims=True)
        gate = sigmoid(layer(f"{block}.se.fc2", activation(layer(f"{block}.se.fc1", squeezed))))
        x = shortcut + 0.7 * layer(f"{block}.project", inner * gate, activated=False)
    x = layer("conv7", x).mean(axis=(1, 2, 3), keepdims=True)
    hidden = layer("classifier.0", x)
    return layer("classifier.3", hidden / (1 + np.exp(-hidden))).ravel()


@pytest.mark.parametrize("side", [19, 24, 33])  # odd and even where the shortcut is pooled, both times
@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_the_definition(form, side):
    state, clip = random_state(form, seed=side), video(side, seed=side)
    network = from_state_dict(state)
    assert network.causal == form.startswith("causal")
    assert network(clip)[0].numpy() == pytest.approx(naive_logits(form, state, clip[0].numpy()), abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 4), (7, 6)])
def test_pooling_averages_what_is_inside_the_picture(size):
    from vidx.encoders._movinet_network import HalvingPool

    frames = torch.randn(2, 3, 2, *size, generator=torch.Generator().manual_seed(0))
    pooled = HalvingPool()(frames)
    assert pooled.shape[3:] == tuple((side + 1) // 2 for side in size)
    for row in range(pooled.shape[3]):
        for column in range(pooled.shape[4]):
            top, left = 2 * row - size[0] % 2, 2 * column - size[1] % 2
            inside = frames[..., max(top, 0) : top + 3, max(left, 0) : left + 3]
            torch.testing.assert_close(pooled[..., row, column], inside.mean((3, 4)), atol=1e-6, rtol=0)


# As a stream


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_split_of_a_video_gives_the_logits_of_the_whole(stream_network, lengths, seed):
    clip = video(n_frames=sum(lengths), batch=2, seed=seed)
    after = stream_network.stream(clip.split(lengths, dim=2))
    assert after.shape == (2, len(lengths), N_CLASSES)
    for number in range(len(lengths)):
        whole = stream_network(clip[:, :, : sum(lengths[: number + 1])])
        torch.testing.assert_close(after[:, number], whole, atol=1e-5, rtol=0)


def test_frames_that_are_past_still_count(stream_network):
    """Otherwise a stream that forgot everything would pass for one that splits well."""
    clip, other = video(n_frames=6), video(n_frames=6, seed=1)
    _, state = stream_network.step(other)
    remembering, _ = stream_network.step(clip, state)
    assert (remembering - stream_network(clip)).abs().max() > 1e-2


def test_two_videos_taken_in_turns_do_not_disturb_each_other(stream_network):
    clips = [video(seed=1), video(side=26, seed=2)]
    states, last = [None, None], [None, None]
    for frame in range(7):
        for number, clip in enumerate(clips):
            last[number], states[number] = stream_network.step(clip[:, :, frame : frame + 1], states[number])
    for logits, clip in zip(last, clips, strict=True):
        torch.testing.assert_close(logits, stream_network(clip), atol=1e-5, rtol=0)


def test_a_step_leaves_the_state_it_was_given(stream_network):
    clip = video()
    _, state = stream_network.step(clip[:, :, :3])
    held = [tensor.clone() for tensor in state.held]
    first, _ = stream_network.step(clip[:, :, 3:], state)
    again, _ = stream_network.step(clip[:, :, 3:], state)
    assert torch.equal(first, again)
    assert state.n_frames == 3
    assert all(torch.equal(before, now) for before, now in zip(held, state.held, strict=True))


def test_a_state_is_small_and_does_not_grow(stream_network):
    """It holds what the kernels reach back over, and no activations of all that was seen."""
    sizes = []
    for n_frames in (1, 30):
        _, state = stream_network.step(video(n_frames=n_frames))
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in state.held)
        sizes.append(sum(tensor.nbytes for tensor in state.held))
    assert sizes[0] == sizes[1]


def test_a_state_of_other_streams_is_refused(stream_network):
    _, state = stream_network.step(video())
    for other in (video(batch=2), video(side=40)):
        with pytest.raises(ValueError, match="it began with"):
            stream_network.step(other, state)
    with pytest.raises(ValueError, match="at least one frame"):
        stream_network.step(video(n_frames=0), state)


# Files that don't fit


@pytest.mark.parametrize("form", ["base 3d", "causal 2plus1d"])
def test_a_missing_tensor_is_named(form):
    state = random_state(form)
    for key in state:
        with pytest.raises(WeightsMisfit) as refusal:
            from_state_dict({other: tensor for other, tensor in state.items() if other != key})
        assert key in str(refusal.value)


@pytest.mark.parametrize("form", ["base 3d", "causal 2plus1d"])
def test_a_tensor_of_a_wrong_shape_is_named(form):
    state = random_state(form)
    for key, tensor in state.items():
        wrong = torch.zeros([tensor.shape[0] + 1, *tensor.shape[1:]] if tensor.ndim else [1])
        with pytest.raises(WeightsMisfit) as refusal:
            from_state_dict({**state, key: wrong}, num_classes=N_CLASSES)
        assert key in str(refusal.value)
        if tensor.ndim > 1:
            with pytest.raises(WeightsMisfit) as refusal:
                from_state_dict({**state, key: tensor.flatten()}, num_classes=N_CLASSES)
            assert key in str(refusal.value)


@pytest.mark.parametrize(
    "key",
    [
        "head.weight",
        "conv1.conv_1.conv3d.weight",
        "blocks.b1_l1.res.0.conv_1.norm.bias",
        "blocks.b0_l0.res.0.conv_1.conv2d.weight",
        "blocks.b3_l0.alpha",
        "blocks.b999999999999_l0.alpha",
        "blocks.b0_l999999999999.alpha",
    ],
)
def test_a_tensor_too_many_is_refused(key):
    with pytest.raises(WeightsMisfit, match=r"lacks"):
        from_state_dict({**random_state("causal 2plus1d"), key: torch.zeros(8, 8, 1, 1)})


def test_an_even_number_of_frames_to_look_at_is_refused():
    state = random_state("base 3d")
    key = "blocks.b1_l0.deep.conv_1.conv3d.weight"
    with pytest.raises(WeightsMisfit, match=key):
        from_state_dict({**state, key: state[key][:, :, :2]})


def test_a_fact_that_the_tensors_contradict_is_refused():
    with pytest.raises(WeightsMisfit, match=r"se\.fc1"):
        from_state_dict(random_state("base 3d"), causal=True)


def test_names_from_training_on_several_devices_load():
    state = random_state("base 3d")
    wrapped = {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "epoch": 3}
    assert torch.equal(from_state_dict(wrapped)(video()), from_state_dict(state)(video()))


# As a classifier


def pictures(n_frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, n_frames, 20, 20, 3), dtype=np.uint8)


def test_probabilities_are_those_of_frames_from_0_to_1(stream_network):
    classifier = MoViNetClassifier(stream_network)
    found = classifier.predict(pictures())
    scores = stream_network(torch.from_numpy(pictures()).permute(0, 4, 1, 2, 3) / 255)
    assert found.dtype == np.float32
    assert found == pytest.approx(torch.softmax(scores, 1).numpy(), abs=1e-6)
    assert found.sum(axis=1) == pytest.approx(np.ones(2), abs=1e-6)
    assert classifier.labels == [f"class {number}" for number in range(N_CLASSES)]


def test_a_stream_of_pictures_ends_where_the_whole_clip_does(stream_network):
    classifier, state = MoViNetClassifier(stream_network), None
    for at in range(4):
        found, state = classifier.step(pictures()[:, at : at + 1], state)
    assert found == pytest.approx(classifier.predict(pictures()), abs=1e-5)


def test_six_hundred_classes_are_those_of_kinetics():
    state = random_state("base 3d")
    state["classifier.3.conv_1.conv3d.weight"] = torch.zeros(600, 40, 1, 1, 1)
    state["classifier.3.conv_1.conv3d.bias"] = torch.zeros(600)
    labels = MoViNetClassifier(from_state_dict(state)).labels
    assert len(set(labels)) == 600
    assert (labels[0], labels[17], labels[599]) == ("abseiling", "backflip (human)", "zumba")


def test_labels_can_be_given_one_for_each_class(stream_network):
    assert MoViNetClassifier(stream_network, "abcde").labels == list("abcde")
    with pytest.raises(WeightsMisfit, match="5 classes apart, but there are 2"):
        MoViNetClassifier(stream_network, ["run", "jump"])


@pytest.mark.parametrize(
    "frames", [pictures()[:, :, :10], pictures().astype(np.float32), pictures()[0], pictures()[..., :1]]
)
def test_other_frames_than_square_uint8_rgb_are_refused(stream_network, frames):
    with pytest.raises(ValueError, match="frames must be uint8"):
        MoViNetClassifier(stream_network).predict(frames)


def test_a_network_that_looks_ahead_takes_no_streams():
    classifier = MoViNetClassifier(from_state_dict(random_state("base 3d")))
    with pytest.raises(ValueError, match="causal"):
        classifier.step(pictures(), None)
