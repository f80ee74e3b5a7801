"""The store on disk: made, opened, refused, its clip ids and its lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.errors import StoreDamaged, StoreError, StoreLocked, StoreMissing, StoreTooNew
from vidx.schema import tables, writer
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import FORMAT, Store, StoreFacts
from vidx.schema.unfinished import Unfinished, read_unfinished
from vidx.schema.writer import Commit, writing

SPACE = Space("toy", {"video": "ab"}, Preprocess(8, 8), frames=1, pooling="mean", dim=4)


def one_clip(clip_id: int, path: str, video_id: str = "v") -> Commit:
    """A commit of one indexed video of one clip, whose vector is the first unit vector."""
    indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
    indexed |= {"video_id": video_id, "space": SPACE.name, "state": "ok", "first_clip_id": clip_id, "n_clips": 1}
    clip = {
        "clip_id": clip_id,
        "video_id": video_id,
        "start_s": 0.0,
        "end_s": 10.0,
        "frame_pts": [5],
        "frame_pts_s": [5.0],
        "vector": np.eye(4, dtype=np.float32)[0],
    }
    file = dict.fromkeys(tables.FILES.names)
    file |= {"path": path, "path_bytes": path.encode(), "video_id": video_id, "state": "present"}
    return Commit(clips={SPACE.name: [clip]}, indexed=[{**indexed, "indexed_at": datetime.now(UTC)}], files=[file])


def test_a_new_store_is_empty_and_can_be_opened_again(tmp_path: Path) -> None:
    Store.create(tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert store.facts() == StoreFacts(format=FORMAT, default_space=None, next_clip_id=0)
    assert store.spaces() == []
    snapshot = Snapshot(store)
    counts = {name: snapshot.rows(f"SELECT count(*) FROM {name}") for name in tables.SINGLE}
    assert counts == {name: [(0,)] for name in tables.SINGLE}


def test_create_opens_a_store_that_is_there_and_keeps_what_it_holds(store: Store) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
        opened.reserve_clip_ids(3)
    facts = store.facts()
    again = Store.create(store.path)
    assert again.facts() == facts
    assert facts.default_space == SPACE.name


def test_a_relative_path_still_names_the_store_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.create(Path("store"))
    monkeypatch.chdir("/")
    assert store.facts() == StoreFacts()


@pytest.mark.slow
@pytest.mark.parametrize("tables_made", range(len(tables.SINGLE) + 1))
def test_create_completes_what_an_interrupted_create_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables_made: int
) -> None:
    made = []
    create_table = tables.create_table

    def create_some(path: Path, schema: Any) -> None:
        if len(made) == tables_made:
            raise KeyboardInterrupt
        made.append(path)
        create_table(path, schema)

    def write_no_facts(_store: Store, _facts: StoreFacts) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(tables, "create_table", create_some)
        interrupted.setattr(Store, "write_facts", write_no_facts)
        with pytest.raises(KeyboardInterrupt):
            Store.create(tmp_path / "store")
    assert len(made) == tables_made
    with pytest.raises(StoreMissing):
        Store.open(tmp_path / "store")
    (tmp_path / "store" / "store.json.new").write_text('{"form')  # a power cut while store.json was being written

    store = Store.create(tmp_path / "store")
    assert Snapshot(store).versions() == dict.fromkeys(tables.SINGLE, 0)
    with writing(store) as opened:
        opened.add_space(SPACE)
        opened.commit(one_clip(opened.reserve_clip_ids(1), "/a.mp4"))
    assert Snapshot(store).rows("SELECT video_id FROM files") == [("v",)]


def test_a_folder_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(StoreError, match=r"not empty \(it holds holiday\.mp4\)"):
        Store.create(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.mp4"]


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"precious")
    with pytest.raises(StoreError, match="can't make a store"):
        Store.create(tmp_path / "store")
    assert (tmp_path / "store").read_bytes() == b"precious"


def test_a_missing_store_is_told_apart_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="nothing is indexed yet") as caught:
        Store.open(tmp_path / "store")
    assert "vidx index" in caught.value.hint
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("fields", [{"format": FORMAT + 1}, {"format": 99, "new_field": [1, 2]}])
def test_a_store_of_a_later_format_is_refused_by_open_and_create(store: Store, fields: dict[str, Any]) -> None:
    (store.path / "store.json").write_text(json.dumps(fields))
    for get in (Store.open, Store.create):
        with pytest.raises(StoreTooNew, match=f"format {fields['format']}"):
            get(store.path)
    assert json.loads((store.path / "store.json").read_text()) == fields


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"format": "one"}', b'{"format": 1, "unknown": 2}', b"\xff\xfe\x00"],
)
def test_a_broken_store_json_is_damage(store: Store, content: bytes) -> None:
    (store.path / "store.json").write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"store\.json can't be read"):
        Store.open(store.path)


@pytest.mark.parametrize("name", tables.SINGLE)
def test_a_missing_table_is_damage_that_names_the_table(store: Store, name: str) -> None:
    (store.path / name).rename(store.path.parent / "lost")
    with pytest.raises(StoreDamaged, match=rf"table {name} of the store can.t be opened: it is missing"):
        Snapshot(store)


def test_a_table_with_a_broken_log_is_damage_that_names_the_table(store: Store) -> None:
    [log] = (store.path / "indexed" / "_delta_log").glob("*.json")
    log.write_bytes(b"{ not json")
    with pytest.raises(StoreDamaged, match="table indexed"):
        Snapshot(store)


def test_a_lost_parquet_file_is_damage(store: Store) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
        opened.commit(one_clip(opened.reserve_clip_ids(1), "/a.mp4"))
    [part] = (store.path / "indexed").glob("*.parquet")
    part.unlink()
    with pytest.raises(StoreDamaged):
        Snapshot(store).rows("SELECT * FROM newest")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["with space", "a#b", "it's", 'say "hi"', "Müller 日本 😀", "a;b&c=d", "a:b", "-v", "~", "a+b", "a{b,c}"],
)
def test_a_store_works_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    check_end_to_end(Store.create(tmp_path / name / "store"))


@pytest.mark.parametrize(
    "name",
    [
        "50% off",
        "100%20sure",
        "a*b",
        "what?",
        "[2020] films",
        "back\\slash",
        "new\nline",
        "tab\t",
        "escape\x1b(B",
        "caf\udce9",
    ],
)
def test_a_store_path_the_tables_cannot_live_in_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    """Delta reads % as an escape, DuckDB reads patterns: whatever works in full is welcome, all else is refused."""
    try:
        store = Store.create(tmp_path / name / "store")
    except StoreError:
        assert list(tmp_path.iterdir()) == []
    else:
        check_end_to_end(store)


def check_end_to_end(store: Store) -> None:
    """Two commits, compaction's table access and a read, and no file anywhere but below the store."""
    beside = {entry.name for entry in store.path.parent.iterdir()}
    with writing(store) as opened:
        opened.add_space(SPACE)
        for path in ("/a.mp4", "/b.mp4"):
            opened.commit(one_clip(opened.reserve_clip_ids(1), path))
        opened.compact()
    snapshot = Snapshot(Store.open(store.path))
    assert snapshot.rows(f"SELECT clip_id, vector[1] FROM {snapshot.clips(SPACE.name)}") == [(1, 1.0)]
    assert snapshot.rows("SELECT path FROM files ORDER BY path") == [("/a.mp4",), ("/b.mp4",)]
    assert {entry.name for entry in store.path.parent.iterdir()} == beside == {"store"}


@contextmanager
def bare_store() -> Iterator[Store]:
    """A store without tables: all that clip ids need."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.write_facts(StoreFacts())
        yield store


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.just("reopen"), st.integers(1, 30), st.sampled_from([9_999, 10_000, 10_001, 25_000]))))
def test_clip_ids_are_never_handed_out_twice_and_are_below_the_mark_on_disk(steps: list[int | str]) -> None:
    with bare_store() as store:
        opened = writer.StoreWriter(store)
        free = 0  # the first id that was not handed out yet
        for step in steps:
            if isinstance(step, str):
                opened = writer.StoreWriter(Store.open(store.path))
                continue
            first = opened.reserve_clip_ids(step)
            assert first >= free
            free = first + step
            assert store.facts().next_clip_id >= free


def test_making_a_space_known_keeps_the_mark_of_the_clip_ids(store: Store) -> None:
    with writing(store) as opened:
        first = opened.reserve_clip_ids(5)
        opened.add_space(SPACE)
    with writing(store) as opened:
        assert opened.reserve_clip_ids(1) >= first + 5
    assert store.facts().default_space == SPACE.name


def test_only_the_first_space_becomes_the_default(store: Store) -> None:
    second = Space("other", {}, Preprocess(8, 8), frames=1, pooling="mean", dim=4)
    with writing(store) as opened:
        opened.add_space(SPACE)
        opened.add_space(second)
        opened.add_space(SPACE)
    assert store.facts().default_space == SPACE.name
    assert store.spaces() == sorted([SPACE.name, second.name])
    assert store.space(second.name) == second


def test_a_file_seen_again_keeps_one_row(store: Store) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
        for path in ("/a.mp4", "/a.mp4", "/b.mp4"):
            opened.commit(one_clip(opened.reserve_clip_ids(1), path))
    assert Snapshot(store).rows("SELECT path FROM files ORDER BY path") == [("/a.mp4",), ("/b.mp4",)]


@pytest.mark.slow
def test_compaction_merges_small_files_and_changes_no_row(store: Store) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
        for number in range(12):
            opened.commit(one_clip(opened.reserve_clip_ids(1), f"/{number}.mp4", f"v{number}"))
        before = rows_of_all_tables(store)
        assert len(DeltaTable(store.path / "clips" / SPACE.name).file_uris()) == 12
        opened.compact()
    assert rows_of_all_tables(store) == before
    assert len(DeltaTable(store.path / "clips" / SPACE.name).file_uris()) == 1


def test_compaction_drops_what_no_longer_counts_and_what_can_be_resumed_stays(store: Store) -> None:
    """Clips 0 to 2 are replanned by 3 and 4; 5 and 6 are of a killed run, 7 to 10 of one to be resumed."""
    resumable = Unfinished("w", SPACE.name, "{}", "pyav", "exact", {}, "cpu", "float32", 7, 4, True)
    damaged = replace(resumable, video_id="x", first_clip_id=11, resumable=False)
    with writing(store) as opened:
        opened.add_space(SPACE)
        first = opened.reserve_clip_ids(12)
        pieces = [one_clip(first + number, "/v.mp4") for number in range(12)]
        for piece, video_id in zip(pieces, "vvvvvuuwwwwx", strict=True):
            (clip,) = piece.clips[SPACE.name]
            clip["video_id"] = video_id
            piece.thumbnails = [{"video_id": video_id, "frame_pts": clip["clip_id"], "image": b"jpeg"}]
            clip["frame_pts"] = [clip["clip_id"]]
            piece.files = piece.indexed = []
        attempts = [one_clip(first, "/v.mp4"), one_clip(first + 3, "/v.mp4")]
        for at, n_clips, part in ((0, 3, attempts[0]), (3, 2, attempts[1])):
            part.indexed[0]["n_clips"] = n_clips
            pieces[at].indexed, pieces[at].files = part.indexed, part.files
        pieces[7].unfinished, pieces[11].unfinished = [resumable], [damaged]
        for piece in pieces:
            opened.commit(piece)
        snapshot = Snapshot(store)
        live = snapshot.rows(f"SELECT clip_id FROM {snapshot.clips(SPACE.name)} ORDER BY 1")
        opened.compact()
    kept = Snapshot(store)
    assert kept.rows(f"SELECT clip_id FROM {kept.all_clips(SPACE.name)} ORDER BY 1") == [
        (3,),
        (4,),
        (7,),
        (8,),
        (9,),
        (10,),
    ]
    assert kept.rows("SELECT frame_pts FROM thumbnails ORDER BY 1") == [(3,), (4,), (7,), (8,), (9,), (10,)]
    assert kept.rows(f"SELECT clip_id FROM {kept.clips(SPACE.name)} ORDER BY 1") == live == [(3,), (4,)]
    assert read_unfinished(store.path) == [resumable]


@pytest.mark.slow
def test_a_reader_that_began_before_compaction_still_reads_its_snapshot(store: Store) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
        for _ in range(12):
            opened.commit(one_clip(opened.reserve_clip_ids(1), "/a.mp4"))
        early = Snapshot(store)
        opened.compact()
    assert early.rows(f"SELECT count(*) FROM {early.all_clips(SPACE.name)}") == [(12,)]
    assert early.rows(f"SELECT clip_id FROM {early.clips(SPACE.name)}") == [(11,)]


def rows_of_all_tables(store: Store) -> dict[str, list[Any]]:
    names = [*tables.SINGLE, f"clips/{SPACE.name}"]
    return {name: sorted(map(str, DeltaTable(store.path / name).to_pyarrow_table().to_pylist())) for name in names}


def test_a_full_disk_is_a_store_error_and_keeps_earlier_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_arguments: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    with writing(store) as opened:
        opened.add_space(SPACE)
        opened.commit(one_clip(opened.reserve_clip_ids(1), "/a.mp4"))
        with monkeypatch.context() as full:
            full.setattr(writer, "write_deltalake", no_space)
            with pytest.raises(StoreError, match="No space left on device"):
                opened.commit(one_clip(opened.reserve_clip_ids(1), "/b.mp4"))
    assert Snapshot(store).rows("SELECT path FROM files") == [("/a.mp4",)]


_HOLD = """
import sys
from pathlib import Path
from vidx.schema.store import Store
from vidx.schema.writer import writing
with writing(Store.open(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_writes_and_the_lock_dies_with_its_process(store: Store) -> None:
    command = [sys.executable, "-c", _HOLD, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked, match=rf"process {holder.pid} on .+, started \d{{4}}-"), writing(store):
            pass
        assert Snapshot(store).rows("SELECT * FROM files") == []  # readers need no lock
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with writing(store) as opened:
            assert opened.reserve_clip_ids(1) == 0


def test_a_second_writer_of_one_process_is_refused_too(store: Store) -> None:
    with writing(store):
        with pytest.raises(StoreLocked, match=f"process {os.getpid()} "), writing(Store.open(store.path)):
            pass
        with pytest.raises(StoreLocked), writing(store):  # the refused attempt did not free it
            pass


def test_the_lock_is_freed_when_the_writer_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), writing(store):
        _ = 1 / 0
    with writing(store) as opened:
        assert opened.store is store


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": 1}', '"text"'])
def test_a_garbled_lock_note_does_not_hide_that_the_store_is_locked(store: Store, content: str) -> None:
    with writing(store):
        (store.path / "lock.json").write_text(content)
        with pytest.raises(StoreLocked, match="another process"), writing(Store.open(store.path)):
            pass
