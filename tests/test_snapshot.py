"""What readers see: live clips only, one moment of the store, whatever a writer does meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.errors import StoreDamaged, VidxError
from vidx.schema import tables, writer
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, StoreWriter, writing

SPACE = Space("toy", {"video": "ab"}, Preprocess(8, 8), frames=1, pooling="mean", dim=4)
OTHER = Space("toy", {"video": "cd"}, Preprocess(8, 8), frames=1, pooling="mean", dim=4)
TABLE_WRITES = ("thumbnails", "clips", "videos", "indexed", "files")  # of one commit, in order


def attempt(
    first_clip_id: int, video_id: str, n_clips: int, *, state: str = "ok", space: str = SPACE.name, file: bool = True
) -> Commit:
    """The rows of one attempt at a content: all that a reader may need of it."""
    ids = range(first_clip_id, first_clip_id + n_clips)
    indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
    indexed |= {"video_id": video_id, "space": space, "state": state, "first_clip_id": first_clip_id}
    video = dict.fromkeys(tables.VIDEOS.names) | {"video_id": video_id}
    row = dict.fromkeys(tables.FILES.names)
    row |= {"path": f"/{video_id}", "path_bytes": f"/{video_id}".encode(), "video_id": video_id, "state": "present"}
    return Commit(
        thumbnails=[{"video_id": video_id, "frame_pts": clip_id, "image": b"jpeg"} for clip_id in ids],
        clips={space: [_clip(clip_id, video_id, number) for number, clip_id in enumerate(ids)]},
        videos=[video],
        indexed=[{**indexed, "n_clips": n_clips, "indexed_at": datetime.now(UTC)}],
        files=[row] if file else [],
    )


def together(commit: Commit, other: Commit) -> Commit:
    """Both, as one commit."""
    clips = {space: [*commit.clips[space], *other.clips[space]] for space in commit.clips}
    rest = {name: [*getattr(commit, name), *getattr(other, name)] for name in TABLE_WRITES if name != "clips"}
    return Commit(clips=clips, **rest)


def _clip(clip_id: int, video_id: str, number: int) -> dict[str, Any]:
    times = {"start_s": 10.0 * number, "end_s": 10.0 * number + 10, "frame_pts_s": [10.0 * number + 5]}
    vector = np.eye(4, dtype=np.float32)[number % 4]
    return {"clip_id": clip_id, "video_id": video_id, **times, "frame_pts": [clip_id], "vector": vector}


def add(opened: StoreWriter, video_id: str, n_clips: int, **options: Any) -> list[int]:
    """Commit an attempt; the ids of its clips."""
    first = opened.reserve_clip_ids(max(1, n_clips))
    opened.commit(attempt(first, video_id, n_clips, **options))
    return list(range(first, first + n_clips))


def live(snapshot: Snapshot, space: str = SPACE.name) -> dict[str, list[int]]:
    """Ids of the clips a search would see, by video."""
    rows = snapshot.rows(f"SELECT video_id, list_sort(list(clip_id)) FROM {snapshot.clips(space)} GROUP BY 1")
    return dict(rows)


@pytest.fixture
def opened(store: Store) -> Iterator[StoreWriter]:
    with writing(store) as opened:
        opened.add_space(SPACE)
        yield opened


def test_clips_of_every_indexed_video_are_seen(opened: StoreWriter) -> None:
    cats, dogs = add(opened, "cats", 3), add(opened, "dogs", 2)
    assert live(Snapshot(opened.store)) == {"cats": cats, "dogs": dogs}


def test_a_second_attempt_replaces_the_first(opened: StoreWriter) -> None:
    first = add(opened, "cats", 3)
    second = add(opened, "cats", 2)
    assert live(Snapshot(opened.store)) == {"cats": second}
    assert not set(first) & set(second)


def test_a_failed_second_attempt_takes_the_clips_of_the_first_away(opened: StoreWriter) -> None:
    add(opened, "cats", 3)
    dogs = add(opened, "dogs", 1)
    add(opened, "cats", 0, state="failed")
    assert live(Snapshot(opened.store)) == {"dogs": dogs}


def test_clips_that_no_indexed_row_claims_are_not_seen(opened: StoreWriter) -> None:
    dogs = add(opened, "dogs", 1)
    unfinished = attempt(opened.reserve_clip_ids(4), "cats", 4)
    unfinished.indexed = []
    opened.commit(unfinished)
    assert live(Snapshot(opened.store)) == {"dogs": dogs}


def test_clips_outside_the_range_of_the_indexed_row_are_not_seen(opened: StoreWriter) -> None:
    first = opened.reserve_clip_ids(5)
    commit = attempt(first, "cats", 5)
    commit.indexed[0]["n_clips"] = 3
    opened.commit(commit)
    assert live(Snapshot(opened.store)) == {"cats": [first, first + 1, first + 2]}


def test_clips_in_the_range_of_another_video_are_not_seen(opened: StoreWriter) -> None:
    cats = add(opened, "cats", 2)
    stray = attempt(cats[0], "stray", 2)
    stray.indexed = []
    opened.commit(stray)
    assert live(Snapshot(opened.store)) == {"cats": cats}


def test_a_video_without_any_file_is_retired(opened: StoreWriter) -> None:
    cats = add(opened, "cats", 2)
    add(opened, "gone", 2, file=False)
    assert live(Snapshot(opened.store)) == {"cats": cats}


def test_a_video_whose_only_path_got_new_content_is_retired(opened: StoreWriter) -> None:
    add(opened, "old", 2)
    first = opened.reserve_clip_ids(1)
    changed = attempt(first, "new", 1)
    changed.files[0] |= {"path": "/old", "path_bytes": b"/old"}
    opened.commit(changed)
    assert live(Snapshot(opened.store)) == {"new": [first]}


def test_two_spaces_do_not_mix(opened: StoreWriter) -> None:
    opened.add_space(OTHER)
    here = add(opened, "cats", 2)
    there = add(opened, "cats", 3, space=OTHER.name)
    only_there = add(opened, "dogs", 1, space=OTHER.name)
    snapshot = Snapshot(opened.store)
    assert live(snapshot) == {"cats": here}
    assert live(snapshot, OTHER.name) == {"cats": there, "dogs": only_there}


def test_a_space_that_nothing_was_committed_to_has_no_clips(opened: StoreWriter) -> None:
    opened.add_space(OTHER)
    add(opened, "cats", 2)
    assert live(Snapshot(opened.store), OTHER.name) == {}


def test_a_space_whose_clips_table_is_gone_is_damage_and_is_not_made_anew(opened: StoreWriter) -> None:
    add(opened, "cats", 2)
    shutil.rmtree(opened.store.path / "clips" / SPACE.name)
    with pytest.raises(StoreDamaged, match=SPACE.name):
        Snapshot(opened.store)
    with pytest.raises(StoreDamaged, match=SPACE.name):
        opened.add_space(SPACE)


@pytest.mark.slow
def test_a_snapshot_does_not_change_under_later_commits_and_compaction(opened: StoreWriter) -> None:
    cats = add(opened, "cats", 2)
    before = Snapshot(opened.store)
    versions = before.versions()
    add(opened, "cats", 3)
    for number in range(10):
        add(opened, f"later {number}", 1)
    opened.compact()
    assert live(before) == {"cats": cats}
    assert before.rows("SELECT video_id FROM files") == [("cats",)]
    assert before.versions() == versions
    assert len(live(Snapshot(opened.store))) == 11


@pytest.mark.slow
def test_compaction_does_not_change_what_is_live(opened: StoreWriter) -> None:
    for number in range(10):
        add(opened, f"v{number % 3}", 1 + number % 2)
    before = live(Snapshot(opened.store))
    opened.compact()
    assert live(Snapshot(opened.store)) == before


def check_consistent(snapshot: Snapshot) -> None:
    """Nothing that a later table claims is missing from an earlier one."""
    claimed = snapshot.rows("SELECT video_id, n_clips FROM newest WHERE video_id IN (SELECT video_id FROM files)")
    seen = live(snapshot)
    assert {video_id: len(ids) for video_id, ids in seen.items()} == {v: n for v, n in claimed if n}
    assert snapshot.rows("SELECT video_id FROM newest WHERE video_id NOT IN (SELECT video_id FROM videos)") == []
    assert snapshot.rows("SELECT video_id FROM files WHERE video_id NOT IN (SELECT video_id FROM indexed)") == []
    pictures = f"SELECT frame_pts[1] FROM {snapshot.clips(SPACE.name)} EXCEPT SELECT frame_pts FROM thumbnails"
    assert snapshot.rows(pictures) == []


class SteppedWriter(threading.Thread):
    """A real commit in a thread that waits for `step()` before each of its table writes."""

    def __init__(self, opened: StoreWriter, commit: Commit) -> None:
        super().__init__()
        self._opened, self._commit = opened, commit
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._opened.commit(self._commit)

    def write(self, real: Any, *arguments: Any, **options: Any) -> None:
        """Stands before a table write of the product."""
        self._go.acquire()
        real(*arguments, **options)
        self._done.release()

    def step(self) -> None:
        self._go.release()
        assert self._done.acquire(timeout=30)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=len(TABLE_WRITES), max_size=len(TABLE_WRITES)).map(sorted))
def test_a_snapshot_taken_between_any_table_writes_is_consistent(before_pin: list[int]) -> None:
    """`before_pin[n]`: the n-th table write happens before the reader pins that table, 6 is after the last."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        store = Store.create(Path(folder) / "store")
        with writing(store) as opened:
            opened.add_space(SPACE)
            old = add(opened, "cats", 2)
            new_first = opened.reserve_clip_ids(6)
            commit = together(attempt(new_first, "cats", 3), attempt(new_first + 3, "dogs", 3))
            stepped = SteppedWriter(opened, commit)
            for name in ("write_deltalake", "_upsert_files"):
                real = getattr(writer, name)
                patched.setattr(writer, name, lambda *a, _real=real, **o: stepped.write(_real, *a, **o))
            stepped.start()
            pinned: list[str] = []
            pin = Snapshot._pin

            def pin_after_writes(snapshot: Snapshot, name: str) -> None:
                for _ in range(before_pin.count(len(pinned)) if len(pinned) < 6 else 0):
                    stepped.step()
                pin(snapshot, name)
                pinned.append(name)

            patched.setattr(Snapshot, "_pin", pin_after_writes)
            during = Snapshot(store)
            patched.setattr(Snapshot, "_pin", pin)
            for _ in range(before_pin.count(6)):
                stepped.step()
            stepped.join(30)
            assert len(pinned) in (6, 12)  # twice if `indexed` was written meanwhile
            check_consistent(during)
            new = list(range(new_first, new_first + 3))
            assert live(during)["cats"] in (old, new)
            assert live(Snapshot(store)) == {"cats": new, "dogs": list(range(new_first + 3, new_first + 6))}


_DIE_BETWEEN_WRITES = """
import os, sys
from pathlib import Path
from vidx.schema import writer
from vidx.schema.store import Store

sys.path.insert(0, sys.argv[1])
from test_snapshot import attempt, together

left = int(sys.argv[3])
def count_down(real):
    def write(*arguments, **options):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        real(*arguments, **options)
    return write
writer.write_deltalake = count_down(writer.write_deltalake)
writer._upsert_files = count_down(writer._upsert_files)
with writer.writing(Store.open(Path(sys.argv[2]))) as opened:
    opened.commit(together(*(attempt(opened.reserve_clip_ids(3), name, 3) for name in ("cats", "dogs"))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(len(TABLE_WRITES) + 1))
def test_a_writer_that_dies_between_two_table_writes_leaves_a_consistent_store(store: Store, writes: int) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
        old = add(opened, "cats", 2)
    command = [sys.executable, "-c", _DIE_BETWEEN_WRITES, str(Path(__file__).parent), str(store.path), str(writes)]
    died = subprocess.run(command, capture_output=True, text=True)
    assert died.returncode == (9 if writes < len(TABLE_WRITES) else 0), died.stderr

    snapshot = Snapshot(store)
    check_consistent(snapshot)
    cats = live(snapshot)["cats"]
    assert (cats == old) == (writes < 4)  # the indexed row is the fourth
    assert ("dogs" in live(snapshot)) == (writes == 5)  # a new video is seen once its file is known

    with writing(store) as opened:  # the same work again, as the next run does it
        new = {name: add(opened, name, 3) for name in ("cats", "dogs")}
    assert min(new["cats"]) > max(cats)
    assert live(Snapshot(store)) == new
    check_consistent(Snapshot(store))


_WRITE_ON = """
import sys
from pathlib import Path
from vidx.schema.store import Store
from vidx.schema.writer import writing

sys.path.insert(0, sys.argv[1])
from test_snapshot import add

with writing(Store.open(Path(sys.argv[2]))) as opened:
    for number in range(24):
        add(opened, f"v{number % 7}", 1 + number % 3)
        if number % 12 == 11:
            opened.compact()
"""


@pytest.mark.slow
def test_every_snapshot_taken_while_another_process_writes_is_consistent(store: Store) -> None:
    with writing(store) as opened:
        opened.add_space(SPACE)
    command = [sys.executable, "-c", _WRITE_ON, str(Path(__file__).parent), str(store.path)]
    versions = set()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            snapshot = Snapshot(store)
            check_consistent(snapshot)
            versions.add(tuple(snapshot.versions().items()))
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()
    assert len(versions) > 1
    assert len(live(Snapshot(store))) == 7


@pytest.fixture
def filled(opened: StoreWriter) -> Store:
    add(opened, "cats", 2)
    (opened.store.path.parent / "secret.csv").write_text("word\nhidden\n")
    (opened.store.path.parent / "store-beside").mkdir()
    (opened.store.path.parent / "store-beside" / "secret.csv").write_text("word\nhidden\n")
    return opened.store


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('{parent}/secret.csv')",
        "SELECT * FROM read_csv('{store}/../secret.csv')",
        "SELECT * FROM read_csv('{store}-beside/secret.csv')",
        "SELECT * FROM read_blob('{parent}/secret.csv')",
        "SELECT * FROM '{parent}/secret.csv'",
        "SELECT * FROM glob('{parent}/*')",
        "ATTACH '{parent}/secret.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
    ],
)
def test_queries_of_a_snapshot_reach_no_file_outside_the_store(filled: Store, query: str) -> None:
    snapshot = Snapshot(filled)
    with pytest.raises((duckdb.Error, VidxError)):
        snapshot.rows(query.format(store=filled.path, parent=filled.path.parent))
    assert live(snapshot) != {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{parent}/written.csv'",
        "COPY (SELECT 1) TO '{store}/written.csv'",
        "COPY (SELECT 1) TO '{store}/store.json'",
        "ATTACH '{store}/written.db'",
        "EXPORT DATABASE '{store}/written'",
        "DELETE FROM files",
        "UPDATE indexed SET n_clips = 0",
        "INSERT INTO videos (video_id) VALUES ('x')",
    ],
)
def test_queries_of_a_snapshot_write_nothing(filled: Store, query: str) -> None:
    before = contents(filled.path.parent)
    snapshot = Snapshot(filled)
    with pytest.raises((duckdb.Error, VidxError)):
        snapshot.rows(query.format(store=filled.path, parent=filled.path.parent))
    assert contents(filled.path.parent) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_values_of_queries_are_parameters_and_not_sql(opened: StoreWriter) -> None:
    add(opened, "it's; DROP VIEW files", 1)
    snapshot = Snapshot(opened.store)
    rows = snapshot.rows("SELECT video_id FROM files WHERE video_id = $id", {"id": "it's; DROP VIEW files"})
    assert rows == [("it's; DROP VIEW files",)]


def test_tables_are_pinned_in_the_reverse_of_the_order_they_are_written_in(opened: StoreWriter) -> None:
    pinned = [name.split("/")[0] for name in Snapshot(opened.store).versions()]
    assert [name for name in pinned if name in TABLE_WRITES] == list(reversed(TABLE_WRITES))


def test_a_snapshot_that_compaction_overtakes_is_taken_anew(
    opened: StoreWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between pinning `indexed` and pinning clips, a run replans a video and deletes its old clips."""
    add(opened, "a", 3)
    add(opened, "b", 1)
    pin, overtaken = Snapshot._pin, []

    def overtaken_pin(self: Snapshot, name: str) -> None:
        if name.startswith("clips/") and not overtaken:
            overtaken.append(add(opened, "a", 2))
            opened.compact()
        pin(self, name)

    monkeypatch.setattr(Snapshot, "_pin", overtaken_pin)
    snapshot = Snapshot(opened.store)
    assert live(snapshot) == {"a": overtaken[0], "b": [3]}
