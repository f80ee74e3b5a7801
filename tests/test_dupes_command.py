"""`vidx dupes`: what it writes, in every format, and what it finds of re-encoded real files."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from vidx.cli_dupes import dupes
from vidx.errors import UnknownChoice
from vidx.schema.store import Store
from vidx.tests.test_dupes import copied, scenes, stored

NAMES = [
    *("kind", "similarity", "path_a", "start_a_s", "end_a_s", "path_b", "start_b_s", "end_b_s"),
    *("covered_a", "covered_b", "online_a", "online_b", "video_id_a", "video_id_b"),
]


@pytest.fixture
def filled(store: Store) -> Path:
    """A film of five clips, a copy of three of them, and another video; none of the files is there."""
    film = scenes(5, 1)
    stored(store, {"film": film, 'a "part", 2': copied(film[1:4]), "other": scenes(4, 2)})
    return store.path


def run(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(dupes, ["--store", str(store), *arguments], catch_exceptions=False)


def test_the_table_has_a_line_for_each_pair_with_paths_last(filled: Path) -> None:
    result = run(filled)
    assert result.exit_code == 0
    head, line = result.stdout.splitlines()
    assert head.split() == ["kind", "similarity", "from_a", "to_a", "from_b", "to_b", "file_a", "file_b"]
    kind, similarity, *times = line.split()[:6]
    assert (kind, times) == ("contained", ["0:00:00.0", "0:00:30.0", "0:00:10.0", "0:00:40.0"])
    assert 0.95 < float(similarity) < 1
    assert line.endswith('/a "part", 2.mp4  (offline)  /film.mp4  (offline)')


def test_json_csv_and_parquet_hold_the_same(filled: Path, tmp_path: Path) -> None:
    [row] = [json.loads(line) for line in run(filled, "--format", "json").stdout.splitlines()]
    assert list(row) == NAMES
    assert {name: row[name] for name in NAMES if name != "similarity"} == {
        **{"kind": "contained", "path_a": '/a "part", 2.mp4', "start_a_s": 0.0, "end_a_s": 30.0},
        **{"path_b": "/film.mp4", "start_b_s": 10.0, "end_b_s": 40.0, "covered_a": 1.0, "covered_b": 0.6},
        **{"online_a": False, "online_b": False, "video_id_a": 'a "part", 2', "video_id_b": "film"},
    }
    assert run(filled, "-o", str(tmp_path / "found.parquet")).stdout == ""
    assert pq.read_table(tmp_path / "found.parquet").to_pylist() == [row]
    [line] = csv.DictReader(io.StringIO(run(filled, "--format", "csv").stdout))
    assert line == {name: json.dumps(value) if value is False else str(value) for name, value in row.items()}


@pytest.mark.parametrize("name", ["table", "json", "csv", "parquet"])
def test_nothing_found_is_an_empty_table_and_no_error(filled: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "found"
    result = run(filled, "--min-similarity", "1", "--format", name, "-o", str(out))
    assert (result.exit_code, result.output) == (0, "")
    if name == "parquet":
        table = pq.read_table(out)
        assert (table.column_names, table.num_rows) == (NAMES, 0)
    else:
        assert len(out.read_text().splitlines()) == (0 if name == "json" else 1)


def test_rows_that_are_not_shown_are_told_of(store: Store) -> None:
    film = scenes(5, 1)
    stored(store, {"film": film, "copy": copied(film), "other": copied(film, 7)})
    result = run(store.path, "-k", "2")
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == "the first 2 of 3; -k shows more\n"


def test_what_is_left_out_is_told_of(store: Store) -> None:
    black = scenes(1, 0)
    stored(store, {f"film {n}": np.vstack([black, scenes(2, n + 1)]) for n in range(30)})
    result = run(store.path)
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.startswith("left out: 30 clips that are like clips of many videos")


def test_an_unknown_format_is_refused_before_anything_is_compared(filled: Path) -> None:
    with pytest.raises(UnknownChoice, match="'xml'"):
        run(filled, "--format", "xml")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidx.cli_dupes; sys.exit(any(m in sys.modules for m in ('numpy', 'pyarrow', 'faiss', 'duckdb')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_a_film_encoded_again_is_found_whole_and_nothing_else_is(
    archive: Path,
    indexed_store: Path,
    make_video: Callable[..., Path],
    vidx: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    film, again, store = archive / "rocket_astronaut.mp4", tmp_path / "more" / "again.mp4", tmp_path / "store"
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    again.parent.mkdir()
    size = (pictures[0].shape[1], pictures[0].shape[0])
    make_video(again, n_frames=len(pictures), size=size, draw=lambda n, _: pictures[n], options={"crf": "28"})
    shutil.copytree(indexed_store, store)
    indexed = vidx("index", again.parent, "--store", store)
    assert indexed.returncode == 0, indexed.stderr
    [row] = [json.loads(line) for line in run(store, "--format", "json", "--min-similarity", "0.9").stdout.splitlines()]
    assert {row["path_a"], row["path_b"]} == {str(film), str(again)}
    assert [row[name] for name in ("kind", "start_a_s", "end_a_s", "start_b_s", "end_b_s")] == ["video", 0, 24, 0, 24]
    assert (row["online_a"], row["online_b"]) == (True, True)
