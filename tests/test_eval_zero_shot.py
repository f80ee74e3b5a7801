"""Zero-shot classification equals a computation of its own, from the networks' raw outputs, to the last item."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Interpolation
from click.testing import CliRunner
from pyarrow import parquet

from vidx import cli, encoders
from vidx.encoders._label_sets import published_names
from vidx.encoders._tokenizer import token_ids
from vidx.pixels import OPENCV, fit
from vidx.schema.records import Preprocess
from vidx.tests.made_datasets import make_hmdb51, make_ucf101
from vidx.tests.small_networks import FRAMES, SIDE_PX, networks, weights

__all__ = ["networks", "weights"]  # fixtures

pytestmark = pytest.mark.slow  # networks and their libraries take seconds to import

CLASSES = ("brush_hair", "cartwheel", "catch", "chew", "clap")


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hmdb51")
    make_hmdb51(root)
    return root


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    make_ucf101(root)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where features gather, whatever the order of tests: what one has computed the next takes up."""
    return tmp_path_factory.mktemp("features") / "store"


@pytest.fixture
def evaluate(tmp_path: Path, store: Path) -> Callable[..., dict[str, Any]]:
    """A function that runs `vidx eval` and returns what --json printed, with the items of its report."""

    def run(*arguments: Any) -> dict[str, Any]:
        report = tmp_path / "report"
        command = ["eval", *map(str, arguments), "--store", str(store), "--report", str(report), "--json"]
        result = CliRunner().invoke(cli.vidx, command, catch_exceptions=False)
        found: dict[str, Any] = json.loads(result.stdout)
        return {**found, "items": parquet.read_table(report / "items.parquet").to_pylist(), "stderr": result.stderr}

    return run


# The computation of its own


def all_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        shown = sorted((frame.pts, frame) for frame in container.decode(video=0))
        to_rgb = {"format": "rgb24", "interpolation": Interpolation.AREA}
        return [frame.reformat(width=frame.width, height=frame.height, **to_rgb).to_ndarray() for _, frame in shown]


def indices_of(family: str, n: int, clips: int) -> list[list[int]]:
    """Straight from the formulas, for one clip or for several."""
    t = FRAMES
    if family == "text4vis" and clips > 1:
        starts = [int(np.floor(c * (n / t - 1) / (clips - 1) + 1e-9)) for c in range(clips)]
        return [[int(start + k * n / t) % n for k in range(t)] for start in starts]
    if clips > 1:
        every = [k * n // (t * clips) for k in range(t * clips)]
        return [every[c::clips] for c in range(clips)]
    match family:
        case "text4vis" | "clip":
            return [[k * n // t for k in range(t)]]
        case "actionclip":
            return [[k * n // t if n <= t else int(np.floor(k * n / t + (n / t - 1) / 2 + 1e-9)) for k in range(t)]]
    return [[int(np.floor(k * n / t + n / (2 * t) + 1e-9)) for k in range(t)]]


def views_of(
    path: Path, family: str, filter: str, clips: int, crops: int, rule: Callable[..., list[list[int]]] = indices_of
) -> torch.Tensor:
    """Normalised float32 (clips x crops, T, 3, side, side)."""
    frames = all_frames(path)
    views = []
    for indices in rule(family, len(frames), clips):
        short = SIDE_PX if crops == 3 and filter == OPENCV else SIDE_PX + 4
        chosen = [fit(frames[at], Preprocess(short, SIDE_PX, filter, 0, crops)) for at in indices]
        views += [np.stack([frame[c] for frame in chosen]) for c in range(3)] if crops == 3 else [np.stack(chosen)]
    mean, std = {
        "xclip": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        "port": ([122.771, 116.746, 104.093], [68.500, 66.632, 70.323]),
    }.get(
        family,
        (
            [255 * m for m in (0.48145466, 0.4578275, 0.40821073)],
            [255 * s for s in (0.26862954, 0.26130258, 0.27577711)],
        ),
    )
    pixels = (np.stack(views).astype(np.float64) - mean) / std
    return torch.from_numpy(pixels.astype(np.float32)).permute(0, 1, 4, 2, 3)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def expected(name: str, path: Path, classes: list[str], clips: int, crops: int, pooling: str = "scores") -> np.ndarray:
    """Probabilities (classes,) as the encoder's paper fuses views, frames and prompts."""
    encoder: Any = encoders.build(encoders.here(name))
    family = "port" if "mmaction2" in name else encoder.spec.family
    network, pixels = encoder.network, views_of(path, family, encoder.spec.space.preprocess.filter, clips, crops)
    templates = {"clip": ["a video of a person {}."], "text4vis": ["a video of a person {}."]}.get(
        encoder.spec.family, list(encoder.spec.templates)
    )
    with torch.inference_mode():
        texts = [
            network.text_features(torch.from_numpy(token_ids([template.format(name) for name in classes])))
            for template in templates
        ]
        if family == "xclip":
            frames, context = network.towers(pixels)
            logits = network.logits(network.integrated(frames), network.adjusted(texts[0], context)).double().numpy()
            return softmax(logits).sum(axis=0) / len(pixels)
        vectors = [unit(text.double().numpy()) for text in texts]
        if family == "clip":
            rows = network.frame_features(pixels).double().numpy()
            if pooling == "scores":
                each = np.stack([100 * unit(frame) @ vectors[0].T for view in rows for frame in view])
                return softmax(each.mean(axis=0))
            pooled = {"mean": rows, "unit-mean": unit(rows)}[pooling].mean(axis=1)
            return softmax((100 * unit(pooled) @ vectors[0].T).mean(axis=0))
        rows = network.video_features(pixels).double().numpy()
        if family == "text4vis":
            return softmax(100 * unit(rows.mean(axis=0)) @ vectors[0].T)
        by_prompt = np.stack([softmax(100 * unit(rows) @ text.T) for text in vectors])
        return by_prompt.mean(axis=(0, 1))


def names_in(root: Path, split: int) -> list[tuple[str, str]]:
    """Class folder and file of HMDB51's test videos of a split, read anew."""
    found = []
    for path in sorted(root.rglob(f"*_test_split{split}.txt")):
        folder = path.name.removesuffix(f"_test_split{split}.txt")
        for line in path.read_text().splitlines():
            file, _, use = line.strip().rpartition(" ")
            if use.strip() == "2":
                found.append((folder, file.strip()))
    return found


# What is measured


@pytest.mark.parametrize(
    ("name", "views", "options"),
    [
        ("text4vis-vitb32-f8", (1, 1), ()),
        ("text4vis-vitb32-f8", (4, 3), ()),
        ("xclip-zero", (1, 1), ()),
        ("xclip-zero", (1, 3), ()),
        ("actionclip-vitb32-8f", (1, 1), ()),
        ("actionclip-vitb32-8f", (2, 3), ()),
        ("actionclip-mmaction2-vitb32-8f", (1, 1), ()),
        ("clip-vitb32", (1, 1), ()),
        ("clip-vitb32", (2, 1), ("--pooling", "mean")),
        ("clip-vitb32", (1, 3), ("--pooling", "unit-mean")),
    ],
)
def test_predictions_of_every_protocol_are_those_of_the_networks_raw_outputs(
    hmdb51: Path, evaluate: Callable[..., dict[str, Any]], name: str, views: tuple[int, int], options: tuple[str, ...]
) -> None:
    clips, crops = views
    found = evaluate(
        *("zero-shot", hmdb51, "--dataset", "hmdb51", "--encoder", name, "--split", "1"),
        *("--views", f"{clips}x{crops}", *options),
    )
    classes = [name.replace("_", " ") for name in published_names("hmdb51")]
    items = names_in(hmdb51, 1)
    assert len(found["items"]) == len(items) > 5
    by_item = {Path(row["path"]).name: row for row in found["items"]}
    right = 0
    for folder, file in items:
        wanted = expected(name, hmdb51 / folder / file, classes, clips, crops, *options[1:])
        row = by_item[file]
        best = np.argsort(-wanted, kind="stable")
        label = folder.replace("_", " ")
        assert (row["label"], row["predicted"]) == (label, classes[best[0]]), (row, np.sort(wanted)[-3:])
        assert row["probability"] == pytest.approx(wanted.max(), rel=1e-3)
        assert row["rank"] == best.tolist().index(classes.index(label)) + 1
        right += classes[best[0]] == label
    [figures] = found["figures"]["encoders"]
    assert figures["splits"][0]["top1"] == right / len(items)


def test_splits_have_their_mean_and_deviation_and_pooled_counts_a_video_twice(
    hmdb51: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    how = ("zero-shot", hmdb51, "--dataset", "hmdb51", "--encoder", "clip-vitb32")
    [each] = evaluate(*how)["figures"]["encoders"]
    top1 = [split["top1"] for split in each["splits"]]
    assert [split["split"] for split in each["splits"]] == ["1", "2", "3"]
    assert (each["top1"], each["top1_deviation"]) == (pytest.approx(np.mean(top1)), pytest.approx(np.std(top1)))
    items = [split["items"] for split in each["splits"]]
    assert items == [len(names_in(hmdb51, split)) for split in (1, 2, 3)]
    [pooled] = evaluate(*how, "--split", "pooled")["figures"]["encoders"]
    assert pooled["splits"][0]["items"] == sum(items)
    assert pooled["top1"] == pytest.approx(np.average(top1, weights=items))


def test_the_half_class_protocol_draws_and_ranks_as_its_authors_do(
    hmdb51: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    found = evaluate(
        "zero-shot", hmdb51, "--dataset", "hmdb51", "--encoder", "text4vis-vitb32-f8", "--split", "half-class"
    )
    [figures] = found["figures"]["encoders"]
    classes = [name.replace("_", " ") for name in published_names("hmdb51")]
    files = sorted(path for folder in CLASSES for path in (hmdb51 / folder).iterdir())
    full = {path: expected("text4vis-vitb32-f8", path, classes, 1, 1) for path in files}
    top1 = []
    for seed in range(10):
        np.random.seed(seed)
        chosen = np.random.permutation(51)[:25].tolist()
        kept = [path for path in files if classes.index(path.parent.name.replace("_", " ")) in chosen]
        if not kept:
            continue
        among = sorted({classes.index(path.parent.name.replace("_", " ")) for path in kept})
        right = [
            classes[among[int(np.argmax(full[path][among]))]] == path.parent.name.replace("_", " ") for path in kept
        ]
        top1.append(np.mean(right))
    assert [split["top1"] for split in figures["splits"]] == pytest.approx(top1)
    assert figures["top1"] == pytest.approx(np.mean(top1))


def test_ucf101_is_read_in_its_own_layout_and_its_names_go_in_as_published(
    ucf101: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    how = ("zero-shot", ucf101, "--dataset", "ucf101", "--encoder", "text4vis-vitb32-f8", "--split", "2")
    published = evaluate(*how)
    classes = published_names("ucf101")
    for row in published["items"]:
        wanted = expected("text4vis-vitb32-f8", Path(row["path"]), classes, 1, 1)
        assert row["predicted"] == classes[int(np.argmax(wanted))]
    as_words = evaluate(*how, "--names", "words")
    assert [row["path"] for row in as_words["items"]] == [row["path"] for row in published["items"]]
    assert [row["probability"] for row in as_words["items"]] != [row["probability"] for row in published["items"]]


def test_frames_of_activitynet_count_at_one_a_second(
    tmp_path: Path, make_video: Callable[..., Path], evaluate: Callable[..., dict[str, Any]]
) -> None:
    root = tmp_path / "anet"
    root.mkdir()
    make_video(root / "v_abc.mp4", n_frames=60, fps=10)
    (root / "anet_val_video_fps1.txt").write_text("abc 6 1\n")
    found = evaluate("zero-shot", root, "--dataset", "activitynet", "--encoder", "text4vis-vitb32-f8")
    [item] = found["items"]
    assert item["indices"] == [k * 6 // FRAMES for k in range(FRAMES)]
    assert (item["label"], item["frames"], item["frames_listed"]) == (published_names("activitynet")[1], 60, 6)


def test_a_second_set_of_prompts_decodes_nothing(
    hmdb51: Path, evaluate: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ("zero-shot", hmdb51, "--dataset", "hmdb51", "--encoder", "clip-vitb32", "--split", "1")
    first = evaluate(*how)
    from vidx.learn import features

    def refuse(asked: Any) -> Any:
        assert not list(asked)
        return iter(())

    monkeypatch.setattr(features, "looked_at", refuse)
    assert evaluate(*how)["items"] == first["items"]
    assert evaluate(*how, "--template", "{}")["items"] != first["items"]


def test_a_preset_prints_its_table_beside_the_published_one_and_names_what_is_not_here(
    hmdb51: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    found = evaluate("zero-shot", hmdb51, "--preset", "hmdb51-8frame-linspace")
    rows = {row["title"]: row for row in found["figures"]["encoders"]}
    assert {title: row["published"]["top1"] for title, row in rows.items()} == {
        "Text4Vis ViT-B/32": 48.1699,
        "Text4Vis ViT-B/32, 16 frames": 48.58,
        "OpenAI CLIP ViT-B/32": 44.2702,
        "OpenAI CLIP ViT-L/14": 55.0109,
    }

    def two_sets(_family: str, n: int, _clips: int) -> list[list[int]]:
        sixteen = np.floor(np.linspace(0, n, 17)[:-1]).astype(int).tolist()
        return [sixteen[0::2], sixteen[1::2]]

    encoder: Any = encoders.build(encoders.here("text4vis-vitb32-f8"))
    classes = [name.replace("_", " ") for name in published_names("hmdb51")]
    texts = unit(encoder.encode_text([f"a video of a person {name}." for name in classes]).astype(np.float64))
    ensemble = [row for row in found["items"] if row["encoder"] == "Text4Vis ViT-B/32, 16 frames"]
    assert len(ensemble) == sum(len(names_in(hmdb51, split)) for split in (1, 2, 3))
    for row in ensemble[::5]:
        with torch.inference_mode():
            pixels = views_of(Path(row["path"]), "text4vis", "bicubic", 2, 1, two_sets)
            similarities = unit(encoder.network.video_features(pixels).double().numpy()) @ texts.T
        assert row["predicted"] == classes[int(similarities.mean(axis=0).argmax())]
    for title in ("Text4Vis ViT-L/14", "OpenCLIP ViT-B/32", "OpenCLIP ViT-L/14"):
        assert title in found["stderr"]
