"""`vidx tag --model`: a classifier trained here labels an archive from its frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vidx
from vidx.cli_tag import tag as command
from vidx.encoders._trained_classifier import load_classifier
from vidx.errors import InputError
from vidx.indexer.frames import looked_at
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.test_train_classifiers import held_out, ignored, look_of, plan, pretrained, root
from vidx.train import videomae
from vidx.train.classifier import Plan

__all__ = ["held_out", "plan", "pretrained", "root"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, root: Path, pretrained: Path) -> Path:
    """A folder that `vidx train videomae` made: red squares and green ones."""
    folder = tmp_path_factory.mktemp("runs") / "my squares"
    learning = Plan(root=root, weights=str(pretrained), epochs=8, batch=4, learning_rate=1e-2)
    videomae.train_videomae(folder, learning, ignored)
    return folder


def indexed(tmp_path: Path, videos: Path, **options: Any) -> vidx.api.Archive:
    archive = vidx.open(tmp_path / "store")
    archive.index(videos, encoder="conse", **options)
    return archive


def rows(archive: vidx.api.Archive, columns: str) -> list[tuple[Any, ...]]:
    return Snapshot(Store.open(archive.path)).rows(f"SELECT {columns} FROM tags ORDER BY path, start_s, rank")


def run(archive: vidx.api.Archive, *arguments: str | Path) -> Any:
    return CliRunner().invoke(command, ["--store", str(archive.path), *map(str, arguments)])


def test_other_videos_get_the_labels_and_probabilities_that_the_model_gives_them(
    tmp_path: Path, held_out: Path, model: Path
) -> None:
    archive, classifier = indexed(tmp_path, held_out), load_classifier(model)
    done = run(archive, "--model", model)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("my-squares: 48 rows for 24 clips of 24 videos\n")
    told = rows(archive, "path, label, probability, score, encoder, weights_digest")
    best = told[::2]
    assert sum(Path(path).parent.name == label for path, label, *_ in best) >= 22
    paths = [Path(path) for path, *_ in best]
    seen = looked_at((path, (look_of(classifier),)) for path in paths)
    for looked, one, two in zip(seen, best, told[1::2], strict=True):
        expected = dict(zip(classifier.labels, classifier.probabilities(looked.views[0])[0], strict=True))
        assert {label: probability for _, label, probability, *_ in (one, two)} == pytest.approx(expected, abs=1e-6)
        assert one[3:] == (one[2], "trained:my squares", classifier.digest)


def test_each_clip_gets_the_label_of_what_it_shows(
    tmp_path: Path, model: Path, make_video: Callable[..., Path]
) -> None:
    (tmp_path / "videos").mkdir()

    def draw(number: int, size: tuple[int, int]) -> np.ndarray:
        frame = np.full((size[1], size[0], 3), 40, np.uint8)
        left = number % 20
        frame[left : left + 20, left : left + 20, int(number >= 50)] = 240
        return frame

    make_video(tmp_path / "videos" / "both.mp4", n_frames=100, draw=draw)  # 10 a second
    archive = indexed(tmp_path, tmp_path / "videos", clip_s=1, stride_s=1)
    archive.tag(model=model, top=1, levels=("clip", "segment"))
    assert [label for label, level in rows(archive, "label, level") if level == "clip"] == ["red"] * 5 + ["green"] * 5
    segments = rows(archive, "label, start_s, end_s, level")
    assert [row[:3] for row in segments if row[3] == "segment"] == [("red", 0, 5), ("green", 5, 10)]


def test_clips_that_can_not_be_decoded_get_no_rows_and_are_told(tmp_path: Path, held_out: Path, model: Path) -> None:
    for path in held_out.glob("*/*.avi"):
        copy = tmp_path / "videos" / path.relative_to(held_out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    archive = indexed(tmp_path, tmp_path / "videos")
    gone, *_ = sorted((tmp_path / "videos").glob("*/*.avi"))
    gone.unlink()
    done = archive.tag(model=model, top=1, tag_set="mine")
    assert done.notes == ["1 of 24 clips could not be decoded and got no rows"]
    assert done.n_rows == len(rows(archive, "path")) == 23
    assert str(gone) not in [path for (path,) in rows(archive, "path")]


def test_what_a_model_can_not_be_asked_is_one_line(tmp_path: Path, held_out: Path, model: Path, plan: Plan) -> None:
    archive = indexed(tmp_path, held_out)

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            archive.tag(**options)

    refused("labels of its own", model=model, labels="kinetics400")
    refused("labels compete", model=model, exact=True)
    refused("labels compete", model=model, mode="multi")
    refused("for labels told by text", model=model, background=tmp_path / "texts")
    refused("is no trained model", model=tmp_path)
    (tmp_path / "model.json").write_text('{"format": 1, "family": "xclip"}')
    refused("has an encoder, not a classifier", model=tmp_path)
    assert not Store.open(archive.path).tag_sets()


def test_probabilities_can_be_calibrated(tmp_path: Path, held_out: Path, model: Path) -> None:
    archive = indexed(tmp_path, held_out)
    sample = tmp_path / "sample.csv"
    lines = [f"{path},{path.parent.name}" for path in sorted(held_out.glob("*/*.avi"))]
    sample.write_text("\n".join(["path,label", *lines]))
    plain = archive.tag(model=model)
    assert plain.calibration is None
    done = archive.tag(model=model, calibrate=sample)
    assert done.calibration is not None
    assert done.calibration["ece_after"] < 0.2
    assert archive.tag(model=model).calibration is not None  # kept, as the model is the same
