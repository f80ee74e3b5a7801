"""A store that stays open: what it sees, what it reads again, and that nobody waits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from vidx.errors import InputError
from vidx.schema.live import Ranges
from vidx.schema.store import Store
from vidx.search import collection
from vidx.search.reader import Reader
from vidx.search.rebuild import rebuild
from vidx.tests.made_store import DIM, SPACE, Archive, unit

BENCHMARK = Path(__file__).parents[1] / "benchmarks/while_indexing.py"


@pytest.fixture
def archive(store: Store) -> Archive:
    made = Archive(store)
    for name in "abc":
        made.add(name, unit(np.random.default_rng(ord(name)).standard_normal((8, DIM))), [f"/{name}.mp4".encode()])
    return made


def all_ids(archive: Archive) -> list[int]:
    return sorted(clip_id for own in archive.ids.values() for clip_id in own)


def test_a_reader_sees_what_was_committed_when_it_was_last_refreshed(archive: Archive) -> None:
    reader, query = Reader(archive.store, SPACE), archive.vectors["a"][0]
    before = all_ids(archive)
    archive.add("d", query[None], [b"/d.mp4"])
    archive.forget("b", b"/b.mp4")
    assert sorted(reader.retrieve(query, 100)[1]) == before
    reader.refresh()
    scores, ids = reader.retrieve(query, 100)
    assert sorted(ids) == all_ids(archive)
    assert ids[:2].tolist() == [archive.ids["a"][0], archive.ids["d"][0]]
    assert (np.diff(scores) <= 0).all()


def test_only_what_is_new_is_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def noted(clips: object, snapshot: object, space: object, ranges: Ranges) -> None:
        read.extend(ranges.ids().tolist())
        original(clips, snapshot, space, ranges)

    original = collection.read_into
    monkeypatch.setattr(collection, "read_into", noted)
    reader = Reader(archive.store, SPACE)
    assert read == all_ids(archive)
    read.clear()
    archive.add("d", unit(np.ones((3, DIM))), [b"/d.mp4"])
    reader.refresh()
    assert read == archive.ids["d"]
    read.clear()
    rebuild(archive.store, SPACE)
    archive.add("e", unit(np.ones((2, DIM))), [b"/e.mp4"])
    reader.refresh()
    assert read == archive.ids["e"]
    assert sorted(reader.retrieve(unit(np.ones(DIM)), 100)[1]) == all_ids(archive)


def test_a_search_does_not_wait_for_a_refresh(archive: Archive) -> None:
    reader = Reader(archive.store, SPACE)
    with reader._refreshing:  # as if one were under way, for ever
        asking = Thread(target=reader.retrieve, args=(archive.vectors["a"][0],), daemon=True)
        asking.start()
        asking.join(30)
        assert not asking.is_alive()


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(DIM, np.float32),
        np.zeros(DIM, np.float32),
        np.full(DIM, np.nan, np.float32),
        np.eye(DIM, dtype=np.float32)[:1],
        np.eye(DIM + 1, dtype=np.float32)[0],
        np.eye(DIM, dtype=np.int64)[0],
        np.eye(DIM, dtype=complex)[0],
        [1.0],
    ],
)
def test_what_is_no_unit_vector_is_refused(archive: Archive, vector: object) -> None:
    with pytest.raises(InputError, match="a query is"):
        Reader(archive.store, SPACE).retrieve(vector)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, -1, 2.5, None])
def test_a_number_of_hits_that_makes_no_sense_is_refused(archive: Archive, k: object) -> None:
    with pytest.raises(InputError, match="k can't be"):
        Reader(archive.store, SPACE).retrieve(archive.vectors["a"][0], k)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_as_good(archive: Archive) -> None:
    scores, ids = Reader(archive.store, SPACE).retrieve(archive.vectors["a"][0].astype(np.float64), np.int64(2))
    assert (scores.dtype, ids.dtype, len(ids)) == (np.float32, np.int64, 2)


@pytest.mark.slow
def test_every_answer_during_an_index_run_is_that_of_some_committed_moment() -> None:
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), "--queries", "3000", "--every", "0.2", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["queries"] >= 3000
    assert result["wrong"] == 0
    assert result["errors"] == []
    assert result["videos_after"] - result["videos_before"] >= 5
