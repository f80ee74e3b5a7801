"""`vidx prune`: what it drops, what it keeps, what it asks, and what a kill at any of its writes leaves."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.indexer.prune import prunable, prune
from vidx.schema import compact, tables
from vidx.schema.lock import locked
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.tag_tables import METADATA_KEY, NUMBERED, files_of, tagging
from vidx.schema.unfinished import Unfinished, read_unfinished
from vidx.schema.writer import Commit, writing
from vidx.search.reader import Reader
from vidx.search.rebuild import rebuild
from vidx.tests.faults.archive import MakeVideo, without_index
from vidx.tests.faults.checks import contents, live_clips
from vidx.tests.faults.commands import VIDX, environment, one_line
from vidx.tests.faults.fork_server import Finished, ForkServer
from vidx.tests.faults.place import Place, coloured_video
from vidx.tests.faults.primitives import Fault
from vidx.tests.made_store import DIM, SPACE, Archive, unit


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def start(make_video: MakeVideo, server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `archive` and a `store` that was indexed and tagged.

    red.mp4, blue.mp4 and broken.mp4 have vanished since; blue.mp4 has a copy in `usb`, the rest of which is as it was.
    green.mp4 has got the content of the copy as well, which retired what it had.
    """
    folder = tmp_path_factory.mktemp("prune")
    for root in ("archive", "usb"):
        (folder / root).mkdir()
    for colour, n_clips in (("red", 3), ("blue", 2), ("green", 1)):
        coloured_video(make_video, folder / "archive" / f"{colour}.mp4", colour, n_clips)
    coloured_video(make_video, folder / "archive" / "white.mp4", "red", 4)
    without_index(folder / "archive" / "red.mp4", folder / "archive" / "broken.mp4")
    place = Place(folder / "store", server)
    place.index(folder / "archive")
    shutil.copyfile(folder / "archive" / "blue.mp4", folder / "usb" / "copy.mp4")
    (folder / "usb" / "notes.txt").write_text("shopping list")
    place.index(folder / "usb")
    for tag_set in ("older", "newer"):
        tag_all(Store.open(place.store), tag_set)
    (folder / "usb").rename(folder / "unplugged")
    for name in ("red", "blue", "broken"):
        (folder / "archive" / f"{name}.mp4").unlink()
    coloured_video(make_video, folder / "archive" / "green.mp4", "green", 2)
    place.index(folder / "archive")
    place.index(folder / "usb")
    (folder / "unplugged").rename(folder / "usb")
    return folder


def tag_all(store: Store, tag_set: str) -> None:
    """Give every content that has clips one tag."""
    found = Snapshot(store).rows("SELECT video_id FROM newest WHERE n_clips > 0 ORDER BY 1")
    tags = [dict.fromkeys(tables.TAGS.names) | {"video_id": v, "label": "a", "tag_set": tag_set} for (v,) in found]
    with tagging(store) as writer:
        batches = tables.table(tables.TAGS, tags).cast(NUMBERED).to_batches()
        writer.replace(tag_set, f"run of {tag_set}", batches, {"made": "by hand"})


@pytest.fixture
def place(start: Path, server: ForkServer, tmp_path: Path) -> Place:
    """A copy of the store; the archive lies where it was."""
    shutil.copytree(start / "store", tmp_path / "store")
    return Place(tmp_path / "store", server)


def run(place: Place, *arguments: str, fault: Fault | None = None) -> Finished:
    return place.server.run(["vidx", "prune", "--store", str(place.store), *arguments], fault=fault)


def pruned(place: Place, *arguments: str) -> dict[str, Any]:
    """What `vidx prune --json` says. Must succeed."""
    ended = run(place, "--json", *arguments)
    assert ended.code == 0, ended.errors
    facts: dict[str, Any] = json.loads(ended.printed)
    return facts


def rows(store: Path) -> dict[str, list[Any]]:
    """All rows of the tables by their keys, read without vidx's own SQL; of the tags only what was tagged."""
    keys = {"files": "path", "videos": "video_id", "indexed": "video_id", "thumbnails": "video_id"}
    keys |= {f"clips/{path.name}": "clip_id" for path in (store / "clips").iterdir()}
    keys |= {f"tags/{path.name}": "video_id" for path in (store / "tags").iterdir() if path.is_dir()}
    return {
        name: sorted(DeltaTable(store / name).to_pyarrow_table(columns=[key])[key].to_pylist())
        for name, key in keys.items()
    }


def video_ids(store: Path) -> dict[str, str]:
    """The content of each recorded file by its name."""
    files = DeltaTable(store / "files").to_pyarrow_table(columns=["path", "video_id"]).to_pylist()
    return {os.path.basename(row["path"]): row["video_id"] for row in files}


# What goes and what stays


@pytest.mark.slow
def test_all_rows_of_what_vanished_go_and_all_others_stay(place: Place, start: Path) -> None:
    before, known = rows(place.store), video_ids(place.store)
    kept = {known[name] for name in ("copy.mp4", "green.mp4", "white.mp4", "notes.txt")}
    clips = {key: vector for key, vector in live_clips(place.store).items() if key[0] in kept}
    facts = pruned(place, "--yes")
    assert (facts["files"], facts["videos"], facts["dropped"]) == (3, 3, True)  # red, broken, what green was
    after = rows(place.store)
    assert {os.path.basename(path) for path in after["files"]} == {"copy.mp4", "green.mp4", "white.mp4", "notes.txt"}
    for name in ("videos", "indexed", "thumbnails", "tags/older", "tags/newer"):
        assert after[name] == [video_id for video_id in before[name] if video_id in kept]
        assert len(after[name]) < len(before[name])
    assert live_clips(place.store) == clips
    [space] = [name for name in after if name.startswith("clips/")]
    assert len(after[space]) == len(clips)
    assert contents(place.store).violations == []
    status = place.status()
    assert (status["missing"], status["retired"], status["files"]) == (2, 0, 4)  # those of usb
    assert place.index(start / "usb").done["missing"] == 0
    assert place.first("blue")["paths"] == [str(start / "usb" / "copy.mp4")]
    assert place.index(start / "archive").done["clips"] == 0


@pytest.mark.slow
def test_the_set_of_tags_written_to_last_stays_that_and_says_how_it_was_made(place: Place) -> None:
    store = Store.open(place.store)
    [part] = files_of(store, "older")
    made = pq.read_metadata(part).metadata[METADATA_KEY]
    assert Snapshot(store).newest_tag_set() == "newer"
    pruned(place, "--yes")
    assert Snapshot(store).newest_tag_set() == "newer"
    [part] = files_of(store, "older")
    assert json.loads(pq.read_metadata(part).metadata[METADATA_KEY]) == json.loads(made)


@pytest.mark.slow
def test_a_folder_limits_which_files_go_and_nothing_else_is_told(place: Place, start: Path) -> None:
    facts = pruned(place, str(start / "archive" / "red.mp4" / ".."), "--dry-run")
    assert {root["root"] for root in facts["roots"]} == {str(start / "archive"), None}
    facts = pruned(place, str(start / "elsewhere"), "--dry-run")
    assert [(root["root"], root["files"], root["videos"]) for root in facts["roots"]] == [(None, 0, 1)]
    assert facts["dropped"] is False
    assert len(rows(place.store)["files"]) == 7


@pytest.mark.slow
def test_a_file_that_has_come_back_is_not_dropped(place: Place, start: Path) -> None:
    try:
        shutil.copyfile(start / "archive" / "white.mp4", start / "archive" / "red.mp4")
        assert pruned(place, "--yes")["files"] == 2
    finally:
        (start / "archive" / "red.mp4").unlink()
    assert "red.mp4" in video_ids(place.store)
    assert place.first("red")["score"] > 0.99


# Drives that may be unplugged


@pytest.mark.slow
@pytest.mark.parametrize("what_is_left", ["nothing", "an empty folder"])
def test_files_of_an_offline_root_go_only_if_they_are_named(place: Place, start: Path, what_is_left: str) -> None:
    usb, aside = start / "usb", start / "aside"
    usb.rename(aside)
    try:
        if what_is_left == "an empty folder":
            usb.mkdir()
        for where in ([], [str(usb)], [str(start)]):
            facts = pruned(place, "--dry-run", *where)
            assert facts["offline"] == [{"root": str(usb), "files": 2}]
            assert str(usb) not in {root["root"] for root in facts["roots"]}
        assert (run(place, "--offline-too", "--yes").code, len(rows(place.store)["files"])) == (2, 7)
        facts = pruned(place, str(usb), "--offline-too", "--yes")
        assert facts["offline"] == []
        assert {"root": str(usb), "files": 2, "videos": 1, "clips": 0, "hours": 0.0} in facts["roots"]
        assert not {"copy.mp4", "notes.txt"} & set(video_ids(place.store))
        assert "blue.mp4" in video_ids(place.store)
        assert place.first("blue")["score"] > 0.99
    finally:
        shutil.rmtree(usb, ignore_errors=True)
        aside.rename(usb)


@pytest.mark.slow
def test_a_file_that_was_on_another_device_is_kept(place: Place, start: Path) -> None:
    DeltaTable(place.store / "files").update({"device": "device + 1"}, predicate="path LIKE '%red.mp4'")
    facts = pruned(place, "--yes")
    assert facts["offline"] == [{"root": str(start / "archive"), "files": 1}]
    assert "red.mp4" in video_ids(place.store)
    assert place.first("red")["score"] > 0.99


# Asking


@pytest.mark.slow
def test_without_a_terminal_it_takes_yes_for_an_answer_only_when_given(place: Place) -> None:
    before = rows(place.store)
    one_line(run(place), 2, "--yes")
    assert rows(place.store) == before
    looked = run(place, "--dry-run")
    assert (looked.code, looked.errors.count("\n")) == (0, 0)
    assert rows(place.store) == before
    assert run(place, "--yes").code == 0
    again = run(place)
    assert (again.code, again.printed.splitlines()[0]) == (0, "nothing to drop")


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_on_a_terminal_it_says_what_would_go_and_asks(place: Place, start: Path, answer: str) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = [VIDX, "prune", "--store", str(place.store)]
    ended = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60, env=environment())
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 0, ended.stderr
    assert "Drop them? [y/N]" in ended.stderr
    told = ended.stdout.splitlines()
    assert told[0] == "3 files, 3 videos, 4 clips, 0.01 hours:"
    assert f"    {start / 'archive' / 'red.mp4'}" in told
    assert ("red.mp4" in video_ids(place.store)) is (answer != "y")


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["of the store", "of the tags"])
def test_while_another_process_writes_nothing_is_dropped(place: Place, lock: str) -> None:
    before, store = rows(place.store), Store.open(place.store)
    with locked(store) if lock == "of the store" else tagging(store):
        one_line(run(place, "--yes"), 4)
    assert rows(place.store) == before


# Killed


def state(store: Path) -> dict[str, list[Any]]:
    return {**rows(store), "unfinished": [attempt.key for attempt in read_unfinished(store)]}


@pytest.mark.slow
def test_a_kill_or_a_refusal_at_any_write_loses_nothing_and_the_next_run_finishes(
    place: Place, start: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(place.store, tmp_path / "whole")
    clips = live_clips(whole)
    ended = run(place, "--yes")
    assert {"execute", "make_durable", "delete", "replace"} <= set(ended.calls)
    wanted, kept = state(place.store), live_clips(place.store)
    faults = [Fault(n, kill="after") for n in range(1, len(ended.calls) + 1)]
    firsts = [ended.calls.index(call) + 1 for call in ("replace", "execute", "make_durable", "delete")]
    for fault in faults + [Fault(n, error=errno.ENOSPC) for n in firsts]:
        copy = Place(shutil.copytree(whole, tmp_path / "copy"), place.server)
        disturbed = run(copy, "--yes", fault=fault)
        if fault.kill:
            assert disturbed.code == -9
        else:
            one_line(disturbed, 1)
        store = Store.open(copy.store)
        left = contents(copy.store)
        assert left.violations == [], fault
        assert kept.items() <= left.clips.items() <= clips.items(), fault
        prune(store, prunable(store))
        assert state(copy.store) == wanted, fault
        assert live_clips(copy.store) == kept, fault
        shutil.rmtree(copy.store)


# In the store


def missing(archive: Archive, path: Path) -> None:
    """Record a path of tmp_path as missing."""
    row = {"root": str(path.parent), "device": path.parent.stat().st_dev, "state": "missing"}
    table = DeltaTable(archive.store.path / "files")
    named = {name: f"'{value}'" if isinstance(value, str) else str(value) for name, value in row.items()}
    table.update(named, predicate=f"path = '{path}'")


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Archive:
    """Three videos of 40 clips in an indexed store, of which `gone` is missing."""
    made, rng = Archive(store), np.random.default_rng(3)
    (tmp_path / "here").write_text("so that the root is not empty")
    for name in ("gone", "kept", "also kept"):
        made.add(name, unit(rng.standard_normal((40, DIM))), [os.fsencode(tmp_path / name)])
    missing(made, tmp_path / "gone")
    return made


@pytest.mark.parametrize("indexed", [False, True])
def test_dropped_clips_are_no_hits_and_an_open_reader_goes_on(archive: Archive, indexed: bool) -> None:
    if indexed:
        rebuild(archive.store, SPACE)
    reader, snapshot = Reader(archive.store, SPACE), Snapshot(archive.store)
    query, n_before = archive.vectors["gone"][0], 120
    assert reader.retrieve(query, 1)[1].tolist() == archive.ids["gone"][:1]
    prune(archive.store, prunable(archive.store))
    assert len(reader.retrieve(query, 1000)[1]) == n_before  # as when it was opened
    assert snapshot.rows(f"SELECT count(vector) FROM {snapshot.clips(SPACE.name)}") == [(n_before,)]
    gone = set(archive.ids["gone"])
    reader.refresh()
    assert len(reader.retrieve(query, 1000)[1]) == 80
    assert not gone & set(reader.retrieve(query, 1000)[1].tolist())
    assert not gone & {clip for hit in archive.search(query, 1000, "clip") for clip in hit.clip_ids}
    rebuild(archive.store, SPACE)
    reader.refresh()
    assert not gone & set(reader.retrieve(query, 1000)[1].tolist())


def test_the_space_comes_back_when_no_snapshot_can_need_it(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def parquet() -> int:
        return sum(path.stat().st_size for path in (archive.store.path / "clips").rglob("part-*.parquet"))

    before = parquet()
    prune(archive.store, prunable(archive.store))
    assert parquet() >= before  # readers may have it open
    monkeypatch.setattr(compact, "_RETENTION_HOURS", 0)
    with writing(archive.store) as writer:
        writer.compact()
    assert parquet() < 0.8 * before
    with writing(archive.store) as writer:
        version = DeltaTable(archive.store.path / "clips" / SPACE.name).version()
        writer.compact()
        assert DeltaTable(archive.store.path / "clips" / SPACE.name).version() == version  # there is nothing to do


def test_what_a_killed_run_had_begun_of_a_content_goes_with_it(archive: Archive, tmp_path: Path) -> None:
    first = 10**6
    clip = DeltaTable(archive.store.path / "clips" / SPACE.name).to_pyarrow_table().to_pylist()[0]
    clip |= {"clip_id": first, "video_id": "gone", "vector": np.array(clip["vector"], np.float32)}
    attempt = Unfinished("gone", SPACE.name, "{}", "pyav", "exact", {}, "cpu", "float32", first, 9, resumable=True)
    with writing(archive.store) as writer:
        writer.commit(Commit(unfinished=[attempt], clips={SPACE.name: [clip]}))
        writer.compact()
    assert first in rows(archive.store.path)[f"clips/{SPACE.name}"]
    prune(archive.store, prunable(archive.store))
    assert first not in rows(archive.store.path)[f"clips/{SPACE.name}"]
    assert read_unfinished(archive.store.path) == []


def test_a_file_that_comes_back_while_the_user_thinks_is_kept(archive: Archive, tmp_path: Path) -> None:
    found = prunable(archive.store)
    assert found.video_ids == ["gone"]
    (tmp_path / "gone").write_text("here I am")
    missing(archive, tmp_path / "kept")  # and what has vanished since was not asked about
    assert not prune(archive.store, found)
    assert set(rows(archive.store.path)["indexed"]) == {"gone", "kept", "also kept"}


def test_a_set_of_tags_may_become_empty(archive: Archive) -> None:
    tag = dict.fromkeys(tables.TAGS.names) | {"video_id": "gone", "label": "a boat"}
    with tagging(archive.store) as tags:
        tags.replace("mine", "r1", tables.table(tables.TAGS, [tag]).cast(NUMBERED).to_batches(), {"how": "été"})
    prune(archive.store, prunable(archive.store))
    assert Snapshot(archive.store).rows("SELECT count(*) FROM tags") == [(0,)]
    [part] = files_of(archive.store, "mine")
    assert json.loads(pq.read_metadata(part).metadata[METADATA_KEY]) == {"how": "été"}


def test_a_root_whose_name_is_not_utf8_is_looked_for_by_its_bytes(store: Store, tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(root)
    (tmp_path / os.fsdecode(root) / "here").write_text("")
    made = Archive(store)
    made.add("gone", unit(np.ones((1, DIM))), [root + b"/a.mp4"])
    files = DeltaTable(store.path / "files").to_pyarrow_table().to_pylist()
    row = {"root": root.decode("utf-8", "backslashreplace"), "device": os.stat(root).st_dev, "state": "missing"}
    write_deltalake(store.path / "files", tables.table(tables.FILES, [files[0] | row]), mode="overwrite")
    assert prunable(store).paths == [root + b"/a.mp4"]
    os.unlink(root + b"/here")
    assert prunable(store).offline == {row["root"]: 1}


@pytest.mark.slow
@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["present", "missing", "back"])), max_size=8))
def test_a_content_stays_as_long_as_a_path_that_stays_leads_to_it(
    tmp_path_factory: pytest.TempPathFactory, paths: list[tuple[int, str]]
) -> None:
    """`paths`: the content of each, and whether it is present, missing, or missing and there again."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "here").write_text("")
    store = Store.create(folder / "store")
    common = {"root": str(folder), "device": folder.stat().st_dev, "size": 1, "mtime_ns": 1, "reason": None}
    files, first = [], 100
    for number, (content, how) in enumerate(paths):
        path = folder / f"{number}.mp4"
        if how == "back":
            path.write_text("")
        keys = {"path": str(path), "path_bytes": os.fsencode(path), "video_id": f"v{content}"}
        files.append(common | keys | {"state": "present" if how == "present" else "missing"})
    facts = [dict.fromkeys(tables.VIDEOS.names) | {"video_id": f"v{n}", "duration_s": 36.0} for n in range(5)]
    claims = [
        dict.fromkeys(tables.INDEXED.names)
        | {"video_id": f"v{n}", "space": "s", "state": "failed", "first_clip_id": first + n, "n_clips": 0}
        for n in range(5)
    ]
    with writing(store) as writer:
        writer.commit(Commit(videos=facts, indexed=claims, files=files))
    staying = [(f"v{content}", how) for content, how in paths if how != "missing"]
    found = prune(store, prunable(store))
    assert len(found.paths) == len(paths) - len(staying)
    assert found.total().videos == 5 - len({video_id for video_id, _ in staying})
    assert found.total().hours == pytest.approx(found.total().videos / 100)
    after = rows(store.path)
    assert after["files"] == sorted(row["path"] for row, (_, how) in zip(files, paths, strict=True) if how != "missing")
    assert after["videos"] == after["indexed"] == sorted({video_id for video_id, _ in staying})
    shutil.rmtree(folder)
