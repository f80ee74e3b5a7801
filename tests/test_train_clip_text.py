"""Fine-tuning of Text4Vis, ActionCLIP and X-CLIP, on small networks and clips of two easily told classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vidx import encoders
from vidx.encoders._heads import EPS_MMACTION2
from vidx.encoders._tokenizer import token_ids
from vidx.errors import InputError
from vidx.indexer.sampling import segment_starts
from vidx.learn.protocols import AS_AUTHORS, protocol_of
from vidx.pixels import NORMALISATIONS
from vidx.tests.small_networks import FRAMES, SIDE_PX, networks, weights
from vidx.train import clip_text_run
from vidx.train.classifier import Batch, Classifier
from vidx.train.clip_text import TextRecipe, matching_loss
from vidx.train.clip_text_data import drawn_frames, segment_view
from vidx.train.clip_text_run import TextPlan, begun, module_of, train_clip_text
from vidx.train.loop import Settings

__all__ = ["networks", "weights"]  # fixtures

pytestmark = [
    pytest.mark.slow,  # networks and their libraries take seconds to import
    pytest.mark.usefixtures("one_thread"),
]

NAMES = ["green", "red"]
STARTS = {
    "text4vis": "text4vis-vitb32-f8",
    "actionclip": "actionclip-vitb32-8f",
    "xclip": "xclip-zero",
}
PORT = "actionclip-mmaction2-vitb32-8f"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A square that moves over a dark ground, red in one class and green in the other; 20 videos of each."""
    folder = tmp_path_factory.mktemp("videos")
    for channel, name in enumerate(reversed(NAMES)):
        (folder / name).mkdir()
        for number in range(20):

            def draw(at: int, size: tuple[int, int], c: int = channel, n: int = number) -> np.ndarray:
                frame = np.full((size[1], size[0], 3), 20 + 2 * n, np.uint8)
                top, left = (n + at) % 20, (3 * n + at) % 30
                frame[top : top + 26, left : left + 30, c] = 240
                return frame

            make_video(
                folder / name / f"v_{name}_g{1 + number // 2:02}_c{1 + number % 2:02}.avi", n_frames=10, draw=draw
            )
    return folder


def plan_of(root: Path, family: str, **chosen: Any) -> TextPlan:
    return TextPlan(root=root, weights=STARTS[family], **{"epochs": 1, "batch": 4, "learning_rate": 1e-3, **chosen})


def ignored(_line: dict[str, Any]) -> None:
    pass


def small_module(family: str, start: str | None = None) -> Classifier:
    spec, network = begun(family, encoders.here(start or STARTS[family]), 0)
    return module_of(spec, network, NAMES)


def batch_of(n: int = 4) -> Batch:
    pictures = torch.randint(256, (n, FRAMES, SIDE_PX, SIDE_PX, 3), generator=torch.Generator().manual_seed(1))
    return Batch(pictures.to(torch.uint8), torch.tensor([0, 1, 1, 0][:n]))


def colours_of(batch: Batch, normalise: str) -> torch.Tensor:
    colours = NORMALISATIONS[normalise]
    levels = (batch.pictures.double() / 255 - torch.tensor(colours.mean)) / torch.tensor(colours.std)
    return levels.float().permute(0, 1, 4, 2, 3)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 5))
def test_a_frame_of_each_segment_is_drawn(n: int, frames: int, seed: int) -> None:
    candidates = segment_starts(n, 4 * frames)
    places = drawn_frames(candidates, n, frames, np.random.default_rng(seed))
    drawn = candidates[places]
    assert drawn.shape == (frames,)
    assert (np.diff(drawn) >= 0).all()
    if n <= frames:
        assert set(drawn) == set(range(n))
    else:
        bounds = [k * n // frames for k in range(frames + 1)]
        assert all(low <= at < high for low, at, high in zip(bounds, drawn, bounds[1:], strict=False))


def test_each_frame_of_a_short_video_can_be_drawn() -> None:
    drawn = {
        int(at)
        for seed in range(200)
        for at in segment_starts(10, 12)[drawn_frames(segment_starts(10, 12), 10, 3, np.random.default_rng(seed))]
    }
    assert drawn == set(range(10))


def test_a_batch_is_a_pure_function_of_its_number(root: Path) -> None:
    plan, module = plan_of(root, "text4vis"), small_module("text4vis")
    look = protocol_of(encoders.here(plan.weights), AS_AUTHORS).look
    parts = plan.parts()
    torch.manual_seed(9)

    def batch(number: int, *, seed: int = 0, mirrors: bool = True) -> torch.Tensor:
        with TextRecipe(module, segment_view(look, mirrors), parts, batch=2, seed=seed) as recipe:
            return recipe.batch(number).pictures

    first, straight, other_seed = batch(2), batch(2, mirrors=False), batch(2, seed=1)
    assert first.shape == (2, FRAMES, SIDE_PX, SIDE_PX, 3)
    assert not torch.equal(other_seed, first)
    for one, other in zip(first, straight, strict=True):
        assert torch.equal(one, other) or torch.equal(one.flip(2), other)


def test_text4vis_learns_by_cross_entropy_with_fixed_texts() -> None:
    module, batch = small_module("text4vis"), batch_of()
    encoder: Any = encoders.build(encoders.here(STARTS["text4vis"]))
    with torch.no_grad():
        videos = encoder.network.video_features(colours_of(batch, "clip")).numpy()
    texts = encoder.encode_text([f"a video of a person {name}." for name in NAMES])
    logits = float(encoder.network.logit_scale.exp()) * unit(videos) @ unit(texts).T
    expected = -log_softmax(logits)[np.arange(4), batch.labels].mean()
    assert module(batch)["classes"].item() == pytest.approx(expected, rel=1e-4)


def test_xclip_learns_by_cross_entropy_with_texts_adjusted_to_each_video() -> None:
    module, batch = small_module("xclip"), batch_of()
    encoder: Any = encoders.build(encoders.here(STARTS["xclip"]))
    ids = torch.from_numpy(token_ids(NAMES))
    with torch.no_grad():
        whole = encoder.network.model(input_ids=ids, pixel_values=colours_of(batch, "imagenet"))
    expected = -log_softmax(whole.logits_per_video.numpy())[np.arange(4), batch.labels].mean()
    assert module(batch)["classes"].item() == pytest.approx(expected, rel=1e-4)


def test_actionclip_learns_which_clips_and_texts_belong_together() -> None:
    module, batch = small_module("actionclip"), batch_of()
    encoder: Any = encoders.build(encoders.here(STARTS["actionclip"]))
    torch.manual_seed(7)
    templates = torch.randint(16, (4,)).tolist()
    texts = encoder.encode_text(
        [
            encoder.spec.templates[t].replace("{}", NAMES[label])
            for t, label in zip(templates, batch.labels, strict=True)
        ]
    )
    with torch.no_grad():
        videos = encoder.network.video_features(colours_of(batch, "clip")).numpy()
    logits = float(encoder.network.logit_scale.exp()) * unit(videos) @ unit(texts).T
    matches = np.exp(10 * (batch.labels[:, None] == batch.labels).double().numpy())
    matches /= matches.sum(1, keepdims=True)
    both = [(matches * (np.log(matches) - log_softmax(side))).sum(1).mean() for side in (logits, logits.T)]
    torch.manual_seed(7)
    assert module(batch)["matching"].item() == pytest.approx(np.mean(both), rel=1e-4)


def test_a_perfect_match_costs_next_to_nothing() -> None:
    labels = torch.tensor([0, 1, 0])
    alike = (labels[:, None] == labels).float()
    assert matching_loss(10 * alike, labels).item() == pytest.approx(0, abs=1e-6)
    assert matching_loss(-10 * alike, labels).item() > 5


def test_actionclip_tells_by_the_mean_of_probabilities_over_templates() -> None:
    module, batch = small_module("actionclip").eval(), batch_of()
    encoder: Any = encoders.build(encoders.here(STARTS["actionclip"]))
    texts = encoder.encode_text([t.replace("{}", name) for t in encoder.spec.templates for name in NAMES])
    with torch.no_grad():
        videos = encoder.network.video_features(colours_of(batch, "clip")).numpy()
        found = module.logits(batch.pictures).exp().numpy()
    cosines = np.einsum("bd,pkd->pbk", unit(videos), unit(texts).reshape(16, 2, -1))
    expected = np.mean([np.exp(log_softmax(100 * one)) for one in cosines], axis=0)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        ("text4vis", ("text.",)),
        ("actionclip", ()),
        ("xclip", ("model.text_model.", "model.text_projection.", "model.logit_scale")),
    ],
)
def test_frozen_parts_stay_as_they_are_and_the_others_move(family: str, frozen: tuple[str, ...]) -> None:
    module = small_module(family).train()
    before = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-2)
    for number in range(2):
        torch.manual_seed(number)
        sum(module(batch_of()).values(), torch.zeros(())).backward()
        optimizer.step()
    still = {name for name, tensor in module.network.state_dict().items() if torch.equal(tensor, before[name])}
    unused = {name for name in before if name.startswith(("head.frame_position", "text.token", "text.positional"))}
    assert still - unused == {name for name in before if name.startswith(frozen)} - unused


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_text_run, "tested", lambda *_: None)
    plan = plan_of(root, "actionclip", epochs=2, shots=2, batch=2)
    train_clip_text("actionclip", tmp_path / "whole", plan, ignored)

    def stop(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_clip_text("actionclip", tmp_path / "stopped", plan, stop)
    train_clip_text("actionclip", tmp_path / "stopped", plan, ignored)
    whole, stopped = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["module"] for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    with pytest.raises(InputError, match="holds a model of another run"):
        train_clip_text("actionclip", tmp_path / "whole", replace(plan, names="words"), ignored)


@pytest.mark.parametrize(
    ("family", "start"),
    [*STARTS.items(), ("actionclip", PORT), *((family, "clip-vitb32") for family in STARTS)],
)
def test_the_folder_is_an_encoder_with_the_vectors_of_what_was_trained(
    family: str, start: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Classifier] = []

    def step(recipe: TextRecipe, _settings: Settings, folder: Path, _tell: object) -> None:
        """In the place of a training, one step."""
        made.append(recipe.module)
        optimizer = torch.optim.AdamW([p for p in recipe.module.parameters() if p.requires_grad], 1e-3)
        sum(recipe.module(batch_of()).values(), torch.zeros(())).backward()
        optimizer.step()
        save_file(
            {name: tensor.contiguous() for name, tensor in recipe.weights().items()}, folder / "model.safetensors"
        )

    monkeypatch.setattr(clip_text_run, "tested", lambda *_: None)
    monkeypatch.setattr(clip_text_run, "fit", step)
    plan = replace(plan_of(root, family, shots=1, batch=2), weights=start)
    train_clip_text(family, tmp_path, plan, ignored)
    spec = encoders.here(str(tmp_path))
    assert (spec.family, spec.space.frames, spec.space.dim) == (family, FRAMES, 64)
    assert spec.test_scale == (None if family == "xclip" else 100.0)
    assert len(spec.templates) == (16 if family == "actionclip" else 1)
    encoder, batch = encoders.build(spec), batch_of(2)
    network: Any = made[0].network.eval()
    with torch.no_grad():
        videos = network.video_features(colours_of(batch, spec.space.normalise or "")).numpy()
        texts = network.text_features(torch.from_numpy(token_ids(NAMES))).numpy()
    assert encoder.encode_video(batch.pictures.numpy()) == pytest.approx(unit(videos), abs=2e-5)
    assert encoder.encode_text(NAMES) == pytest.approx(unit(texts), abs=2e-5)
    _, again = begun(family, spec, 0)  # it may be trained on
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())
    if start == PORT:
        norm: Any = network.head.transformer.resblocks[0].ln_1
        assert norm.eps == EPS_MMACTION2
        assert "adapter.frame_position_embeddings.weight" in load_file(tmp_path / "model.safetensors")


def test_a_beginning_with_a_clip_keeps_all_of_it(weights: Path) -> None:
    clip = torch.load(weights / "clip.pt", weights_only=True)
    network: Any = begun("text4vis", encoders.here("clip-vitb32"), 0)[1]
    assert torch.equal(network.visual.conv1.weight, clip["visual.conv1.weight"])
    head = network.head.state_dict()
    assert len(network.head.transformer.resblocks) == 6
    assert float(head["transformer.resblocks.0.mlp.c_fc.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(head["frame_position_embeddings.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert not head["transformer.resblocks.0.mlp.c_fc.bias"].any()
    model: Any = begun("xclip", encoders.here("clip-vitb32"), 0)[1]
    state = model.model.state_dict()
    assert torch.equal(state["vision_model.embeddings.patch_embedding.weight"], clip["visual.conv1.weight"])
    assert state["mit.position_embedding"].shape == (1, FRAMES, 64)
    assert (state["prompts_generator.alpha"] == 0.1).all()
    again: Any = begun("xclip", encoders.here("clip-vitb32"), 0)[1]
    assert all(torch.equal(state[name], tensor) for name, tensor in again.model.state_dict().items())


@pytest.mark.parametrize("family", list(STARTS))
def test_the_command_beats_its_beginning_in_a_few_steps(family: str, root: Path, tmp_path: Path) -> None:
    from vidx import cli_train_encoders

    rate = {"text4vis": "1e-3", "actionclip": "3e-3", "xclip": "1e-3"}[family]
    asked = [str(root), str(tmp_path / "run"), "--encoder", STARTS[family], "--learning-rate", rate]
    few = ["--epochs", "7", "--threads", "1", "--no-mirror"]
    command = getattr(cli_train_encoders, family)
    done = CliRunner().invoke(command, [*asked, *few, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    *_, last = map(json.loads, done.stdout.splitlines())
    figures = last["test"]
    assert figures["trained"]["items"] == 8
    assert figures["trained"]["top1"] > figures["before"]["top1"]
    assert figures["trained"]["top1"] >= 0.75
    assert figures["trained"]["top5"] == 1.0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert np.sum(report["figures"]["trained"]["confusion"]) == 8
    for picture in ("confusion_trained.png", "curves.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_folder_serves_index_tag_and_eval(root: Path, tmp_path: Path) -> None:
    from vidx.cli import vidx
    from vidx.cli_train_encoders import text4vis

    def run(command: click.Command, *asked: Path | str) -> str:
        done = CliRunner().invoke(command, [str(word) for word in asked], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    folder, store = tmp_path / "run", tmp_path / "store"
    few = ("--epochs", "7", "--learning-rate", "1e-3", "--threads", "1")
    told = run(text4vis, root, folder, "--encoder", STARTS["text4vis"], *few).splitlines()
    assert told[0].startswith("step 4, ")
    assert [line.split(":")[0] for line in told[-4:-1]] == ["test, trained", "test, before", "report"]
    run(vidx, "index", root, "--store", store, "--encoder", folder)
    (tmp_path / "labels.txt").write_text("green\nred\n")
    run(vidx, "tag", "--store", store, "--labels", tmp_path / "labels.txt")
    asked = ("--dataset", "folder", "--store", store, "--encoder", folder, "--json")
    [measured] = json.loads(run(vidx, "eval", "zero-shot", root, *asked))["figures"]["encoders"]
    assert measured["encoder"] == "trained:run"
    assert measured["top1"] >= 0.9


def test_an_encoder_of_another_family_is_refused(root: Path, tmp_path: Path) -> None:
    for start in (STARTS["xclip"], "conse"):
        plan = replace(plan_of(root, "text4vis"), weights=start)
        with pytest.raises(InputError, match="is no text4vis and no CLIP"):
            train_clip_text("text4vis", tmp_path / "run", plan, ignored)
    assert not (tmp_path / "run").exists()
