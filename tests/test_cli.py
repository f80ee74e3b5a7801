"""The vidx command as a user meets it: real processes, their output, their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vidx import __version__, encoders
from vidx.schema.store import Store

Vidx = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = ("index", "search", "sql", "status", "encoders")

needs_weights = pytest.mark.skipif(not encoders.spec("conse").is_here, reason="needs the weights of the conse extra")


def check_one_error(run: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on standard error that holds the words, nothing on standard output, and the exit code."""
    assert run.stderr.startswith("Error: "), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.endswith("\n")
    assert "Traceback" not in run.stderr
    assert all(word in run.stderr for word in words), run.stderr
    assert run.stdout == ""
    assert run.returncode == code


def test_help_names_every_command(vidx: Vidx) -> None:
    for flag in ("--help", "-h"):
        run = vidx(flag)
        assert (run.returncode, run.stderr) == (0, "")
        assert all(f"\n  {command}" in run.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "index",
            [
                "--store",
                "--encoder",
                "--weights",
                "--offline",
                "--clip",
                "--stride",
                "--workers",
                "--no-thumbnails",
                "--json",
            ],
        ),
        (
            "search",
            [
                "--store",
                "-k",
                "--by",
                "--like",
                "--not",
                "--where",
                "--encoder",
                "--rerank",
                "--format",
                "-o",
                "--sheet",
            ],
        ),
        ("sql", ["--store", "--format", "-o"]),
        ("status", ["--store", "--json"]),
        ("encoders", ["--json", "fetch", "use", "check"]),
    ],
)
def test_help_of_a_command_names_its_options(vidx: Vidx, command: str, options: list[str]) -> None:
    run = vidx(command, "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"Usage: vidx {command} ")
    assert [option for option in options if f"{option}" not in run.stdout] == []


def test_the_version_is_that_of_the_package(vidx: Vidx) -> None:
    assert vidx("--version").stdout == f"vidx, version {__version__}\n"


def test_the_command_without_arguments_shows_its_help(vidx: Vidx) -> None:
    run = vidx()
    assert "Error" not in run.stdout + run.stderr
    assert "\n  search" in run.stdout + run.stderr


def test_the_command_line_imports_nothing_heavy() -> None:
    code = """
import sys, vidx.cli
heavy = {"torch", "faiss", "duckdb", "pyarrow", "numpy", "deltalake", "av", "PIL", "timm", "transformers", "rich"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_python_dash_m_runs_the_command_too() -> None:
    run = subprocess.run([sys.executable, "-m", "vidx.cli", "--version"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"vidx, version {__version__}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search"], ["TEXT"]),
        (["dance"], ["dance"]),
        (["search", "a cat", "--colour"], ["--colour"]),
        (["search", "a cat", "-k", "0"], ["-k", "0"]),
        (["search", "a cat", "-k", "-3"], ["-k", "-3"]),
        (["search", "a cat", "-k", "many"], ["-k", "many"]),
        (["search", "a cat", "--by", "scene"], ["scene", "moment", "clip", "video"]),
        (["search", "a cat", "--min-score", "nan"], ["give a number"]),
        (["search", "a cat", "--format", "m3u", "--handles", "nan"], ["give a number"]),
        (["search", "a cat", "--handles", "2"], ["--handles is of --cut"]),
        (["search", "a cat", "--within", "soon"], ["30s, 5m or 1h"]),
        (["search", "a cat", "--after", "yesterday"], ["2024-05-31"]),
        (["search", "a cat", "--tag-set", "x"], ["--tag-set is of --where"]),
        (["dupes", "--min-similarity", "nan"], ["give a number"]),
        (["index", "--tier", "ivf"], ["--tier is of --rebuild-index"]),
        (["index"], ["name a FOLDER"]),
        (["search", "a cat", "--format", "xml"], ["xml", "csv, edl, json, m3u, otio, parquet, table"]),
        (["search", "a cat", "--format", "sheet"], ["sheet", "csv, edl, json, m3u, otio, parquet, table"]),
        (["search", "a cat", "-o", "no/such/folder.csv"], ["can't write no/such/folder.csv"]),
        (["search", "--not", "snow"], ["nothing to look for", "TEXT", "--like FILE"]),
        (["sql"], ["QUERY"]),
        (["index"], ["FOLDER"]),
        (["index", ".", "--clip", "0"], ["--clip", "0.1"]),
        (["index", ".", "--clip", "-5"], ["--clip", "0.1"]),
        (["index", ".", "--clip", "nan"], ["--clip", "0.1"]),
        (["index", ".", "--clip", "inf"], ["--clip", "86400"]),
        (["index", ".", "--clip", "long"], ["--clip", "long"]),
        (["index", ".", "--stride", "0"], ["--stride", "0.1"]),
        (["index", ".", "--workers", "0"], ["--workers", "0"]),
        (["index", ".", "--encoder", "resnet"], ["resnet", "conse"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_argument_is_one_line_and_makes_no_store(
    vidx: Vidx, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    environment = {**os.environ, "VIDX_STORE": str(tmp_path / "store")}
    check_one_error(vidx(*arguments, env=environment, cwd=tmp_path / "folder"), 2, *words)
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_not_there_is_one_line(vidx: Vidx, tmp_path: Path) -> None:
    run = vidx("index", tmp_path / "nope", "--store", tmp_path / "store")
    check_one_error(run, 2, f"no folder {tmp_path / 'nope'}")
    assert not (tmp_path / "store").exists()


def test_a_file_in_the_place_of_a_folder_is_one_line(vidx: Vidx, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    run = vidx("index", tmp_path / "a.mp4", "--store", tmp_path / "store")
    check_one_error(run, 2, "a.mp4 is a file", "name the folder")
    assert not (tmp_path / "store").exists()


def test_an_empty_folder_is_one_line(vidx: Vidx, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    run = vidx("index", tmp_path / "archive", "--store", tmp_path / "store")
    check_one_error(run, 2, "is empty: there is no file to index")
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@needs_weights
def test_a_folder_without_videos_is_indexed_and_a_search_says_that_there_are_none(vidx: Vidx, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "notes.txt").write_text("no video")
    assert vidx("index", tmp_path / "archive", "--store", tmp_path / "store").returncode == 0
    check_one_error(vidx("search", "a cat", "--store", tmp_path / "store"), 1, "no video is indexed", "vidx index")


def test_a_name_that_plays_tricks_on_a_terminal_is_escaped_in_an_error(vidx: Vidx, tmp_path: Path) -> None:
    """Colour codes alone would not do as a test: click leaves them out where the output is no terminal."""
    run = vidx("index", tmp_path / "4pm.\u202eexe\x07\nnope", "--store", tmp_path / "store")
    check_one_error(run, 2, "no folder")
    assert run.stderr.rstrip("\n").isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["search", "a cat"], ["status"]])
def test_asking_before_anything_is_indexed_says_what_to_run(vidx: Vidx, tmp_path: Path, command: list[str]) -> None:
    check_one_error(vidx(*command, "--store", tmp_path / "store"), 1, "nothing is indexed yet", "vidx index FOLDER")
    Store.create(tmp_path / "made")
    if command[0] == "search":
        check_one_error(vidx(*command, "--store", tmp_path / "made"), 1, "nothing is indexed yet")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_an_empty_query_is_one_line(vidx: Vidx, store: Store, text: str) -> None:
    check_one_error(vidx("search", text, "--store", store.path), 2, "the query is empty")


@pytest.mark.slow
def test_a_damaged_store_is_one_line(vidx: Vidx, store: Store) -> None:
    (store.path / "store.json").write_text("{")
    for command in (["search", "a cat"], ["status"]):
        check_one_error(vidx(*command, "--store", store.path), 1, "store.json can't be read")


def test_a_later_store_is_one_line(vidx: Vidx, store: Store) -> None:
    (store.path / "store.json").write_text('{"format": 99}')
    check_one_error(vidx("status", "--store", store.path), 1, "format 99", "newer vidx")


def test_a_foreign_folder_is_not_made_a_store(vidx: Vidx, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.txt").write_text("a")
    run = vidx("index", tmp_path / "archive", "--store", tmp_path)
    check_one_error(run, 1, "is no store and not empty")
    assert {path.name for path in tmp_path.iterdir()} == {"precious.txt", "archive"}


def test_debug_shows_where_an_error_came_from(vidx: Vidx, tmp_path: Path) -> None:
    run = vidx("--debug", "status", "--store", tmp_path / "store")
    assert run.returncode == 1
    assert "Traceback (most recent call last)" in run.stderr
    assert "StoreMissing" in run.stderr
    assert run.stderr.splitlines()[-1].startswith("Error: nothing is indexed yet")


_HOLD = """
import sys
from pathlib import Path
from vidx.schema.store import Store
from vidx.schema.writer import writing
with writing(Store.open(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@needs_weights
def test_a_store_that_is_being_written_is_exit_code_4(vidx: Vidx, store: Store, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.txt").write_text("a")
    command = [sys.executable, "-c", _HOLD, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        run = vidx("index", tmp_path / "archive", "--store", store.path, "--encoder", "conse")
        check_one_error(run, 4, "is being written by", f"process {holder.pid} ")
        assert vidx("status", "--store", store.path).returncode == 0  # readers are not held up
        holder.communicate()


def searched(vidx: Vidx, store: Path, *arguments: Any) -> dict[str, Any]:
    run = vidx("search", *arguments, "--format", "json", "--store", store)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("\n") == 1
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize(
    ("text", "name", "first_half"),
    [
        ("a cat", "cat_coffee.mp4", True),
        ("a cup of coffee", "cat_coffee.mp4", False),
        ("a rocket", "rocket_astronaut.mp4", True),
        ("a motorcycle", "coins_motorcycle.mp4", False),
    ],
)
def test_a_search_finds_the_scene(vidx: Vidx, indexed_store: Path, text: str, name: str, first_half: bool) -> None:
    """Scenes change at 12 s."""
    answer = searched(vidx, indexed_store, text)
    best = answer["hits"][0]
    assert Path(best["path"]).name == name
    assert (best["peak_s"] < 12) == first_half
    assert best["start_s"] <= best["peak_s"] <= best["end_s"] <= 24.1
    assert best["online"] is True
    assert answer["query"] == text
    assert answer["store"] == str(indexed_store)
    assert answer["space"] == Store.open(indexed_store).facts().default_space
    assert answer["took_ms"] > 0


@pytest.mark.slow
@needs_weights
def test_a_search_prints_a_table_with_the_same_hits(vidx: Vidx, indexed_store: Path) -> None:
    run = vidx("search", "a cat", "--store", indexed_store)
    assert (run.returncode, run.stderr) == (0, "")
    head, *lines = run.stdout.splitlines()
    assert head.split() == ["#", "score", "from", "to", "file"]
    hits = searched(vidx, indexed_store, "a cat")["hits"]
    assert [line.split()[0] for line in lines] == [str(hit["rank"]) for hit in hits]
    assert all(line.endswith(f"  {hit['path']}") for line, hit in zip(lines, hits, strict=True))


@pytest.mark.slow
@needs_weights
def test_hits_can_be_clips_moments_or_videos(vidx: Vidx, indexed_store: Path) -> None:
    clips = searched(vidx, indexed_store, "a cat", "--by", "clip")["hits"]
    assert len(clips) == 6
    assert {len(hit["clip_ids"]) for hit in clips} == {1}
    in_moments = searched(vidx, indexed_store, "a cat", "--by", "moment")["hits"]
    assert sorted(clip_id for hit in in_moments for clip_id in hit["clip_ids"]) == sorted(
        hit["clip_ids"][0] for hit in clips
    )
    found_videos = searched(vidx, indexed_store, "a cat", "--by", "video")["hits"]
    assert len(found_videos) == len({hit["video_id"] for hit in found_videos}) == 3
    assert Path(found_videos[0]["path"]).name == "cat_coffee.mp4"
    assert {hits[0]["score"] for hits in (clips, in_moments, found_videos)} == {clips[0]["score"]}


@pytest.mark.slow
@needs_weights
def test_k_limits_the_hits_and_white_space_around_a_query_does_not_count(vidx: Vidx, indexed_store: Path) -> None:
    one = searched(vidx, indexed_store, "  a cat ", "-k", "1", "--by", "clip")
    all_hits = searched(vidx, indexed_store, "a cat", "-k", "10000", "--by", "clip")
    assert one["query"] == "a cat"
    assert one["hits"] == all_hits["hits"][:1]


@pytest.mark.slow
@needs_weights
def test_a_sheet_is_written_beside_the_answer(vidx: Vidx, indexed_store: Path, tmp_path: Path) -> None:
    answer = searched(vidx, indexed_store, "a cat", "--by", "clip", "--sheet", tmp_path / "sheet.png")
    assert len(answer["hits"]) == 6
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert len(sheet.convert("RGB").getcolors(2**24)) > 1000  # photos, not empty frames


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nope/sheet.png", "sheet", "sheet.jpg"])
def test_a_sheet_that_cannot_be_written_is_one_line(vidx: Vidx, store: Store, tmp_path: Path, name: str) -> None:
    run = vidx("search", "a cat", "--store", store.path, "--sheet", tmp_path / name)
    check_one_error(run, 2, f"can't write {tmp_path / name}", ".png file in a folder that exists")


@pytest.mark.slow
@needs_weights
def test_the_store_can_be_named_by_the_environment(vidx: Vidx, indexed_store: Path, tmp_path: Path) -> None:
    run = vidx("status", "--json", env={**os.environ, "VIDX_STORE": str(indexed_store)}, cwd=tmp_path)
    assert json.loads(run.stdout)["store"] == str(indexed_store)


@pytest.mark.slow
@needs_weights
def test_status_counts_what_was_indexed(vidx: Vidx, indexed_store: Path) -> None:
    run = vidx("status", "--json", "--store", indexed_store)
    assert (run.returncode, run.stderr) == (0, "")
    facts = json.loads(run.stdout)
    space = facts["default_space"]
    assert space.startswith("conse-")
    last_run = facts.pop("last_run")
    assert (last_run["state"], last_run["counts"]["indexed"]) == ("done", 3)
    assert last_run["command"].startswith("index /")
    assert datetime.fromisoformat(last_run["finished_at"]) < datetime.now(UTC)
    assert facts == {
        "store": str(indexed_store),
        "files": 3,
        "ok": 3,
        "partial": 0,
        "failed": 0,
        "not_video": 0,
        "not_indexed": 0,
        "missing": 0,
        "videos": 3,
        "hours": 0.02,
        "retired": 0,
        "default_space": space,
        "clips": {space: 6},
    }
    text = vidx("status", "--store", indexed_store).stdout
    assert [line.split()[0] for line in text.splitlines()] == [name.split("_")[0] for name in (*facts, "last_run")]
    assert f"{space} 6" in text


def test_status_of_an_empty_store_is_all_zeros(vidx: Vidx, store: Store) -> None:
    run = vidx("status", "--json", "--store", store.path)
    assert (run.returncode, run.stderr) == (0, "")
    facts = json.loads(run.stdout)
    assert {facts[name] for name in ("files", "ok", "partial", "failed", "not_video", "videos", "hours")} == {0}
    assert facts["default_space"] is None
    assert facts["clips"] == {}


@pytest.mark.slow
def test_the_encoders_are_listed_with_what_decides_between_them(vidx: Vidx) -> None:
    run = vidx("encoders", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    listed = {encoder["name"]: encoder for encoder in json.loads(run.stdout)["encoders"]}
    conse, xclip = listed["conse"], listed["xclip-base-patch32"]
    assert [name for name, encoder in listed.items() if encoder["default"]] == ["xclip-base-patch32"]
    assert next(iter(listed)) == "xclip-base-patch32"
    assert (xclip["frames"], xclip["side_px"], xclip["dim"], xclip["licence"]) == (8, 224, 512, "MIT")
    assert xclip["addresses"] == ["hf://microsoft/xclip-base-patch32/model.safetensors"]
    assert conse["here"] is encoders.spec("conse").is_here
    assert (conse["megabytes"], conse["frames"], conse["dim"]) == (116.0, 8, 384)
    assert conse["licence"].startswith("Apache-2.0")
    assert {"description"} <= set(conse)
    lines = vidx("encoders").stdout.splitlines()
    assert len(lines) == len(listed) + 2  # those of clip:MODEL/PRETRAINED and the heading of the classifiers
    [line] = [line for line in lines if line.startswith("conse ")]
    assert "116 MB   384 dim" in line


@pytest.mark.slow
def test_weights_that_can_not_be_fetched_are_one_line(vidx: Vidx, tmp_path: Path) -> None:
    for arguments in (["encoders", "fetch", "xclip-base-patch32"], ["encoders", "fetch", "actionclip-vitb32-8f"]):
        run = vidx(*arguments, env={**os.environ, "VIDX_WEIGHTS": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)})
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.startswith("Error: the ")
        assert run.stderr.count("\n") == 1
    assert "github.com/sallymmx/ActionCLIP" in run.stderr


@pytest.mark.slow
@needs_weights
def test_a_new_store_without_an_encoder_says_which_it_gets_and_how_to_get_a_better_one(
    vidx: Vidx, archive: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").hardlink_to(sorted(archive.glob("*.mp4"))[0])
    environment = {**os.environ, "VIDX_WEIGHTS": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    run = vidx("index", folder, "--store", tmp_path / "store", "--offline", env=environment)
    assert run.returncode == 0
    assert run.stderr.startswith("using conse, which finds things, not actions: ")
    assert "vidx encoders fetch xclip-base-patch32" in run.stderr
    again = vidx("index", folder, "--store", tmp_path / "store", env=environment)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.slow
@needs_weights
def test_the_encoder_of_a_store_is_one_that_indexed_something(vidx: Vidx, indexed_store: Path) -> None:
    run = vidx("encoders", "use", "conse", "--store", indexed_store)
    assert run.returncode == 0
    assert "now uses conse (conse-" in run.stdout
    run = vidx("encoders", "use", "xclip-base-patch32", "--store", indexed_store)
    check_one_error(run, 2)
    assert "vidx index FOLDER --encoder xclip-base-patch32" in run.stderr
    check_one_error(vidx("search", "a cat", "--encoder", "nothing", "--store", indexed_store), 2)
    check_one_error(vidx("search", "a cat", "--rerank", "3", "--store", indexed_store), 2)


@pytest.mark.slow
def test_files_that_are_given_as_weights_must_be_weights(vidx: Vidx, archive: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    asked = ["index", archive, "--store", store, "--encoder", "xclip-base-patch32", "--weights"]
    check_one_error(vidx(*asked, tmp_path / "absent.pt"), 2)
    (tmp_path / "text.pt").write_text("no weights")
    check_one_error(vidx(*asked, tmp_path / "text.pt"), 1)
    check_one_error(vidx(*asked, tmp_path / "text.pt", "--weights", tmp_path / "text.pt"), 2)
    assert not store.exists()


def run_with_no_reader(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """The command writing to a pipe that nobody reads any more, as before `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [Path(sys.executable).with_name("vidx"), *map(str, arguments)]
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)


@pytest.mark.parametrize("arguments", [["encoders"], ["encoders", "--json"], ["--help"], ["search", "--help"]])
def test_a_reader_that_left_is_no_trouble(arguments: list[str]) -> None:
    run = run_with_no_reader(*arguments)
    assert run.stderr == ""


@pytest.mark.slow
@needs_weights
def test_a_search_whose_reader_left_is_silent(indexed_store: Path) -> None:
    assert run_with_no_reader("search", "a cat", "--store", indexed_store).stderr == ""


@pytest.mark.slow
@needs_weights
def test_words_that_are_no_text_are_one_line(vidx: Vidx, indexed_store: Path) -> None:
    """An argument may be any bytes; Python hands on what is no UTF-8 as lone surrogates."""
    run = vidx("search", os.fsdecode(b"caf\xe9"), "--store", indexed_store)
    check_one_error(run, 2)
    assert "unexpected" not in run.stderr


@pytest.mark.slow
def test_an_error_can_be_printed_where_the_terminal_knows_only_ascii(vidx: Vidx, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    run = vidx("index", tmp_path / "Müller", "--store", tmp_path / "store", env=environment)
    assert run.returncode == 2
    assert run.stderr.startswith("Error: no folder ")
    assert "Traceback" not in run.stderr
