"""`vidx search` with examples, filters, negatives and formats, as a user meets it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from vidx import encoders

Vidx = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not encoders.spec("conse").is_here, reason="needs the weights of the conse extra"),
]


def searched(vidx: Vidx, store: Path, *arguments: Any, **settings: Any) -> dict[str, Any]:
    run = vidx("search", *arguments, "--format", "json", "--store", store, **settings)
    assert (run.returncode, run.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def names(answer: dict[str, Any]) -> list[str]:
    return [Path(hit["path"]).name for hit in answer["hits"]]


def check_one_error(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1
    assert all(word in run.stderr for word in words), run.stderr


def test_a_filter_leaves_what_it_says_and_counts_it(vidx: Vidx, indexed_store: Path) -> None:
    everything = searched(vidx, indexed_store, "a cat", "--by", "clip")
    assert everything["total"] is None
    answer = searched(vidx, indexed_store, "a cat", "--by", "clip", "--where", "path LIKE '%rocket%' OR start_s = 0")
    assert answer["total"] == 4
    left = [hit for hit in everything["hits"] if "rocket" in hit["path"] or hit["start_s"] == 0]
    assert [{**hit, "rank": number} for number, hit in enumerate(left, 1)] == answer["hits"]


@pytest.mark.parametrize(("by", "total"), [("clip", 2), ("moment", 1), ("video", 1)])
def test_the_total_counts_hits_of_the_kind_asked_for(vidx: Vidx, indexed_store: Path, by: str, total: int) -> None:
    where = "path LIKE '%coins%'"
    answer = searched(vidx, indexed_store, "something else entirely", "--by", by, "--where", where)
    assert answer["total"] == len(answer["hits"])
    assert total <= answer["total"] <= 2
    assert searched(vidx, indexed_store, "a cat", "-k", "1", "--by", by, "--where", where)["total"] is None


def test_a_filter_that_leaves_nothing_is_an_answer(vidx: Vidx, indexed_store: Path) -> None:
    answer = searched(vidx, indexed_store, "a cat", "--where", "duration_s > 1e6")
    assert (answer["total"], answer["hits"]) == (0, [])
    text = vidx("search", "a cat", "--where", "duration_s > 1e6", "--store", indexed_store).stdout
    assert text.splitlines()[1:] == ["0 in all; the filters leave no more"]


def test_what_is_not_wanted_falls_behind(vidx: Vidx, indexed_store: Path) -> None:
    plain = searched(vidx, indexed_store, "a cat", "--by", "video")
    assert names(plain)[0] == "cat_coffee.mp4"
    less = searched(vidx, indexed_store, "a thing on a table", "--not", "a cat", "--not", "coffee", "--by", "video")
    assert less["query"] == "a thing on a table; not a cat; not coffee"
    assert names(less)[-1] == "cat_coffee.mp4"


def test_an_indexed_clip_finds_itself_first_and_what_is_like_it(vidx: Vidx, archive: Path, indexed_store: Path) -> None:
    given = f"{archive / 'cat_coffee.mp4'}@5"
    answer = searched(vidx, indexed_store, "--like", given, "--by", "clip")
    best = answer["hits"][0]
    assert (Path(best["path"]).name, best["start_s"], best["score"]) == ("cat_coffee.mp4", 0.0, 1.0)
    assert answer["query"] == f"like {given}"


_LISTS_LOADED = """
import sys
from vidx.cli import vidx
vidx(sys.argv[1:], standalone_mode=False)
print([name for name in ("torch", "timm", "av", "pandas", "tokenizers") if name in sys.modules], file=sys.stderr)
"""


def test_an_indexed_clip_is_searched_by_without_any_model(archive: Path, indexed_store: Path) -> None:
    arguments = ["search", "--like", f"{archive / 'cat_coffee.mp4'}@5", "--store", str(indexed_store)]
    run = subprocess.run([sys.executable, "-c", _LISTS_LOADED, *arguments], capture_output=True, text=True)
    assert run.stderr == "[]\n"
    assert "cat_coffee.mp4" in run.stdout


def test_words_are_searched_by_without_torch_and_decoding(indexed_store: Path) -> None:
    arguments = ["search", "a cat", "--where", "duration_s > 1", "--format", "csv", "--store", str(indexed_store)]
    run = subprocess.run([sys.executable, "-c", _LISTS_LOADED, *arguments], capture_output=True, text=True)
    assert run.stderr == "['tokenizers']\n"


def test_a_picture_finds_the_scene_it_was_made_of(vidx: Vidx, indexed_store: Path) -> None:
    skimage = pytest.importorskip("skimage")
    picture = Path(skimage.__file__).parent / "data" / "chelsea.png"
    best = searched(vidx, indexed_store, "--like", picture)["hits"][0]
    assert Path(best["path"]).name == "cat_coffee.mp4"
    assert best["peak_s"] < 12
    with_words = searched(vidx, indexed_store, "a cup of coffee", "--like", picture, "--by", "video")
    assert names(with_words)[0] == "cat_coffee.mp4"


def test_a_copy_of_a_video_that_is_not_indexed_finds_the_original(
    vidx: Vidx, archive: Path, indexed_store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy@2.mp4"
    copy.write_bytes((archive / "rocket_astronaut.mp4").read_bytes())
    whole = searched(vidx, indexed_store, "--like", copy, "--by", "video")
    assert names(whole)[0] == "rocket_astronaut.mp4"
    at = searched(vidx, indexed_store, "--like", f"{copy}@6", "--by", "clip")["hits"][0]
    assert (Path(at["path"]).name, at["start_s"]) == ("rocket_astronaut.mp4", 0.0)
    assert at["score"] > 0.95


def test_an_example_that_can_not_be_used_is_one_line(
    vidx: Vidx, archive: Path, indexed_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    for given, words in (
        (f"{archive / 'cat_coffee.mp4'}@99", "it ends at 24.0 s, before 99 s"),
        (tmp_path / "notes.txt", "notes.txt: "),
        (tmp_path / "none.mp4", "no file"),
        (tmp_path, "is no file"),
    ):
        check_one_error(vidx("search", "--like", given, "--store", indexed_store), "--like: ", words)


def test_csv_parquet_and_json_have_the_same_hits(vidx: Vidx, indexed_store: Path, tmp_path: Path) -> None:
    hits = searched(vidx, indexed_store, "a cat")["hits"]
    for name in ("csv", "parquet"):
        run = vidx("search", "a cat", "--store", indexed_store, "-o", tmp_path / f"hits.{name}")
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    table = parquet.read_table(tmp_path / "hits.parquet")
    assert table.to_pylist() == hits
    with open(tmp_path / "hits.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(hits[0])
    assert [json.loads(row["paths"]) for row in rows] == [hit["paths"] for hit in hits]
    assert [float(row["score"]) for row in rows] == [hit["score"] for hit in hits]


def test_an_answer_goes_to_a_file_in_any_format(vidx: Vidx, indexed_store: Path, tmp_path: Path) -> None:
    printed = vidx("search", "a cat", "--store", indexed_store).stdout
    for arguments in (["-o", "hits.txt"], ["-o", "hits.csv", "--format", "table"]):
        run = vidx("search", "a cat", "--store", indexed_store, *arguments, cwd=tmp_path)
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
        assert (tmp_path / arguments[1]).read_text() == printed
    vidx("search", "a cat", "--store", indexed_store, "-o", tmp_path / "hits.json")
    assert json.loads((tmp_path / "hits.json").read_text())["query"] == "a cat"
    assert {path.name for path in tmp_path.iterdir()} == {"hits.txt", "hits.csv", "hits.json"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_is_one_line(vidx: Vidx, indexed_store: Path) -> None:
    check_one_error(vidx("search", "a cat", "--store", indexed_store, "-o", "/dev/full"), "can't write /dev/full")


def test_a_search_runs_where_nothing_can_be_written(vidx: Vidx, indexed_store: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert searched(vidx, indexed_store, "a cat", "--where", "path LIKE '%cat%'", cwd=closed)["hits"]
    assert os.listdir(closed) == []
