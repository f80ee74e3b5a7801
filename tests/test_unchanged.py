"""Files that nothing is new about: told without delay or loss, and looked at once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.config import IndexOptions
from vidx.console import print_events
from vidx.indexer import vanished as vanished_module
from vidx.indexer.commit import FileDone
from vidx.indexer.run import Done, index_archive
from vidx.indexer.vanished import Unchanged, _not_in
from vidx.schema.store import Store
from vidx.tests.faults.commands import PLUGIN

STATES = st.lists(st.sampled_from(["unchanged", "unchanged", "unchanged", "indexed", "failed"]), max_size=30)


@given(STATES, st.booleans(), st.integers(1, 8))
def test_every_event_is_printed_in_order_even_when_the_run_is_interrupted(
    states: list[str], is_interrupted: bool, together: int
) -> None:
    def events() -> Iterator[FileDone | Done]:
        for number, state in enumerate(states):
            yield FileDone(f"/{number}.mp4", state)
        if is_interrupted:
            raise KeyboardInterrupt
        yield Done({"files": len(states)}, 1.0)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vidx.console._LINES", together)
        patched.setattr("sys.stdout", printed)
        if is_interrupted:
            with pytest.raises(KeyboardInterrupt):
                print_events(events(), Path("/"), IndexOptions())
        else:
            assert print_events(events(), Path("/"), IndexOptions()) == {"files": len(states)}
    told = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert [(event["path"], event["state"]) for event in told if event["event"] == "file"] == [
        (f"/{number}.mp4", state) for number, state in enumerate(states)
    ]
    assert (told[-1:] == [{"event": "done", "files": len(states), "seconds": 1.0}]) == (not is_interrupted)


class _Interrupted(io.StringIO):
    """Standard output that takes what it is given and is interrupted before it says so."""

    def write(self, text: str) -> int:
        written = super().write(text)
        if "/1.mp4" in text:
            raise KeyboardInterrupt
        return written


def test_an_interrupt_while_a_line_is_printed_leaves_it_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = _Interrupted()
    monkeypatch.setattr("sys.stdout", printed)
    files = [FileDone(f"/{number}.mp4", "indexed") for number in range(3)]
    with pytest.raises(KeyboardInterrupt):
        print_events(iter(files), Path("/"), IndexOptions())
    assert [json.loads(line)["path"] for line in printed.getvalue().splitlines()] == ["/0.mp4", "/1.mp4"]


def test_what_else_happened_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    monkeypatch.setattr("sys.stdout", printed)
    seen: list[int] = []

    def events() -> Iterator[FileDone | Done]:
        for state in ("unchanged", "indexed", "unchanged"):
            yield FileDone("/a.mp4", state)
            seen.append(printed.getvalue().count("\n"))
        yield Done({}, 1.0)

    print_events(events(), Path("/"), IndexOptions())
    assert seen == [0, 2, 2]


@given(st.sets(st.binary(min_size=1, max_size=6)), st.sets(st.binary(min_size=1, max_size=6)))
def test_rows_are_those_whose_path_was_not_met(met: set[bytes], others: set[bytes]) -> None:
    unchanged = Unchanged()
    for path in met:
        unchanged.add(path)
    rows = [("/", path) for path in sorted(met | others)]
    assert _not_in(unchanged.sorted(), rows) == [("/", path) for path in sorted(others - met)]


@pytest.mark.slow
def test_an_unchanged_file_is_looked_at_once_and_what_has_gone_is_found(
    make_video: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(3):
        make_video(folder / f"{number}.mp4", n_frames=10 + number)
    looked: list[bytes] = []
    look = vanished_module._is_there

    def note(path: bytes, recorded: tuple[int, ...]) -> bool:
        looked.append(os.path.basename(path))
        return look(path, recorded)

    monkeypatch.setattr(vanished_module, "_is_there", note)
    store = Store.create(tmp_path / "store")

    def states() -> dict[str, str]:
        looked.clear()
        events = index_archive(folder, store, IndexOptions(encoder=("tiny",), workers=1))
        return {os.path.basename(event.path): event.state for event in events if isinstance(event, FileDone)}

    states()
    assert states() == {"0.mp4": "unchanged", "1.mp4": "unchanged", "2.mp4": "unchanged"}
    assert looked == []
    (folder / "1.mp4").unlink()
    assert states() == {"0.mp4": "unchanged", "1.mp4": "missing", "2.mp4": "unchanged"}
    assert set(looked) == {b"1.mp4"}
