"""`vidx tag` as a command: what it refuses, and that it refuses before anything is replaced."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from vidx.cli_tag import tag as command
from vidx.config import SearchOptions, TagOptions
from vidx.errors import InputError, VidxError
from vidx.schema.condition import Filters, matching_clips
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.tag_tables import files_of
from vidx.search.run import search
from vidx.tests.made_store import DIM, SPACE, Archive
from vidx.tests.test_tags import Spoken


@pytest.fixture
def archive(store: Store, monkeypatch: pytest.MonkeyPatch) -> Archive:
    for user in ("_tag_plan", "tag_hits", "query"):
        monkeypatch.setattr(f"vidx.search.{user}.encoder_of", lambda space: Spoken())
    made = Archive(store)
    rng = np.random.default_rng(5)
    for number in range(3):
        vectors = rng.standard_normal((6, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        made.add(f"v{number}", vectors, [f"/archive/{number}.mp4".encode()], stride_s=10 / 3)
    return made


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("climb\nsit\ncook\n")
    return path


def run(store: Store, *arguments: Any) -> Any:
    return CliRunner().invoke(command, ["--store", str(store.path), *map(str, arguments)])


def told(store: Store, *arguments: Any) -> str:
    """The error of a command that makes no sense."""
    result = run(store, *arguments)
    assert isinstance(result.exception, InputError), result.output
    return f"{result.exception}; {result.exception.hint}"


def test_what_differs_is_written_as_csv_and_parquet(archive: Archive, labels: Path, tmp_path: Path) -> None:
    assert run(archive.store, "--labels", labels, "--top", 1).exit_code == 0
    arguments = ["--labels", labels, "--top", 2, "--diff", "mine", "--json", "--changes"]
    made = json.loads(run(archive.store, *arguments, tmp_path / "changes.csv").stdout)
    with open(tmp_path / "changes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert made["diff"]["added"] == len(rows) == 18
    assert {(row["change"], row["new_rank"], row["old_rank"]) for row in rows} == {("added", "2", "")}
    assert run(archive.store, "--diff", "mine", "--set", "mine", "--changes", tmp_path / "none.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    for strange in ("a.json", "a.txt", "a"):
        assert "can't write" in told(archive.store, *arguments, tmp_path / strange)


def test_what_makes_no_sense_is_refused_before_a_set_is_replaced(
    archive: Archive, labels: Path, tmp_path: Path
) -> None:
    run(archive.store, "--labels", labels)
    before = files_of(archive.store, "mine")
    (tmp_path / "other.parquet").write_text("no Parquet")
    (tmp_path / "empty").mkdir()
    for arguments in (
        ["--diff", tmp_path / "other.parquet"],
        ["--diff", tmp_path / "empty"],
        ["--diff", "nothing"],
        ["-o", tmp_path / "none" / "folder"],
        ["-o", tmp_path / "none" / "a.parquet"],
        ["-o", tmp_path / "a.csv"],
        ["--webvtt", tmp_path / "none" / "vtt"],
        ["--webvtt", tmp_path / "vtt", "--level", "video"],
        ["--set", "searches"],
        ["--set", "_"],
    ):
        told(archive.store, "--labels", labels, *arguments)
    assert files_of(archive.store, "mine") == before


def test_a_set_may_be_called_anything_that_leaves_the_store_whole(archive: Archive, labels: Path) -> None:
    for name in ("_delta_log", ".lock", "../../x", "mine.json"):
        assert run(archive.store, "--labels", labels, "--set", name).exit_code == 0
    assert archive.store.tag_sets() == ["delta_log", "lock", "mine-json", "x"]
    assert Snapshot(archive.store).rows("SELECT count(DISTINCT tag_set) FROM tags") == [(4,)]


def test_without_labels_sets_are_compared_as_they_are(archive: Archive, labels: Path) -> None:
    run(archive.store, "--labels", labels)
    before = files_of(archive.store, "mine")
    assert "0 added, 0 removed, 0 changed" in run(archive.store, "--diff", "mine").stdout
    assert "compares two sets" in told(archive.store, "--diff", "mine", "--top", 3)
    assert files_of(archive.store, "mine") == before


@pytest.mark.parametrize(
    "options",
    [
        {"calibrate": Path("a.csv"), "calibrated": False},
        {"calibrate": Path("a.csv"), "precision": 0.9, "threshold": 0.5},
        {"precision": 0.9},
        {"reliability": Path("a.png")},
        {"labels": None, "taught": "x", "background": Path("a.txt")},
        {"labels": None, "taught": "x", "templates": "a {}"},
        {"templates": "no place"},
        {"levels": ()},
        {"levels": "shot"},
    ],
)
def test_options_that_contradict_one_another_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(VidxError) as caught:
        TagOptions(**{"labels": "kinetics400", **options})
    assert caught.value.hint


def test_tags_of_clips_are_of_those_clips_alone(archive: Archive) -> None:
    """Answers round times to a millisecond, and clips here are a third of a second off."""
    answer = search(archive.store, ["climbing"], SearchOptions(by="clip", k=4, tag="climb"))
    ids, _ = matching_clips(
        Snapshot(archive.store), SPACE.name, Filters("label = 'climb' AND end_s - start_s > 0", tag_set="searches")
    )
    tagged = {clip_id for hit in answer.hits for clip_id in hit.clip_ids}
    assert tagged <= set(ids.tolist())
    times = {hit.video_id: (hit.start_s, hit.end_s) for hit in answer.hits}
    assert times
    for clip_id in set(ids.tolist()) - tagged:  # these overlap by much more than a millisecond
        [(video_id, start_s, end_s)] = Snapshot(archive.store).rows(
            f"SELECT video_id, start_s, end_s FROM {Snapshot(archive.store).all_clips(SPACE.name)}"
            f" WHERE clip_id = {clip_id}"
        )
        assert any(
            hit.video_id == video_id and min(hit.end_s, end_s) - max(hit.start_s, start_s) > 0.01 for hit in answer.hits
        )


def test_clips_without_a_match_have_no_label_in_a_filter(archive: Archive, labels: Path) -> None:
    run(archive.store, "--labels", labels, "--threshold", 0.9, "--top", 1)
    rows = Snapshot(archive.store).rows("SELECT clip_id, label FROM tags")
    with_label = {clip_id for clip_id, label in rows if label is not None}
    assert 0 < len(with_label) < len(rows)
    found, _ = matching_clips(Snapshot(archive.store), SPACE.name, Filters("probability > 0"))
    assert with_label <= set(found.tolist())
    unlabelled, _ = matching_clips(Snapshot(archive.store), SPACE.name, Filters("label IS NULL"))
    assert not set(unlabelled.tolist()) & with_label


def test_joiners_are_text_and_control_characters_are_not(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\n👨‍👩‍👧\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("a\x1b[31m\n")
    assert run(archive.store, "--labels", tmp_path / "a.txt", "--top", 2).exit_code == 0
    assert "can't be printed" in told(archive.store, "--labels", tmp_path / "b.txt")
