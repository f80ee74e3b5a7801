"""`vidx eval` as a user runs it: retrieval, comparisons, moments, reports, and what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from vidx.learn.reversals import reversed_text
from vidx.tests.made_datasets import make_hmdb51

pytestmark = pytest.mark.slow  # it decodes and encodes

Run = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = {
    "cat_coffee.mp4": "a cat and a cup of coffee",
    "rocket_astronaut.mp4": "a rocket and an astronaut",
    "coins_motorcycle.mp4": "coins, then a motorcycle moves left",
}


@pytest.fixture(scope="module")
def pairs(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "text"), *TEXTS.items()])
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which features of the archive gather."""
    return tmp_path_factory.mktemp("features") / "store"


def test_retrieval_is_that_of_the_vectors_of_whole_videos(
    vidx: Run, archive: Path, pairs: Path, features: Path, tmp_path: Path
) -> None:
    how = ("eval", "retrieval", pairs, "--root", archive, "--encoder", "conse", "--store", features)
    run = vidx(*how, "--json", "--report", tmp_path / "report")
    assert run.returncode == 0, run.stderr
    [found] = json.loads(run.stdout)["figures"]["encoders"]

    from vidx import encoders
    from vidx.indexer.frames import clip_at

    encoder = encoders.build(encoders.here("conse"))
    space = encoder.spec.space
    videos = np.concatenate([encoder.encode_video(clip_at(archive / name, None, space)[None]) for name in TEXTS])
    similarities = encoder.encode_text(list(TEXTS.values())) @ videos.T
    for direction, rows in (("text_to_video", similarities), ("video_to_text", similarities.T)):
        ranks = [1 + sum(other > row[n] for other in row) for n, row in enumerate(rows)]
        assert found[direction]["r1"] == pytest.approx(np.mean(np.array(ranks) <= 1))
        assert found[direction]["mean_rank"] == pytest.approx(np.mean(ranks))
        assert found[direction]["mean_ap"] == pytest.approx(np.mean(1 / np.array(ranks)))
    items = parquet.read_table(tmp_path / "report" / "items.parquet").to_pylist()
    assert [item["text"] for item in items] == list(TEXTS.values())
    table = vidx(*how)
    assert "Text to video" in table.stdout
    assert "Video to text" in table.stdout


def test_a_comparison_tells_cost_and_direction_and_shows_where_one_does_better(
    vidx: Run, archive: Path, pairs: Path, features: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    how = ("eval", "compare", "conse", "--pairs", pairs, "--root", archive, "--store", features)
    run = vidx(*how, "--json", "--report", report)
    assert run.returncode == 0, run.stderr
    [found] = json.loads(run.stdout)["figures"]["encoders"]
    assert found["encode_wall_s_per_hour"] == pytest.approx(360 * found["encode_wall_s_per_clip"])
    assert found["directions"]["left / right"]["n"] == found["directions"]["all"]["n"] == 1
    assert {path.name for path in report.iterdir()} == {"report.html", "report.md", "report.json"}


def test_texts_are_told_the_other_way_round() -> None:
    assert reversed_text("A man enters and picks up a box") == (
        "A man leaves and puts down a box",
        {"enter / leave", "pick up / put down"},
    )
    assert reversed_text("Left to right, upwards") == ("Right to left, downwards", {"left / right", "up / down"})
    assert reversed_text("a cup in a room") == ("a cup in a room", frozenset())
    for text in ("it rises", "opening the door", "it turns on", "a ball moves into the box, clockwise"):
        turned, kinds = reversed_text(text)
        assert turned != text
        assert reversed_text(turned) == (text, kinds)


def test_moments_are_measured_on_what_a_search_gives(
    vidx: Run, indexed_store: Path, archive: Path, tmp_path: Path
) -> None:
    segments = tmp_path / "segments.csv"
    rows = [("cat_coffee.mp4", 0, 12, "cat"), ("cat_coffee.mp4", 12, 24, "cup_of_coffee"), ("gone.mp4", 0, 5, "cat")]
    with open(segments, "w", newline="") as file:
        csv.writer(file).writerows([("path", "start_s", "end_s", "label"), *rows])
    run = vidx("eval", "moments", segments, "--store", indexed_store, "--json")
    assert run.returncode == 0, run.stderr
    assert "gone.mp4: no such video is indexed" in run.stderr
    labels = json.loads(run.stdout)["figures"]["labels"]
    for label, words, start_s, end_s in (("cat", "cat", 0, 12), ("cup_of_coffee", "cup of coffee", 12, 24)):
        answer = vidx("search", words, "--store", indexed_store, "-k", "100", "--format", "json")
        hits = [hit for hit in json.loads(answer.stdout)["hits"] if hit["path"].endswith("cat_coffee.mp4")]
        overlaps = []
        for hit in hits:
            common = max(0, min(hit["end_s"], end_s) - max(hit["start_s"], start_s))
            overlaps.append(common / (hit["end_s"] - hit["start_s"] + end_s - start_s - common))
        assert labels[label]["first_hit_iou"] == pytest.approx(overlaps[0])
        for iou in (0.1, 0.3, 0.5, 0.7):  # of one segment the average precision is that of the first hit that fits
            first = next((rank for rank, overlap in enumerate(overlaps, 1) if overlap >= iou), None)
            assert labels[label][f"ap_{iou:g}"] == pytest.approx(0 if first is None else 1 / first)


def test_a_report_of_a_data_set_has_its_pictures_and_says_what_was_left_out(vidx: Run, tmp_path: Path) -> None:
    root, report = tmp_path / "hmdb51", tmp_path / "report"
    make_hmdb51(root, per_class=3)
    broken, gone = sorted(root.glob("*/*.avi"))[:2]
    broken.write_bytes(b"no video")
    gone.unlink()
    how = ("eval", "zero-shot", root, "--dataset", "hmdb51", "--encoder", "conse", "--split", "full")
    run = vidx(*how, "--store", tmp_path / "store", "--report", report)
    assert run.returncode == 0, run.stderr
    assert f"left out: {broken}" in run.stderr
    assert gone.name[:-4] in run.stderr
    pictures = {"confusion_1.png", "classes_1.png"}
    texts = {"report.html", "report.md", "report.json", "items.parquet"}
    assert {path.name for path in report.iterdir()} == texts | pictures
    [figures] = json.loads((report / "report.json").read_text())["figures"]["encoders"]
    [split] = figures["splits"]
    assert (split["items"], split["missing"]) == (13, 2)
    assert parquet.read_table(report / "items.parquet").num_rows == 13


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path, vidx: Run) -> None:
    root, store = tmp_path / "hmdb51", tmp_path / "store"
    make_hmdb51(root, per_class=3)
    arguments: list[Any] = ["eval", "zero-shot", root, "--dataset", "hmdb51", "--encoder", "conse", "--store", store]
    program = "from vidx.learn import features; features._FLUSH_S = 0.0; from vidx.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.DEVNULL)
    for _ in range(1200):
        written = list(store.glob("features/*/*.parquet"))
        if written or process.poll() is not None:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = [row for path in store.glob("features/*/*.parquet") for row in parquet.read_table(path).to_pylist()]
    assert kept
    run = vidx(*arguments, "--json")
    assert run.returncode == 0, run.stderr
    rows = [row for path in store.glob("features/*/*.parquet") for row in parquet.read_table(path).to_pylist()]
    assert len({row["path"] for row in rows}) == len(rows)  # nothing was done twice
    whole = vidx(*arguments[:-1], tmp_path / "other", "--json")
    assert json.loads(run.stdout)["figures"] == json.loads(whole.stdout)["figures"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("zero-shot", "gone", "--dataset", "hmdb51"), "no folder gone"),
        (("zero-shot", ".", "--dataset", "nosuch"), "no data set 'nosuch'"),
        (("zero-shot", "."), "which data set is it?"),
        (("zero-shot", ".", "--preset", "nosuch"), "no preset called 'nosuch'"),
        (("zero-shot", ".", "--preset", "actionclip-mmaction2-example"), "is no file"),
        (("zero-shot", ".", "--preset", "actionclip-mmaction2-example", "--split", "1"), "says how it is tested"),
        (("zero-shot", ".", "--dataset", "folder", "--views", "2x2"), "clips x crops"),
        (("zero-shot", ".", "--dataset", "folder", "--template", "a video"), "has no {}"),
        (("retrieval", "gone.csv"), "can't read gone.csv"),
        (("compare", "conse", "--pairs", "gone.csv"), "can't read gone.csv"),
        (("moments", "gone.csv"), "nothing is indexed yet"),
        (("zero-shot", ".", "--dataset", "folder", "--report", "/dev/null/report"), "can't write into"),
    ],
)
def test_what_can_not_be_measured_is_one_line(vidx: Run, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    run = vidx("eval", *arguments, "--store", tmp_path / "store", cwd=tmp_path)
    assert run.returncode in (1, 2)
    assert run.stdout == ""
    assert told in run.stderr
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--frames", "3"), "conse looks at 8 frames, not 3"),
        (("--pooling", "mean"), "conse pools its frames by itself"),
        (("--sampling", "nosuch"), "choose --sampling from: starts"),
        (("--encoder", "nosuch"), "no encoder called 'nosuch'"),
        (("--lists", "nowhere"), "nowhere"),
        (("--split", "9"), "choose from: each, 1, 2, 3, pooled, full, half-class"),
    ],
)
def test_what_an_encoder_or_a_data_set_has_not_is_one_line(
    vidx: Run, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    make_hmdb51(tmp_path / "hmdb51", per_class=2)
    how = ("eval", "zero-shot", "hmdb51", "--dataset", "hmdb51", "--encoder", "conse", *options)
    run = vidx(*how, "--store", tmp_path / "store", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert told in run.stderr
    assert run.stderr.count("\n") == 1


def test_halves_of_a_single_class_are_refused(vidx: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "dogs").mkdir(parents=True)
    (tmp_path / "data" / "dogs" / "a.mp4").write_bytes(b"never opened")
    how = ("eval", "zero-shot", tmp_path / "data", "--dataset", "folder", "--encoder", "conse", "--split", "half-class")
    run = vidx(*how, "--store", tmp_path / "store")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "too few classes" in run.stderr
    assert not (tmp_path / "store").exists()
