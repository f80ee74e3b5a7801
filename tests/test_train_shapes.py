"""Training `shapes`: from the command line to an encoder, and what its network must be whatever it has learned."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from vidx import encoders
from vidx.cli_train import train
from vidx.encoders._small_tokens import LENGTH, small_token_ids
from vidx.encoders._towers import unit
from vidx.errors import VidxError, WeightsDamaged, WeightsMissing
from vidx.train.shapes import network as network_module
from vidx.train.shapes.data import captions_of, clips, stream
from vidx.train.shapes.network import Size
from vidx.train.shapes.pool import make_pool
from vidx.train.shapes.recipe import ClipRecipe, contrast, new_shapes
from vidx.train.shapes.report import figures_of
from vidx.train.shapes.run import Plan, train_shapes
from vidx.train.shapes.scenes import MOTIONS, PAIRS

Run = Callable[..., subprocess.CompletedProcess[str]]

SMALL = Size(patch_px=16, vision=64, vision_layers=1, mit_layers=1, text=64, text_layers=1, dim=64)
PLAN = {"frame_steps": 2, "clip_steps": 4, "frames_at_once": 4, "clips_at_once": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with an encoder that has learned next to nothing."""
    return train_small(tmp_path_factory.mktemp("trained") / "small")


@pytest.fixture(scope="module")
def frame_mean(tmp_path_factory) -> Path:
    return train_small(tmp_path_factory.mktemp("trained") / "control", frame_mean=True)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> list[Any]:
    return make_pool(tmp_path_factory.mktemp("pool"), 24, seed=5)


def train_small(folder: Path, **changes: Any) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vidx.train.shapes.run.SIZE", SMALL)
        patched.setattr("vidx.train.shapes.recipe._TEST_CLIPS", 8)
        patched.setattr("vidx.train.shapes.run_report.CLIPS", 6)
        train_shapes(folder, Plan(**{**PLAN, **changes}), lambda line: None)
    return folder


def encoder_in(folder: Path):
    return encoders.build(encoders.here(str(folder)))


def test_a_training_ends_with_a_report_of_which_motions_are_taken_for_which(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    assert np.sum(report["figures"]["confusion"]) == 12
    assert set(report["figures"]["held out"]) == {"recall_1", "recall_5", "motion"}
    assert (trained / "confusion.png").read_bytes().startswith(b"\x89PNG")
    text = (trained / "report.md").read_text()
    assert all(motion in text for motion in MOTIONS)


# The network


def test_texts_end_at_the_largest_id_and_any_text_has_tokens() -> None:
    _, tokenizer = new_shapes(SMALL, 0, frames=8)
    ids = small_token_ids(tokenizer, ["a red circle moves up", "Zürich, 日本 🎬", "", "word " * 100])
    assert ids.shape == (4, LENGTH)
    end = tokenizer.get_vocab_size() - 1
    assert ids.max(axis=1).tolist() == [end] * 4
    assert (ids[:, 0] == ids[0, 0]).all()
    assert tokenizer.decode(ids[1, 1 : ids[1].argmax()].tolist()).strip() == "zürich, 日本 🎬"


def test_the_scores_of_the_whole_network_are_those_of_its_two_towers() -> None:
    """Texts that saw the videos could not be searched by an index."""
    module, tokenizer = new_shapes(SMALL, 0, frames=8)
    random = stream(2)
    made = clips(random, 3)
    tokens = torch.from_numpy(
        small_token_ids(tokenizer, [caption.text for caption in captions_of(random, made.scenes)])
    )
    pixels = torch.randn(3, 8, 3, 64, 64)
    with torch.no_grad():
        module.eval()
        videos, texts = module.network.video_features(pixels), module.network.text_features(tokens)
        whole = module.network.model(input_ids=tokens, pixel_values=pixels)
    scale = module.network.logit_scale.exp()
    assert torch.allclose(whole.logits_per_video, scale * unit(videos) @ unit(texts).T, atol=1e-4)


def test_a_clip_played_backwards_is_another_one_but_for_the_frame_mean() -> None:
    shown = torch.from_numpy(clips(stream(2), 2).pictures)
    for frames, is_same in ((8, False), (1, True)):
        module, _ = new_shapes(SMALL, 0, frames=frames)
        with torch.no_grad():
            videos, turned = module.eval().videos(shown)[0], module.videos(shown.flip(1))[0]
        assert torch.allclose(unit(videos), unit(turned), atol=1e-6) == is_same


def test_the_control_has_as_many_weights() -> None:
    whole, control = (
        sum(parameter.numel() for parameter in network_module.new_network(SMALL, 600, frames).parameters())
        for frames in (8, 1)
    )
    assert whole - control == 7 * SMALL.dim  # places of further frames


def test_contrast_is_clips_own_where_each_caption_fits_one_clip_and_forgives_others_that_fit() -> None:
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    own = contrast(scores, torch.eye(4).bool())
    by_hand = torch.nn.functional.cross_entropy
    assert own == pytest.approx(float((by_hand(scores, torch.arange(4)) + by_hand(scores.T, torch.arange(4))) / 2))
    fits = torch.eye(4).bool()
    fits[0, 2] = True
    likes_both = torch.eye(4) * 9
    likes_both[0, 2] = 9
    assert contrast(likes_both, fits) < contrast(torch.eye(4) * 9, fits)


# A trained folder is an encoder


def test_the_encoder_gives_what_the_trained_network_gave(trained: Path) -> None:
    module, tokenizer = new_shapes(SMALL, 0, frames=8)
    module.network.model.load_state_dict(load_file(trained / "model.safetensors"))
    made = clips(stream(4), 3)
    encoder = encoder_in(trained)
    with torch.no_grad():
        videos = unit(module.eval().videos(torch.from_numpy(made.pictures))[0]).numpy()
        ids = torch.from_numpy(small_token_ids(tokenizer, ["a red circle", "a thing moves up"]))
        texts = unit(module.network.text_features(ids)).numpy()
    assert np.abs(encoder.encode_video(made.pictures) - videos).max() < 1e-5
    assert np.abs(encoder.encode_text(["a red circle", "a thing moves up"]) - texts).max() < 1e-5


def test_frame_means_are_right_in_exactly_half_of_all_pairs(frame_mean: Path, trained: Path, pool: list[Any]) -> None:
    figures = figures_of(encoder_in(frame_mean), pool)
    pairs = {name: figure for name, figure in figures.items() if name.startswith("pair/")}
    assert set(pairs.values()) == {0.5}
    assert len(pairs) == len(PAIRS)
    assert figures["cosine_to_reversed"] == pytest.approx(1, abs=1e-5)
    assert figures_of(encoder_in(trained), pool)["cosine_to_reversed"] < 1 - 1e-7


def test_a_pool_is_the_same_for_a_seed_and_has_no_caption_twice(pool: list[Any], tmp_path: Path) -> None:
    again = make_pool(tmp_path, 24, seed=5)
    assert [clip.path.read_bytes() for clip in again] == [clip.path.read_bytes() for clip in pool]
    assert len({clip.text for clip in pool}) == 24
    other = make_pool(tmp_path / "other", 24, seed=6)
    assert [clip.text for clip in other] != [clip.text for clip in pool]


def test_a_resumed_run_ends_as_one_that_was_not_stopped(trained: Path, tmp_path: Path, monkeypatch) -> None:
    class Stopped(Exception):
        pass

    def stop(self: ClipRecipe, number: int, real=ClipRecipe.batch) -> Any:
        if number == 3:
            raise Stopped
        return real(self, number)

    torch.set_num_threads(1)
    monkeypatch.setattr("vidx.train.shapes.run.CHECK_STEPS", 2)
    whole = train_small(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(ClipRecipe, "batch", stop)
        with pytest.raises(Stopped):
            train_small(tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped/log.jsonl").read_text().splitlines()[-1])["step"] == 2
    stopped = train_small(tmp_path / "stopped")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_may_be_moved_and_what_it_made_stays_searchable(
    trained: Path, pool: list[Any], tmp_path: Path, vidx: Run
) -> None:
    here, there, store = tmp_path / "here", tmp_path / "there" / "small", tmp_path / "store"
    shutil.copytree(trained, here / "small")
    (tmp_path / "clips").mkdir()
    for clip in pool[:3]:
        shutil.copy(clip.path, tmp_path / "clips")
    done = vidx("index", tmp_path / "clips", "--store", store, "--encoder", here / "small", "--clip", "2")
    assert done.returncode == 0, done.stderr
    shutil.move(here / "small", there)
    lost = vidx("search", "something new moves up", "--store", store)
    assert lost.returncode == 1
    assert "name it once with --encoder FOLDER" in lost.stderr
    for name in ("trained:small", tmp_path / "nosuch"):
        assert vidx("search", "x", "--store", store, "--encoder", name).returncode in (1, 2)
    again = vidx("index", tmp_path / "clips", "--store", store, "--encoder", there)
    assert again.returncode == 0, again.stderr
    assert "3 unchanged" in again.stdout
    found = vidx("search", "something new moves up", "--store", store, "--format", "json")
    assert len(json.loads(found.stdout)["hits"]) > 0
    named = vidx("search", "something new moves up", "--store", store, "--format", "json", "--encoder", there)
    assert json.loads(named.stdout)["hits"] == json.loads(found.stdout)["hits"]


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), WeightsMissing, "has no model.safetensors yet"),
        (lambda folder: (folder / "model.json").write_text("{"), WeightsDamaged, "can't be read"),
        (lambda folder: (folder / "model.json").write_text('{"format": 99}'), WeightsDamaged, "a later vidx wrote it"),
        (lambda folder: (folder / "model.json").write_text('{"format": 1}'), WeightsDamaged, "lacks 'preprocess'"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), WeightsDamaged, "as weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), WeightsMissing, "are not on this machine"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), WeightsDamaged, "as a tokenizer"),
    ],
)
def test_a_spoiled_folder_is_one_error(
    trained: Path, tmp_path: Path, spoil: Callable[[Path], Any], error: type[VidxError], told: str
) -> None:
    folder = tmp_path / "spoiled"
    shutil.copytree(trained, folder)
    spoil(folder)
    with pytest.raises(error, match=told):
        encoders.try_out(encoders.here(str(folder)))


def test_without_the_extra_a_training_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidx.train.find_spec", lambda name: None if name == "tensorboard" else name)
    done = CliRunner().invoke(train, ["shapes", "nowhere"])
    assert str(done.exception) == "training needs tensorboard"
    assert not Path("nowhere").exists()


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_when_it_is_given_again(tmp_path: Path, vidx: Run) -> None:
    arguments = ["train", "shapes", tmp_path / "run", "--frame-steps", "1", "--clip-steps", "1", "--threads", "1"]
    process = subprocess.Popen([str(Path(sys.executable).with_name("vidx")), *map(str, arguments)])
    kept = tmp_path / "run" / "frames" / "checkpoint.pt"
    for _ in range(1200):
        if kept.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = kept.read_bytes()
    done = vidx(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert kept.read_bytes() == first
    assert [json.loads(line)["part"] for line in done.stdout.splitlines()] == ["clips"]
    other = vidx(*arguments[:-1], "1", "--seed", "1")
    assert other.returncode == 2
    assert "holds a run of other settings" in other.stderr
