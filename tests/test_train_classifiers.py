"""Training of VideoMAE and MoViNet classifiers, on small networks and clips of two easily told classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from vidx.cli_train import train as cli_train
from vidx.encoders import videomae as released_videomae
from vidx.encoders._trained_classifier import TrainedClassifier, load_classifier
from vidx.errors import InputError, UnknownChoice, WeightsDamaged, WeightsMisfit, WeightsMissing
from vidx.indexer.frames import Look, looked_at
from vidx.indexer.sampling import Sampling
from vidx.learn._pictures import curves_png
from vidx.tests.test_movinet import random_state
from vidx.train import footage, movinet, videomae
from vidx.train.augment import View
from vidx.train.classifier import Classifier, ClassifierRecipe, Plan, describe, train
from vidx.train.trained_classifier import HEAD_FOLDER, curves_of

pytestmark = [
    pytest.mark.slow,  # networks and their libraries take seconds to import
    pytest.mark.usefixtures("one_thread"),
]

SIDE_PX = 32
CONFIG = {
    "model_type": "videomae",
    "image_size": SIDE_PX,
    "patch_size": 16,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "use_mean_pooling": True,
    "architectures": ["VideoMAEForPreTraining"],
}
VIEW = View(4, 4 / 30, SIDE_PX, filter="squash-bilinear", crops=True, mirrors=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A bright square that moves over a dark ground, red in one class and green in the other; 12 videos of each."""
    return squares(tmp_path_factory.mktemp("videos"), make_video, range(12))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """More of them, that no training sees."""
    return squares(tmp_path_factory.mktemp("held_out"), make_video, range(12, 24))


def look_of(classifier: TrainedClassifier) -> Look:
    return Look.of_fields(classifier.sampling, classifier.preprocess)


def squares(root: Path, make_video: Callable[..., Path], numbers: range) -> Path:
    for channel, name in enumerate(("red", "green")):
        (root / name).mkdir()
        for number in numbers:
            random = np.random.default_rng([channel, number])
            place, speed, ground = random.integers(0, 30, 2), random.integers(-2, 3, 2), random.integers(20, 60)

            def draw(at: int, size: tuple[int, int], c=channel, p=place, v=speed, g=ground) -> np.ndarray:
                frame = np.full((size[1], size[0], 3), g, np.uint8)
                top, left = (p + at * v) % 28
                frame[top : top + 20, left : left + 20, c] = 240
                return frame

            make_video(root / name / f"v_{name}_g{1 + number // 2:02}_c{1 + number % 2:02}.avi", n_frames=12, draw=draw)
    return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of videomae-base: of pre-training, with a decoder and without a classifier."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(3)
    network = VideoMAEForPreTraining(
        VideoMAEConfig.from_dict({**CONFIG, "decoder_hidden_size": 24, "decoder_num_hidden_layers": 1})
    )
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def movinet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("movinet") / "weights"
    torch.save(random_state("base 3d"), path)
    return path


@pytest.fixture
def plan(root: Path, pretrained: Path) -> Plan:
    return Plan(root=root, weights=str(pretrained), epochs=2, batch=4, learning_rate=1e-3)


def ignored(_line: dict[str, Any]) -> None:
    pass


def recipe_of(plan: Plan, view: View = VIEW) -> ClassifierRecipe:
    parts = plan.parts()
    network, _ = videomae.new_classifier(*videomae.files_of(plan.weights), parts.classes, plan.seed)
    module = Classifier(network, videomae.logits, "imagenet")
    return ClassifierRecipe(module, view, parts, batch=plan.batch, seed=plan.seed)


def test_a_batch_is_a_pure_function_of_its_number(plan: Plan) -> None:
    with recipe_of(plan) as recipe:
        batches = [recipe.batch(number) for number in range(6)]
        torch.manual_seed(99)
        np.random.seed(99)
        again = recipe.batch(3)
    with recipe_of(plan) as fresh:
        first_asked = fresh.batch(3)
    assert batches[0].pictures.shape == (4, 4, SIDE_PX, SIDE_PX, 3)
    assert batches[0].pictures.dtype == torch.uint8
    for batch in (again, first_asked):
        assert torch.equal(batch.pictures, batches[3].pictures)
        assert torch.equal(batch.labels, batches[3].labels)
    assert not torch.equal(batches[0].pictures, batches[4].pictures)
    with recipe_of(replace(plan, seed=1)) as other:
        assert not torch.equal(other.batch(3).pictures, batches[3].pictures)


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_of_each_process_are_decoded_ahead_in_one_go(
    plan: Plan, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recipe_of(plan) as alone:
        expected = [alone.batch(number).pictures for number in range(5)]
    begun = []
    monkeypatch.setattr(footage, "looked_at", lambda asked: begun.append(1) or looked_at(asked))
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with recipe_of(plan) as recipe:
        for number in range(0, 5, processes):
            assert torch.equal(recipe.batch(number).pictures, expected[number])
    assert len(begun) == 1


def test_mirror_images_are_left_out_where_they_would_mislead(plan: Plan) -> None:
    straight = View(4, 4 / 30, SIDE_PX, filter="bilinear", crops=False, mirrors=False)
    with recipe_of(plan, straight) as recipe, recipe_of(plan, replace(straight, mirrors=True)) as mirrored:
        pairs = [(recipe.batch(number).pictures, mirrored.batch(number).pictures) for number in range(6)]
    turned = [
        (torch.equal(a, b), torch.equal(a, b.flip(2))) for one, other in pairs for a, b in zip(one, other, strict=True)
    ]
    assert all(same or mirror for same, mirror in turned)
    assert {same for same, _ in turned} == {True, False}


def test_more_videos_told_right_count_before_a_lower_cross_entropy(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four validation videos, two of each class; logits of the right class less those of the other."""

    def choice(*margins: float) -> float:
        rows = iter(margins)
        with recipe_of(plan) as recipe:
            labels = iter([video.label for video in plan.parts().validation])

            def logits(pictures: torch.Tensor) -> torch.Tensor:
                return torch.stack([next(rows) * torch.eye(2)[next(labels)] for _ in pictures])

            monkeypatch.setattr(recipe.module, "logits", logits)
            return recipe.evaluate()["choice"]

    assert choice(0.1, 0.1, 0.1, 0.1) > choice(9.0, 9.0, 9.0, -0.1)
    assert choice(2.0, 2.0, 2.0, 2.0) > choice(1.0, 1.0, 1.0, 1.0)


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_ends_as_one_that_was_not(plan: Plan, tmp_path: Path) -> None:
    def stop(_line: dict[str, Any]) -> None:
        raise Stopped

    whole = videomae.train_videomae(tmp_path / "whole", plan, ignored)
    with pytest.raises(Stopped):
        videomae.train_videomae(tmp_path / "parts", plan, stop)
    parted = videomae.train_videomae(tmp_path / "parts", plan, ignored)
    ends = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    for name, tensor in ends[0]["module"].items():
        assert torch.equal(tensor, ends[1]["module"][name]), name
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "parts/model.safetensors").read_bytes()
    assert (whole.accuracy, whole.guesses) == (parted.accuracy, parted.guesses)
    logs = [
        [json.loads(line) | {"seconds": 0} for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == [4, 8]


def test_a_folder_takes_no_run_of_something_else(plan: Plan, tmp_path: Path) -> None:
    videomae.train_videomae(tmp_path, replace(plan, epochs=1), ignored)
    videomae.train_videomae(tmp_path, replace(plan, epochs=1), ignored)  # nothing is left to do
    for other in (replace(plan, epochs=1, seed=1), replace(plan, epochs=1, shots=2), plan):
        with pytest.raises(InputError, match="holds a model of another run"):
            videomae.train_videomae(tmp_path, other, ignored)


def test_videomae_is_loaded_again_as_it_was_trained(plan: Plan, tmp_path: Path) -> None:
    parts = plan.parts()
    network, config = videomae.new_classifier(*videomae.files_of(plan.weights), parts.classes, plan.seed)
    describe(tmp_path, plan, parts, VIEW, family="videomae", normalise="imagenet", config=config)
    module = Classifier(network, videomae.logits, "imagenet")
    train(tmp_path, module, VIEW, parts, replace(plan, epochs=1).settings(len(parts.training)), plan.batch, ignored)
    check_same(module, tmp_path, n_frames=4)
    began = released_videomae.from_state_dict(network.state_dict(), config=config)
    assert len(list(began.parameters())) == len(list(network.parameters()))


@pytest.mark.parametrize("mean", [True, False])  # videomae-base itself takes the first token, where others take a mean
def test_a_new_head_stands_on_the_encoder_as_transformers_has_it(mean: bool, tmp_path: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification

    config = {**CONFIG, "use_mean_pooling": mean, "decoder_hidden_size": 24, "decoder_num_hidden_layers": 1}
    torch.manual_seed(4)
    pretrained = VideoMAEForPreTraining(VideoMAEConfig.from_dict(config)).state_dict()
    older = {"attention.query.bias": "attention.q_bias", "attention.value.bias": "attention.v_bias"}
    for name in list(pretrained):
        for new, old in older.items():
            if name.endswith(new):
                pretrained[name.replace(new, old)] = torch.randn(24)
                del pretrained[name]
    save_file(pretrained, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "x"}, "label2id": {"x": 0}}))
    network, facts = videomae.new_classifier(*videomae.files_of(str(tmp_path)), ("a", "b", "c"), 0)
    theirs, told = VideoMAEForVideoClassification.from_pretrained(
        tmp_path, num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    heads = {name for name in network.state_dict() if not name.startswith("videomae.")}
    assert set(told["missing_keys"]) <= heads
    theirs.load_state_dict({**theirs.state_dict(), **{name: network.state_dict()[name] for name in heads}})
    clips = torch.randn(2, 4, 3, SIDE_PX, SIDE_PX)
    with torch.no_grad():
        expected = theirs.eval()(pixel_values=clips).logits
        assert torch.allclose(videomae.logits(network, clips), expected, atol=1e-6)
    assert np.ptp(expected.numpy()) > 1e-3
    assert facts["id2label"] == {"0": "a", "1": "b", "2": "c"}


def check_same(module: Classifier, folder: Path, n_frames: int) -> None:
    clips = np.random.default_rng(5).integers(0, 256, (3, n_frames, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    classifier = load_classifier(folder)
    assert classifier.labels == ["green", "red"]
    assert classifier.preprocess.crop_px == SIDE_PX
    assert Sampling(**classifier.sampling).frames == n_frames
    with torch.no_grad():
        expected = module.eval().logits(torch.from_numpy(clips)).softmax(1).cpu().numpy()
    found = classifier.probabilities(clips)
    assert found.dtype == np.float32
    assert found.shape == (3, 2)
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_frozen_base_stays_as_it_was_and_the_head_learns(root: Path, movinet_file: Path, tmp_path: Path) -> None:
    plan = Plan(root=root, weights=str(movinet_file), epochs=1, batch=4, learning_rate=1e-2)
    parts = plan.parts()
    network = movinet.new_classifier(movinet_file, parts.classes, plan.seed)
    view = View(8, 0.1, SIDE_PX, filter="bilinear", crops=False, mirrors=False)
    describe(tmp_path, plan, parts, view, family="movinet", normalise="unit", causal=False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    module = Classifier(network, movinet.logits, "unit", frozen=movinet.base_of(network))
    train(tmp_path, module, view, parts, plan.settings(len(parts.training)), plan.batch, ignored)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("classifier.")}
    assert sum(".norm.running_mean" in name for name in before) > 5  # and there were such to change
    released = random_state("base 3d")
    assert all(torch.equal(before[name], released[name]) for name in before if not name.startswith("classifier.3."))
    check_same(module, tmp_path, n_frames=8)


def test_everything_learns_after_the_head(root: Path, movinet_file: Path, tmp_path: Path) -> None:
    plan = Plan(root=root, weights=str(movinet_file), epochs=1, batch=4, learning_rate=1e-3)
    told: list[dict[str, Any]] = []
    movinet.train_movinet(tmp_path, plan, told.append, all_epochs=1, side_px=SIDE_PX)
    assert [(line["part"], line["step"]) for line in told] == [("head", 4), ("all", 4)]
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in (HEAD_FOLDER, "")]
    assert (tmp_path / "curves.png").read_bytes() == curves_png({tmp_path.name: logs})
    head, whole = (
        load_file(tmp_path / HEAD_FOLDER / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    released = random_state("base 3d")
    assert all(torch.equal(head[name], released[name]) for name in head if not name.startswith("classifier."))
    assert not torch.equal(whole["conv1.conv_1.conv3d.weight"], head["conv1.conv_1.conv3d.weight"])
    assert not torch.equal(whole["conv1.conv_1.norm.running_mean"], head["conv1.conv_1.norm.running_mean"])


def test_a_short_training_beats_chance_on_other_videos(plan: Plan, held_out: Path, tmp_path: Path) -> None:
    tested = videomae.train_videomae(tmp_path, replace(plan, epochs=8, learning_rate=1e-2), ignored)
    classifier = load_classifier(tmp_path)
    paths = sorted(held_out.glob("*/*.avi"))
    seen = looked_at((path, (look_of(classifier),)) for path in paths)
    best = [classifier.labels[classifier.probabilities(looked.views[0])[0].argmax()] for looked in seen]
    right = sum(label == path.parent.name for label, path in zip(best, paths, strict=True))
    assert len(paths) == 24
    assert right >= 22
    assert tested.n_videos == 4
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["figures"]["accuracy"] == tested.accuracy
    assert np.sum(report["figures"]["confusion"]) == 4
    assert (tmp_path / "report.html").exists()
    for picture in ("confusion.png", "curves.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "log.jsonl").unlink()
    assert curves_of(tmp_path) == {}


def test_the_command_trains_and_tells_what_came_of_it(root: Path, pretrained: Path, tmp_path: Path) -> None:
    from vidx.cli_train_classifiers import videomae as command

    asked = [str(root), str(tmp_path / "run"), "--weights", str(pretrained), "--epochs", "1", "--threads", "1"]
    few = ["--shots", "2", "--batch", "2", "--no-mirror"]
    done = CliRunner().invoke(command, [*asked, *few], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    first, *_ = done.output.splitlines()
    assert first.startswith("step 2, ")
    assert "\ntest: accuracy " in done.output
    assert "of 4 videos" in done.output
    facts = json.loads((tmp_path / "run/model.json").read_text())
    assert (facts["family"], facts["labels"], facts["frames"]) == ("videomae", ["green", "red"], 4)
    assert facts["training"]["training"] == 4  # two shots of two classes
    assert facts["training"]["mirrors"] is False
    again = CliRunner().invoke(command, [*asked, *few, "--json"], catch_exceptions=False)
    [line] = map(json.loads, again.stdout.splitlines())  # all steps were done
    assert set(line) == {"test", "example", "report"}
    assert sum(line["example"]["guesses"].values()) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def another_precision() -> Iterator[None]:
    """accelerate keeps the first precision of a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("another_precision")
def test_the_command_for_movinet(root: Path, movinet_file: Path, tmp_path: Path) -> None:
    from vidx.cli_train_classifiers import movinet as command

    asked = [str(root), str(tmp_path / "run"), "--weights", str(movinet_file), "--epochs", "1", "--shots", "1"]
    done = CliRunner().invoke(
        command, [*asked, "--batch", "2", "--precision", "bf16", "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert [set(json.loads(line)) >= {"test"} for line in done.stdout.splitlines()] == [False, True]
    assert load_classifier(tmp_path / "run").preprocess.crop_px == 224


def test_batches_are_joined_and_a_run_that_gets_no_better_ends_early(
    root: Path, pretrained: Path, tmp_path: Path
) -> None:
    options = ["--epochs", "50", "--batch", "2", "--accumulate", "2", "--patience", "1", "--learning-rate", "1e-12"]
    command = ["videomae", str(root), str(tmp_path / "run"), "--weights", str(pretrained), *options, "--json"]
    done = CliRunner().invoke(cli_train, command)
    assert done.exit_code == 0, done.output
    *checks, _tested = map(json.loads, done.stdout.splitlines())
    training = json.loads((tmp_path / "run" / "model.json").read_text())["training"]
    assert (training["accumulate"], training["patience"]) == (2, 1)
    assert checks[0]["step"] == max(1, round(training["training"] / 4))  # an epoch in steps of 2 x 2 videos
    assert len(checks) < 50
    [again] = CliRunner().invoke(cli_train, command).stdout.splitlines()  # no more checks
    assert "test" in json.loads(again)


def test_broken_videos_are_left_out_and_told(plan: Plan, tmp_path: Path) -> None:
    for path in plan.root.glob("*/*.avi"):
        copy = tmp_path / "videos" / path.relative_to(plan.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"broken" if path.name == "v_red_g01_c01.avi" else path.read_bytes())
    there = replace(plan, root=tmp_path / "videos", epochs=1, batch=1)
    tested = videomae.train_videomae(tmp_path / "run", there, ignored)
    assert [path.name for path in tested.left_out] == ["v_red_g01_c01.avi"]
    for path in (tmp_path / "videos").glob("*/*.avi"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="videos can't be decoded, as "):
        videomae.train_videomae(tmp_path / "other", there, ignored)


def test_weights_that_are_not_there_or_not_right_are_told(plan: Plan, tmp_path: Path, movinet_file: Path) -> None:
    def refused(weights: Path | str, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            videomae.train_videomae(tmp_path / "run", replace(plan, weights=str(weights)), ignored)

    refused("videomae:nobody/nothing", WeightsMissing, "not on this machine")
    refused("no file", UnknownChoice, "is no id at Hugging Face")
    refused(tmp_path, InputError, r"no config\.json there")
    (tmp_path / "config.json").write_text("{")
    save_file(random_state("base 3d"), tmp_path / "model.safetensors")
    refused(tmp_path, WeightsDamaged, r"config\.json can't be read")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    refused(tmp_path, WeightsMisfit, "is no VideoMAE")
    with pytest.raises(UnknownChoice, match="no file and no MoViNet"):
        movinet.train_movinet(tmp_path / "run", replace(plan, weights="movinet-z9"), ignored)
    with pytest.raises(WeightsMisfit, match="is no MoViNet"):
        movinet.new_classifier(Path(plan.weights) / "model.safetensors", ("a", "b"), 0)
    with pytest.raises(InputError, match=r"is no trained model: it has no model\.json"):
        load_classifier(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(WeightsDamaged, match=r"model\.json can't be read"):
        load_classifier(tmp_path)
    assert not (tmp_path / "run").exists()
