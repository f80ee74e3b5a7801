"""benchmarks/recipes.py: its clips are what it says, its starts can be trained on, its tables say what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vidx import encoders
from vidx.benchmarks._recipes_frozen import frozen_accuracy
from vidx.benchmarks._recipes_starts import MOTIONS, START_OF, render
from vidx.benchmarks.recipes import RECIPES, Found, confusion_table, logs_of, table
from vidx.pixels import NORMALISATIONS
from vidx.train import movinet, videomae
from vidx.train.clip_text_run import begun
from vidx.train.footage import read_parts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FOUND = Found(
    recipe="movinet",
    command="--weights movinet.pt",
    videos=(4, 1, 1),
    steps=12,
    minutes=1.25,
    losses=(1.8, 0.4, 0.25),
    validation=(0.0, 0.5, 1.0),
    test=0.75,
    frozen=0.5,
    before=None,
    head=0.25,
    confusion=tuple(tuple(int(n == label) for n in range(6)) for label in range(6)),
)


def white_middle(path: Path) -> np.ndarray:
    """Where the white circle is in each frame, (T, 2) as rows and columns, and its area (T,) beside it."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    white = frames > 190
    areas = white.sum(axis=(1, 2))
    middles = [np.argwhere(picture).mean(axis=0) for picture in white]
    return np.column_stack([middles, areas])


def test_a_circle_does_what_its_folder_says(tmp_path: Path) -> None:
    root = render(tmp_path, 2, 1)
    for motion in MOTIONS:
        files = sorted((root / motion).iterdir())
        assert [path.name for path in files] == ["000.mp4", "001.mp4"]
        for path in files:
            rows, columns, areas = (white_middle(path)[-1] - white_middle(path)[0]).tolist()
            does = {"left": -columns, "right": columns, "up": -rows, "down": rows}
            does = {name: pixels for name, pixels in does.items() if pixels > 20}
            assert list(does) == ([motion] if motion not in ("grow", "shrink") else [])
            if not does:
                assert (areas > 0) == (motion == "grow")
                assert abs(areas) > 200
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*.mp4")}
    render(root, 2, 1)
    assert before == {path: path.stat().st_mtime_ns for path in root.glob("*/*.mp4")}


@pytest.mark.parametrize("family", ["text4vis", "actionclip", "xclip"])
def test_a_start_is_an_encoder_of_its_family_the_same_each_time(family: str, tmp_path: Path) -> None:
    folder = START_OF[family](tmp_path)
    first = (folder / "model.safetensors").read_bytes()
    spec, network = begun(family, encoders.here(str(START_OF[family](tmp_path))), 0)
    assert (folder / "model.safetensors").read_bytes() == first
    assert spec.family == family
    colours = torch.zeros(1, spec.space.frames, 3, 48, 48)
    assert network.video_features(colours).shape == (1, 64)
    assert spec.space.normalise in NORMALISATIONS


def test_the_starts_of_classifiers_get_a_new_head(tmp_path: Path) -> None:
    network, facts = videomae.new_classifier(*videomae.files_of(str(START_OF["videomae"](tmp_path))), MOTIONS, 0)
    assert videomae.logits(network, torch.zeros(1, 16, 3, 48, 48)).shape == (1, 6)
    assert facts["num_frames"] == 16
    whole = movinet.new_classifier(START_OF["movinet"](tmp_path), MOTIONS, 0)
    assert movinet.logits(whole.eval(), torch.zeros(1, 8, 3, 32, 32)).shape == (1, 6)


def test_frozen_is_measured_on_the_test_videos(tmp_path: Path) -> None:
    parts = read_parts(render(tmp_path / "videos", 3, 1))
    facts = {
        "sampling": {"rule": "middles", "frames": 16, "clips": 1, "frames_per_s": None},
        "preprocess": {"short_side_px": 48, "crop_px": 48},
        "normalise": "imagenet",
    }
    share = frozen_accuracy("videomae", START_OF["videomae"](tmp_path), facts, replace(parts, test=parts.training))
    assert share == 1.0  # of the very videos that it was fitted to
    assert 0 <= frozen_accuracy("videomae", START_OF["videomae"](tmp_path), facts, parts) <= 1


def test_tables_tell_shares_in_per_cent() -> None:
    row = table([FOUND]).splitlines()[-1]
    told = "movinet | `--weights movinet.pt` | 4 + 1 + 1 | 12 | 1.2 | 1.80, 0.25 | 0 50 100 | 75.0 | 50.0"
    assert row == f"| {told} | head alone 25.0 |"
    lines = confusion_table(FOUND).splitlines()
    assert lines[0] == "|  | down | grow | left | right | shrink | up |"
    assert lines[3] == "| grow | 0 | 1 | 0 | 0 | 0 | 0 |"


def test_logs_of_both_parts_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "log.jsonl").write_text("all")
    assert logs_of(tmp_path) == ["all"]
    (tmp_path / "head/log.jsonl").write_text("head")
    assert logs_of(tmp_path) == ["head", "all"]
    assert set(RECIPES) == set(START_OF)
