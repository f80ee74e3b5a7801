"""A set of tags is replaced as a whole or not at all, and its file is a plain Parquet file for any reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from vidx.errors import InputError, StoreDamaged, StoreError, StoreLocked
from vidx.schema import tables, tag_tables
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.tag_tables import METADATA_KEY, NUMBERED, files_of, read_calibration, tagging
from vidx.schema.writer import writing

SQL_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.int32(): "INTEGER"} | {
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
}


def row(label: str | None, number: int, tag_set: str = "mine") -> dict[str, Any]:
    """A row of TAGS that no two numbers share."""
    return {
        "video_id": f"video {number % 3}",
        "clip_id": number if number % 2 else None,
        "level": "clip" if number % 2 else "video",
        "path": f"/archive/été {number % 3}.mp4",
        "start_s": number / 7,
        "end_s": number / 7 + 10,
        "label": label,
        "score": np.float32(number / 1000),
        "probability": np.float32(1 / (1 + number)),
        "threshold": np.float32(0.5),
        "rank": None if label is None else 1 + number % 5,
        "encoder": "toy",
        "weights_digest": "ab",
        "prompts_digest": "cd",
        "tag_set": tag_set,
        "run_id": f"run of {label}",
    }


def rows(label: str | None, n: int, tag_set: str = "mine") -> list[dict[str, Any]]:
    return [row(label, number, tag_set) for number in range(n)]


def batches(*parts: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    """Each part a batch, with dictionaries of its own."""
    for part in parts:
        yield from tables.table(tables.TAGS, part).cast(NUMBERED).to_batches()


def put(store: Store, *parts: list[dict[str, Any]], tag_set: str = "mine", run_id: str = "r1") -> int:
    with tagging(store) as writer:
        return writer.replace(tag_set, run_id, batches(*parts), {"run_id": run_id, "labels": ["été"]})


def held(store: Store, tag_set: str = "mine") -> list[dict[str, Any]]:
    """All rows of a set as a reader that knows nothing of vidx finds them, in order."""
    return [found for path in files_of(store, tag_set) for found in pq.read_table(path).to_pylist()]


def labels(snapshot: Snapshot) -> list[tuple[str, int]]:
    return snapshot.rows("SELECT label, count(*) FROM tags GROUP BY label ORDER BY label")


def left(store: Store, tag_set: str = "mine") -> list[str]:
    return sorted(path.name for path in (store.path / "tags" / tag_set).glob("*.parquet"))


def test_rows_come_back_as_they_were_written_whatever_the_batches_and_row_groups(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_tables, "_ROW_GROUP", 10)
    parts = [rows(None, 3), rows("a", 9), [], rows("été", 25), rows("b", 1)]
    assert put(store, *parts) == 38
    expected = tables.table(tables.TAGS, [each for part in parts for each in part])
    [path] = files_of(store, "mine")
    assert pq.read_table(path).equals(expected)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert Snapshot(store).arrow("SELECT * FROM tags").num_rows == 38


def test_other_readers_find_the_columns_and_types_of_tags(store: Store) -> None:
    put(store, rows("a", 5), rows(None, 2))
    [path] = files_of(store, "mine")
    expected = tables.table(tables.TAGS, [*rows("a", 5), *rows(None, 2)])
    assert pq.read_schema(path).remove_metadata() == tables.TAGS
    described = duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == [(f.name, SQL_TYPES[f.type]) for f in tables.TAGS]
    assert duckdb.sql(f"SELECT * FROM '{path}'").fetchall() == [tuple(each.values()) for each in expected.to_pylist()]


@pytest.mark.slow
def test_pandas_and_polars_read_them_too(store: Store) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    put(store, rows("a", 5), rows(None, 2))
    [path] = files_of(store, "mine")
    expected = tables.table(tables.TAGS, [*rows("a", 5), *rows(None, 2)])
    frame = polars.read_parquet(path)
    assert frame.to_arrow().cast(tables.TAGS).equals(expected)
    assert frame.schema["label"] == polars.String
    assert frame.schema["probability"] == polars.Float32
    read = pandas.read_parquet(path)
    assert read.columns.tolist() == tables.TAGS.names
    assert read["label"].tolist()[:5] == ["a"] * 5
    assert read["label"].isna().sum() == 2
    assert (read["probability"].dtype, read["start_s"].dtype) == (np.float32, np.float64)
    assert not isinstance(read["label"].dtype, pandas.CategoricalDtype)


def test_the_file_says_how_it_was_made(store: Store) -> None:
    put(store, rows("a", 5))
    [path] = files_of(store, "mine")
    assert json.loads(pq.ParquetFile(path).metadata.metadata[METADATA_KEY]) == {"run_id": "r1", "labels": ["été"]}
    [(text,)] = duckdb.sql(f"SELECT decode(value) FROM parquet_kv_metadata('{path}') WHERE key = 'vidx'").fetchall()
    assert json.loads(text)["labels"] == ["été"]


def test_a_run_replaces_the_set_and_whoever_reads_meanwhile_keeps_the_old_one(store: Store) -> None:
    put(store, rows("old", 6))
    put(store, rows("other", 2, "apart"), tag_set="apart")
    before = Snapshot(store)
    assert put(store, rows("new", 4), run_id="r2") == 4
    assert labels(before) == [("old", 6), ("other", 2)]
    assert labels(Snapshot(store)) == [("new", 4), ("other", 2)]
    assert len(files_of(store, "mine")) == 1


def test_the_old_set_can_be_read_while_the_new_one_is_being_written(store: Store) -> None:
    put(store, rows("old", 6))
    seen = []

    def watched() -> Iterator[pa.RecordBatch]:
        for batch in batches(rows("new", 4), rows("new", 4)):
            seen.append(labels(Snapshot(store)))
            yield batch

    with tagging(store) as writer:
        writer.replace("mine", "r2", watched(), {})
    assert seen == [[("old", 6)]] * 2
    assert labels(Snapshot(store)) == [("new", 8)]


def test_a_set_may_be_empty(store: Store) -> None:
    assert put(store) == 0
    assert (held(store), labels(Snapshot(store))) == ([], [])
    [path] = files_of(store, "mine")
    assert pq.read_schema(path).remove_metadata() == tables.TAGS


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), InputError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("n_batches", [0, 3])
def test_a_run_that_fails_leaves_the_old_set_and_no_file(
    store: Store, error: BaseException, n_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_tables, "_ROW_GROUP", 10)
    put(store, rows("old", 6))
    files = left(store)

    def failing() -> Iterator[pa.RecordBatch]:
        yield from batches(*[rows("new", 12)] * n_batches)
        raise error

    expected = StoreError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as raised, tagging(store) as writer:
        writer.replace("mine", "r2", failing(), {})
    if expected is StoreError:
        assert "No space left" in str(raised.value)
    assert (left(store), labels(Snapshot(store))) == (files, [("old", 6)])
    assert put(store, rows("new", 4), run_id="r3") == 4


def test_a_first_run_that_fails_makes_no_set(store: Store) -> None:
    """Else the newest set, which `--where` asks, would be one without rows."""
    put(store, rows("old", 6), tag_set="good")

    def failing() -> Iterator[pa.RecordBatch]:
        yield from batches(rows("new", 4))
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError), tagging(store) as writer:
        writer.replace("mine", "r2", failing(), {})
    assert store.tag_sets() == ["good"]
    assert Snapshot(store).newest_tag_set() == "good"


@pytest.mark.parametrize("error", [DeltaError("the log is full"), OSError(28, "No space left on device")])
def test_a_commit_that_fails_leaves_no_file(store: Store, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, rows("old", 6))

    def refused(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(DeltaTable, "create_write_transaction", refused)
        with pytest.raises(StoreError, match=r"the log is full|No space"):
            put(store, rows("new", 4), run_id="r2")
    assert (left(store), labels(Snapshot(store))) == (["part-r1.parquet"], [("old", 6)])


def test_what_fails_after_the_commit_leaves_the_new_set(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, rows("old", 6))
    calls = []

    def refused(_: Path) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(tag_tables, "make_durable", refused)
    with pytest.raises(StoreError, match="Input/output"):
        put(store, rows("new", 4), run_id="r2")
    assert labels(Snapshot(store)) == [("new", 4)]


_WRITER = """
import sys, time
from pathlib import Path
from vidx.schema import tag_tables
from vidx.schema.store import Store
from vidx.tests.test_tag_tables import batches, rows
tag_tables._ROW_GROUP = 10
def slowly():
    for _ in range(5):
        yield from batches(rows("new", 12))
    print("half", flush=True)
    time.sleep(60)
with tag_tables.tagging(Store.open(Path(sys.argv[1]))) as writer:
    writer.replace(sys.argv[2], "killed", slowly(), {})
"""


def started(store: Store, tag_set: str) -> subprocess.Popen[bytes]:
    """A process that has written half of a set, and holds the lock."""
    command = [sys.executable, "-c", _WRITER, str(store.path), tag_set]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("tag_set", ["mine", "another"])
def test_a_run_killed_in_the_middle_leaves_the_old_set_and_the_next_run_works(
    store: Store, tag_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, rows("old", 6))
    process = started(store, tag_set)
    try:
        with pytest.raises(StoreLocked) as raised:
            put(store, rows("x", 1), tag_set=tag_set)
        assert raised.value.hint
        assert labels(Snapshot(store)) == [("old", 6)]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert labels(Snapshot(store)) == [("old", 6)]
    assert Snapshot(store).newest_tag_set() == "mine"
    killed = store.path / "tags" / tag_set / "part-killed.parquet"
    assert killed.stat().st_size > 4
    day_before = killed.stat().st_mtime - 90_000
    os.utime(killed, (day_before, day_before))
    put(store, rows("new", 4), tag_set=tag_set, run_id="r2")
    assert [each["label"] for each in held(store, tag_set)] == ["new"] * 4
    assert not killed.exists()


def test_a_set_that_was_not_yet_begun_when_its_run_was_killed_is_none(store: Store) -> None:
    put(store, rows("old", 6))
    (store.path / "tags" / "another" / "_delta_log").mkdir(parents=True)  # made before the first entry is
    assert store.tag_sets() == ["mine"]
    assert labels(Snapshot(store)) == [("old", 6)]
    put(store, rows("new", 2), tag_set="another")
    assert labels(Snapshot(store)) == [("new", 2), ("old", 6)]


def test_of_two_runs_at_once_one_is_refused(store: Store) -> None:
    with tagging(store), pytest.raises(StoreLocked, match="another `vidx tag`") as raised, tagging(store):
        pass
    assert raised.value.exit_code == 4
    put(store, rows("a", 1))


@pytest.mark.slow
def test_tags_are_written_while_an_index_run_holds_the_write_lock(store: Store) -> None:
    finished: dict[str, Any] = dict.fromkeys(tables.RUNS.names) | {"run_id": "r1", "command": "tag"}
    with writing(store) as index_run, tagging(store) as writer:
        assert writer.replace("mine", "r1", batches(rows("a", 3)), {}) == 3
        writer.record_run(finished)
        index_run.record_runs([finished | {"run_id": "r0", "command": "index"}])
        writer.record_run(finished | {"run_id": "r2"})
    snapshot = Snapshot(store)
    assert labels(snapshot) == [("a", 3)]
    runs = snapshot.rows("SELECT run_id, command FROM runs ORDER BY run_id")
    assert runs == [("r0", "index"), ("r1", "tag"), ("r2", "tag")]


@pytest.mark.slow
def test_files_of_sets_long_replaced_go_and_the_present_one_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_tables, "_RETENTION_HOURS", 0)
    for number in range(3):
        put(store, rows(f"label {number}", 4), run_id=f"r{number}")
        assert left(store) == [f"part-r{number}.parquet"]
        assert {each["label"] for each in held(store)} == {f"label {number}"}


def test_files_of_sets_just_replaced_stay_for_who_reads_them(store: Store) -> None:
    for number in range(3):
        put(store, rows("a", 4), run_id=f"r{number}")
    assert left(store) == ["part-r0.parquet", "part-r1.parquet", "part-r2.parquet"]


@pytest.mark.slow
def test_a_label_is_replaced_and_the_others_stay(store: Store) -> None:
    def relabel(label: str, n: int, run_id: str) -> None:
        with tagging(store) as writer:
            writer.relabel("searches", label, run_id, rows(label, n, "searches"), {"label": label})

    relabel("a", 3, "r1")
    relabel("b", 2, "r2")
    relabel("a", 1, "r3")
    assert labels(Snapshot(store)) == [("a", 1), ("b", 2)]
    assert sorted(each["run_id"] for each in held(store, "searches")) == ["run of a", "run of b", "run of b"]
    relabel("b", 0, "r4")
    relabel("a", 0, "r5")
    assert held(store, "searches") == []
    relabel("c", 2, "r6")
    assert labels(Snapshot(store)) == [("c", 2)]


def test_a_label_can_be_given_after_a_first_try_that_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tag_tables, "_write", full)
        with pytest.raises(StoreError), tagging(store) as writer:
            writer.relabel("searches", "a", "r1", rows("a", 1, "searches"), {})
    with tagging(store) as writer:
        writer.relabel("searches", "a", "r2", rows("a", 2, "searches"), {})
    assert labels(Snapshot(store)) == [("a", 2)]


def test_a_set_that_is_not_there_is_told_with_those_that_are(store: Store) -> None:
    with pytest.raises(InputError, match="no set of tags called 'x'") as raised:
        files_of(store, "x")
    assert raised.value.hint == "there are: none"
    put(store, rows("a", 1))
    with pytest.raises(InputError) as raised:
        files_of(store, "x")
    assert raised.value.hint == "there are: mine"


def test_what_was_learnt_is_kept_and_what_can_not_be_read_is_told(store: Store) -> None:
    assert read_calibration(store, "mine") is None
    with tagging(store) as writer:
        writer.write_calibration("mine", {"labels": ["é"], "thresholds": [None, 0.1]})
    assert read_calibration(store, "mine") == {"labels": ["é"], "thresholds": [None, 0.1]}
    assert read_calibration(store, "other") is None
    assert store.tag_sets() == []
    for text in ('{"labels": [', "[]", "3", "null", "\udcff"):
        (store.path / "tags" / "mine.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(StoreDamaged, match=r"mine\.json"):
            read_calibration(store, "mine")


def test_a_set_may_have_the_name_of_a_file_of_ours(store: Store) -> None:
    assert put(store, rows("a", 2, "lock"), tag_set="lock") == 2
    assert labels(Snapshot(store)) == [("a", 2)]
