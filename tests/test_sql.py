"""`vidx sql`: one SELECT over one snapshot, whatever a user types."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from vidx import cli
from vidx.errors import InputError
from vidx.schema import tables
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.sql import VIEWS, select
from vidx.schema.store import Store
from vidx.schema.writer import Commit, StoreWriter, writing

Vidx = Callable[..., subprocess.CompletedProcess[str]]
SPACES = [Space("toy", {"video": digest}, Preprocess(8, 8), frames=1, pooling="mean", dim=4) for digest in ("ab", "cd")]
INDEXED_AT = datetime(2026, 3, 1, 12, 30, 15, 250_000, UTC)
TRICKY = 'two\nlines, "quoted", \x1b[31mred.mp4'


def add(opened: StoreWriter, video_id: str, n_clips: int, path: str, space: Space = SPACES[0]) -> None:
    first = opened.reserve_clip_ids(max(1, n_clips))
    clips = [
        {
            "clip_id": first + number,
            "video_id": video_id,
            "start_s": 10.0 * number,
            "end_s": 10.0 * number + 10,
            "frame_pts": list(range(8)),
            "frame_pts_s": [0.5] * 8,
            "vector": np.eye(4, dtype=np.float32)[number % 4],
        }
        for number in range(n_clips)
    ]
    file = dict.fromkeys(tables.FILES.names)
    file |= {"root": "/a", "path": path, "path_bytes": path.encode(), "size": 100, "video_id": video_id}
    indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
    indexed |= {"video_id": video_id, "space": space.name, "state": "ok" if n_clips else "failed"}
    indexed |= {"first_clip_id": first, "n_clips": n_clips, "indexed_at": INDEXED_AT}
    video = dict.fromkeys(tables.VIDEOS.names) | {"video_id": video_id, "duration_s": 10.0 * n_clips, "width": 640}
    thumbnail = {"video_id": video_id, "frame_pts": 4, "image": bytes(range(256)) * 4}
    opened.commit(Commit([], [thumbnail], {space.name: clips}, [video], [indexed], [{**file, "state": "present"}]))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three videos in two spaces, one of them indexed twice in the first."""
    store = Store.create(tmp_path_factory.mktemp("sql") / "store")
    with writing(store) as opened:
        for space in SPACES:
            opened.add_space(space)
        add(opened, "cats", 5, "/a/cats.mp4")
        add(opened, "cats", 3, "/a/cats.mp4")
        add(opened, "dogs", 2, f"/a/{TRICKY}")
        add(opened, "cats", 1, "/a/cats.mp4", SPACES[1])
        add(opened, "gone", 0, "/a/gone.mp4")
    return store.path


def rows(store: Path, query: str, cells: str = "values") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = select(Snapshot(Store(store)), query, cells).read_all().to_pylist()
    return found


def asked(vidx: Vidx, store: Path, query: str, *options: Any, **settings: Any) -> str:
    run = vidx("sql", query, "--store", store, *options, **settings)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def printed(store: Path, query: str, *options: Any) -> str:
    """What the command prints, here in this process."""
    run = CliRunner().invoke(cli.vidx, ["sql", query, "--store", str(store), *map(str, options)])
    assert (run.exit_code, run.stderr) == (0, "")
    return run.stdout


def check_one_error(run: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert run.stderr.startswith("Error: "), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert all(word in run.stderr for word in words), run.stderr
    assert run.returncode == code


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_the_columns_it_is_said_to_have(filled: Path, view: str) -> None:
    assert select(Snapshot(Store(filled)), f"FROM {view}").schema.names == VIEWS[view]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_there_in_an_empty_store(store: Store, view: str) -> None:
    reader = select(Snapshot(store), f"FROM {view}")
    assert (reader.schema.names, reader.read_all().num_rows) == (VIEWS[view], 0)


def test_the_views_of_a_store_are_those_that_are_documented(filled: Path) -> None:
    assert {row["name"] for row in rows(filled, "SHOW TABLES")} == set(VIEWS)


def test_clips_are_the_live_ones_of_all_spaces(filled: Path) -> None:
    found = rows(filled, "SELECT space, video_id, count(*) AS n FROM clips GROUP BY ALL ORDER BY ALL")
    names = [space.name for space in SPACES]
    assert sorted((row["space"], row["video_id"], row["n"]) for row in found) == sorted(
        [(names[0], "cats", 3), (names[0], "dogs", 2), (names[1], "cats", 1)]
    )


def test_newest_has_one_attempt_for_each_content_and_space(filled: Path) -> None:
    assert rows(filled, "SELECT count(*) AS n FROM newest") == [{"n": 4}]
    assert rows(filled, "SELECT count(*) AS n FROM indexed") == [{"n": 5}]


def test_columns_of_the_same_name_are_told_apart(filled: Path) -> None:
    assert rows(filled, 'SELECT 1 AS a, 2 AS a, 3 AS "A", 4 AS a_1') == [{"a": 1, "a_1": 2, "A_2": 3, "a_1_1": 4}]


def test_the_order_a_query_asks_for_is_kept_over_many_batches(filled: Path) -> None:
    found = select(Snapshot(Store(filled)), "SELECT i FROM range(100000) t(i) ORDER BY hash(i)", "text").read_all()
    expected = rows(filled, "SELECT list(i ORDER BY hash(i)) AS numbers FROM range(100000) t(i)")[0]["numbers"]
    assert [int(number) for number in found["i"].to_pylist()] == expected


def test_a_table_shows_times_in_utc_wherever_the_machine_stands(vidx: Vidx, filled: Path) -> None:
    query = "SELECT video_id, indexed_at FROM newest WHERE video_id = 'dogs'"
    text = asked(vidx, filled, query, env={**os.environ, "TZ": "Pacific/Auckland"})
    assert text.splitlines() == ["video_id  indexed_at", "dogs      2026-03-01 12:30:15.25+00"]


_WITHOUT = """
import sys
sys.modules["pandas"] = sys.modules["pytz"] = None
from vidx.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table", "json", "csv", "parquet"])
def test_no_format_needs_pandas_or_pytz(filled: Path, tmp_path: Path, name: str) -> None:
    arguments = ["sql", "SELECT *, indexed_at::DATE AS day FROM newest", "--format", name, "-o", tmp_path / "out"]
    command = [sys.executable, "-c", _WITHOUT, *map(str, arguments), "--store", str(filled)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "out").stat().st_size > 100


_LISTS_LOADED = """
import sys
from vidx.cli import vidx
vidx(sys.argv[1:], standalone_mode=False)
print([name for name in ("pandas", "pytz", "torch", "faiss") if name in sys.modules], file=sys.stderr)
"""


def test_a_query_loads_neither_pandas_nor_models(filled: Path) -> None:
    arguments = ["sql", "FROM newest", "--format", "csv", "--store", str(filled)]
    run = subprocess.run([sys.executable, "-c", _LISTS_LOADED, *arguments], capture_output=True, text=True)
    assert run.stderr == "[]\n"


def test_a_table_shows_what_plays_tricks_on_a_terminal_as_escapes(filled: Path) -> None:
    text = printed(filled, "SELECT path FROM files WHERE video_id = 'dogs'")
    assert text.splitlines() == ["path", r'/a/two\nlines, "quoted", \x1b[31mred.mp4']


def test_a_table_abbreviates_long_lists_and_pictures_and_never_paths(filled: Path) -> None:
    text = printed(filled, "SELECT vector, range(5) AS short, frame_pts FROM clips WHERE start_s = 0 LIMIT 1")
    assert text.splitlines()[1] == "[1.0,0.0,0.0,0.0]  [0, 1, 2, … 5 in all]  [0, 1, 2, … 8 in all]"
    assert printed(filled, "SELECT image FROM thumbnails LIMIT 1").splitlines()[1] == "1024 bytes"
    assert printed(filled, "SELECT repeat('x', 4000) AS path").splitlines()[1] == "x" * 4000


def test_a_table_has_numbers_to_the_right_and_a_head_even_without_rows(filled: Path) -> None:
    query = "SELECT 'a' AS name, 1 AS n UNION ALL SELECT 'Müller 日本', 100 UNION ALL SELECT NULL, NULL ORDER BY n"
    lines = printed(filled, query).splitlines()
    assert lines == ["name            n", "a               1", "Müller 日本   100", "NULL         NULL"]
    assert printed(filled, "SELECT path, size FROM files WHERE false") == "path  size\n"


def test_json_is_one_object_a_line_and_gives_back_any_value(filled: Path) -> None:
    query = """SELECT path, width, vector, indexed_at, NULL AS nothing, 'nan'::FLOAT AS nan, {'a': [1.5, NULL]} AS deep,
        12345678901234567890::HUGEINT AS huge, has_audio FROM files JOIN videos USING (video_id)
        JOIN newest USING (video_id) JOIN clips USING (video_id, space) WHERE video_id = 'dogs' ORDER BY clip_id"""
    lines = printed(filled, query, "--format", "json").splitlines()
    assert len(lines) == 2
    first = json.loads(lines[0], parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert first == {
        "path": f"/a/{TRICKY}",
        "width": 640,
        "vector": [1.0, 0.0, 0.0, 0.0],
        "indexed_at": "2026-03-01 12:30:15.25+00",
        "nothing": None,
        "nan": None,
        "deep": {"a": [1.5, None]},
        "huge": 12345678901234567890,
        "has_audio": None,
    }


def test_csv_is_as_rfc_4180_has_it(vidx: Vidx, filled: Path) -> None:
    query = "SELECT path, '' AS empty, NULL AS nothing, vector, 1.5 AS n FROM files JOIN clips USING (video_id)"
    command = [Path(sys.executable).with_name("vidx"), "sql", f"{query} WHERE video_id = 'dogs'", "--store", filled]
    run = subprocess.run([*command, "--format", "csv"], capture_output=True)
    text = run.stdout.decode()
    assert text.splitlines(keepends=True)[0] == "path,empty,nothing,vector,n\r\n"
    assert text.endswith("\r\n")
    assert ',"",,' in text  # an empty text and a null differ
    _, first, _ = csv.reader(io.StringIO(text, newline=""))
    assert first == [f"/a/{TRICKY}", "", "", "[1.0,0.0,0.0,0.0]", "1.5"]


def test_parquet_keeps_the_types(filled: Path, tmp_path: Path) -> None:
    assert (
        printed(
            filled,
            "SELECT vector, indexed_at, clip_id FROM clips JOIN newest USING (video_id, space)",
            "-o",
            tmp_path / "a.parquet",
        )
        == ""
    )
    table = parquet.read_table(tmp_path / "a.parquet")
    assert [str(kind) for kind in table.schema.types] == ["list<element: float>", "timestamp[us, tz=UTC]", "int64"]
    assert set(table["indexed_at"].to_pylist()) == {INDEXED_AT}
    assert table.num_rows == 6


@pytest.mark.slow
def test_parquet_can_go_through_a_pipe_and_not_to_a_terminal(filled: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("vidx"), "sql", "FROM files", "--format", "parquet", "--store", filled]
    piped = subprocess.run(command, capture_output=True)
    assert parquet.read_table(io.BytesIO(piped.stdout)).num_rows == 3
    leader, follower = os.openpty()
    run = subprocess.run(command, stdout=follower, stderr=subprocess.PIPE, text=True)
    os.close(follower)
    os.close(leader)
    assert run.returncode == 2
    assert run.stderr == "Error: --format parquet is not for a terminal; name a file with -o FILE\n"


def test_a_type_that_parquet_does_not_know_is_one_line(vidx: Vidx, filled: Path, tmp_path: Path) -> None:
    run = vidx("sql", "SELECT INTERVAL 3 DAYS AS i", "--store", filled, "-o", tmp_path / "a.parquet")
    check_one_error(run, 2, "Parquet can't hold this", "cast the column")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("selec 1", ["syntax error", '"selec"', "views: files, videos, indexed, newest, clips, thumbnails, runs"]),
        ("SELECT * FROM moments", ["moments does not exist", "views: files, videos"]),
        ("SELECT nope FROM files", ['"nope" not found', "columns of files: root, path, path_bytes, size"]),
        (
            "SELECT duration FROM clips c JOIN videos v USING (video_id)",
            ["columns of clips: space, clip_id", "videos:"],
        ),
        ("SELECT 1 % 0", ["Division by zero", "views:"]),
        ("SELECT 1; SELECT 2", ["one SELECT statement"]),
        ("", ["one SELECT statement"]),
        ("DROP VIEW files", ["one SELECT statement"]),
        ("DELETE FROM files", ["one SELECT statement"]),
        ("SET threads = 1", ["one SELECT statement"]),
        ("COPY files TO 'files.csv'", ["one SELECT statement"]),
        ("SELECT * FROM read_csv('/etc/passwd')", ["Cannot access", "/etc/passwd", "views:"]),
        ("SELECT * FROM '/etc/passwd'", ["/etc/passwd does not exist"]),
        ("SELECT * FROM glob('/etc/*')", ["Cannot access"]),
        ("SELECT 'a'::INTEGER", ["Could not convert"]),
        ("SELECT nope(1)", ["nope does not exist"]),
        ("SELECT $1", ["the query is wrong"]),
        ("SELECT error('two' || chr(10) || 'lines')", ["the query is wrong: two"]),
        ("SELECT 'open", ["unterminated"]),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000, []),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_query_is_told_with_what_there_is(filled: Path, query: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        rows(filled, query)
    message = f"{caught.value}; {caught.value.hint}"
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.slow
@pytest.mark.parametrize("query", ["selec 1", "SELECT nope FROM files", "SELECT * FROM read_csv('/etc/passwd')", "; ;"])
def test_a_wrong_query_is_one_line_on_standard_error(vidx: Vidx, filled: Path, query: str) -> None:
    run = vidx("sql", query, "--store", filled)
    check_one_error(run, 2)
    assert run.stdout == ""


def test_a_variable_of_the_program_is_no_table(filled: Path) -> None:
    with pytest.raises(InputError, match="spaces does not exist"):
        rows(filled, "FROM spaces")


def test_bytes_that_are_no_text_are_one_line(vidx: Vidx, filled: Path) -> None:
    check_one_error(vidx("sql", os.fsdecode(b"SELECT '\xe9'"), "--store", filled), 2, "not readable text")


def test_a_query_of_nothing_indexed_says_what_to_run(vidx: Vidx, tmp_path: Path) -> None:
    check_one_error(vidx("sql", "FROM files", "--store", tmp_path / "no"), 1, "nothing is indexed yet", "vidx index")


def test_an_unknown_format_names_those_there_are(vidx: Vidx, filled: Path) -> None:
    run = vidx("sql", "FROM files", "--store", filled, "--format", "sheet")
    check_one_error(run, 2, "'sheet'", "csv, json, parquet, table")


def test_a_query_that_fails_half_way_leaves_no_file(vidx: Vidx, filled: Path, tmp_path: Path) -> None:
    query = "SELECT CASE WHEN i = 150000 THEN error('late') ELSE i END FROM range(200000) t(i)"
    (tmp_path / "old.csv").write_text("precious")
    run = vidx("sql", query, "--store", filled, "-o", tmp_path / "old.csv")
    check_one_error(run, 2, "the query is wrong: late")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.csv": "precious"}


def test_a_query_runs_where_nothing_can_be_written(vidx: Vidx, filled: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert asked(vidx, filled, "SELECT count(*) AS n FROM files", cwd=closed) == "n\n3\n"
    assert list(closed.iterdir()) == []


@pytest.mark.slow
def test_what_memory_can_not_hold_goes_to_the_temporary_folder_and_is_removed(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    connect = duckdb.connect
    monkeypatch.setattr(
        "duckdb.connect", lambda name, config: connect(name, config={**config, "memory_limit": "100MB"})
    )
    snapshot = Snapshot(Store(filled))
    reader = select(snapshot, "SELECT i, hash(i)::VARCHAR AS h FROM range(3000000) t(i) ORDER BY h", "text")
    assert reader.read_next_batch().num_rows > 0
    assert len(list(tmp_path.iterdir())) == 1
    del reader, snapshot
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_large_result_needs_no_memory_for_all_of_it(filled: Path) -> None:
    code = """
import sys
from pathlib import Path
from vidx.export import csv
from vidx.schema.snapshot import Snapshot
from vidx.schema.sql import select
from vidx.schema.store import Store
rows = select(Snapshot(Store(Path(sys.argv[1]))), "SELECT repeat('x', 1000) FROM range(500000)", "text")
csv.write(rows, open("/dev/null", "wb"))
status = Path('/proc/self/status').read_text()  # ru_maxrss is that of the parent, too
print(int(status.split('VmHWM:')[1].split()[0]) // 1024)
"""
    run = subprocess.run([sys.executable, "-c", code, filled], capture_output=True, text=True)
    assert int(run.stdout) < 400, run.stderr  # MB; the rows are 500


def test_nothing_is_drawn_into_the_output_of_a_slow_query(filled: Path) -> None:
    """DuckDB draws a progress bar where Python runs without a script, as in a shell."""
    code = """
import sys
from pathlib import Path
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
print(Snapshot(Store(Path(sys.argv[1]))).rows("SELECT current_setting('enable_progress_bar')"))
"""
    run = subprocess.run([sys.executable, "-c", code, filled], capture_output=True, text=True)
    assert run.stdout == "[(False,)]\n", run.stderr


@pytest.mark.slow
def test_ctrl_c_ends_a_query_that_would_run_for_hours(filled: Path) -> None:
    query = "SELECT count(*) FROM range(10000000) a, range(1000000) b WHERE hash(a.range + b.range) % 7 = 3"
    command = [Path(sys.executable).with_name("vidx"), "sql", query, "--store", filled]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.strip()) == (130, "Error: interrupted")
