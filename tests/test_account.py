"""What the account of a run, its exit code and `vidx status` say of an archive in which not all is well."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.archive import MakeVideo, cut_short, tiled_video, without_index
from vidx.tests.faults.commands import one_line
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import Place, coloured_video, counts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture
def place(server: ForkServer, tmp_path: Path) -> Place:
    return Place(tmp_path / "store", server)


@pytest.fixture
def root(make_video: MakeVideo, tmp_path: Path) -> Path:
    """An archive with one red video."""
    (tmp_path / "archive").mkdir()
    coloured_video(make_video, tmp_path / "archive" / "red.mp4", "red")
    return tmp_path / "archive"


@pytest.fixture
def mixed(root: Path, make_video: MakeVideo) -> Path:
    """One good video, a copy of it, one cut, one broken, and what is no video."""
    shutil.copyfile(root / "red.mp4", root / "z.mp4")
    cut_short(tiled_video(make_video, root / "cut.mkv", seed=1, n_clips=3), n_packets=5)
    without_index(root / "red.mp4", root / "broken.mp4")
    (root / "notes.txt").write_text("shopping list")
    (root / ".hidden").write_text("")
    return root


def test_an_account_has_every_file_once_in_every_run(place: Place, mixed: Path) -> None:
    bad = {"failed": 1, "partial": 1, "not_video": 1, "skipped": 1}
    assert counts(place.index(mixed)) == {"indexed": 1, "linked": 1, **bad, "clips": 3}
    os.utime(mixed / "cut.mkv")
    os.utime(mixed / "broken.mp4")
    os.utime(mixed / "notes.txt")
    for _ in range(2):
        run = place.index(mixed)
        assert (counts(run), run.done["files"]) == ({"unchanged": 2, **bad}, 5)


def test_strict_is_exit_code_3_where_a_file_failed_or_is_partial(place: Place, mixed: Path) -> None:
    for spoilt in ({"failed", "partial"}, {"partial"}, {"failed"}):
        for name, state in (("broken.mp4", "failed"), ("cut.mkv", "partial")):
            if state not in spoilt:
                (mixed / name).rename(mixed.parent / name)
        run = place.try_index(mixed, "--strict")
        assert (run.code, run.errors) == (3, ""), spoilt
        assert run.done["failed"] + run.done["partial"] == len(spoilt)
        for name in ("broken.mp4", "cut.mkv"):
            if (mixed.parent / name).exists():
                (mixed.parent / name).rename(mixed / name)


def test_strict_is_exit_code_0_where_all_is_well(place: Place, root: Path) -> None:
    (root / "notes.txt").write_text("shopping list")
    assert place.index(root, "--strict").code == 0
    (root / "red.mp4").rename(root.parent / "aside")
    assert counts(place.index(root, "--strict")) == {"not_video": 1, "missing": 1}


def test_failed_files_are_tried_again_when_asked_for(place: Place, mixed: Path, tmp_path: Path) -> None:
    place.index(mixed)
    before = len(attempts(place))
    assert counts(place.index(mixed))["failed"] == 1
    assert len(attempts(place)) == before
    assert counts(place.index(mixed, "--retry-failed"))["failed"] == 1
    assert len(attempts(place)) == before + 1
    assert attempts(place)[-1] == "failed"


def attempts(place: Place) -> list[str]:
    """States of all rows of `indexed`, in order."""
    rows = Snapshot(Store.open(place.store)).rows("SELECT state FROM indexed ORDER BY first_clip_id")
    return [state for (state,) in rows]


def test_status_counts_paths_by_outcome_and_lists_the_troubles(place: Place, mixed: Path) -> None:
    place.index(mixed)
    facts = place.status()
    expected = {"files": 5, "ok": 2, "partial": 1, "failed": 1, "not_video": 1, "missing": 0, "retired": 0}
    assert {name: facts[name] for name in expected} == expected
    troubles = place.status("--failed")["failed"]
    assert [(Path(one["path"]).name, one["state"]) for one in troubles] == [
        ("broken.mp4", "failed"),
        ("cut.mkv", "partial"),
    ]
    assert [one["first_bad_s"] for one in troubles] == [0.0, pytest.approx(25.0, abs=5.0)]
    assert all(one["reason"] for one in troubles)
    printed = place.server.run(["vidx", "status", "--failed", "--store", str(place.store)]).printed
    assert [name in line for name, line in zip(("broken.mp4", "cut.mkv"), printed.splitlines(), strict=True)] == [
        True
    ] * 2


def test_status_counts_what_is_missing_and_what_is_retired(place: Place, mixed: Path, make_video: MakeVideo) -> None:
    place.index(mixed)
    (mixed / "z.mp4").unlink()
    place.index(mixed)  # forgets it: what it was is in red.mp4 still
    (mixed / "cut.mkv").unlink()
    coloured_video(make_video, mixed / "red.mp4", "blue")
    place.index(mixed)
    facts = place.status()
    expected = {"files": 4, "ok": 1, "partial": 1, "failed": 1, "not_video": 1, "missing": 1, "retired": 1, "videos": 2}
    assert {name: facts[name] for name in expected} == expected
    assert sum(facts["clips"].values()) == 1 + 2


def test_status_of_no_store_is_one_line(place: Place) -> None:
    for arguments in ([], ["--failed"], ["--json"]):
        one_line(place.server.run(["vidx", "status", *arguments, "--store", str(place.store)]), 1, "nothing is indexed")


def test_status_in_json_is_one_line(place: Place, mixed: Path) -> None:
    place.index(mixed)
    for arguments in ([], ["--failed"]):
        printed = place.server.run(["vidx", "status", "--json", *arguments, "--store", str(place.store)]).printed
        assert printed.count("\n") == 1
        assert isinstance(json.loads(printed), dict)
