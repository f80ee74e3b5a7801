"""A process that reads stores without end while others write to them, and notes whatever should not be.

Started as `python -m vidx.tests.faults.reader FOLDER`. FOLDER holds stores, and in files called `watched.0`,
`watched.1` and so on the names of those to read now. It ends with its standard input and prints one JSON object:
{"snapshots": how many it looked at, "searches": ..., "wrong": [what it saw]}.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import SearchOptions
from vidx.errors import StoreMissing
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.run import search_vectors
from vidx.tests.faults.checks import contents

_PAUSE_S = 0.5


class Reader:
    """The test's side: a reader of the stores below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vidx.tests.faults.reader", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def watch(self, lane: int, store: str) -> None:
        """Read this store from now on, and no longer the one before it in the same lane."""
        aside = self._folder / f"new.{lane}"
        aside.write_text(store)
        aside.replace(self._folder / f"watched.{lane}")

    def report(self) -> dict[str, Any]:
        """End the reader and return what it saw."""
        printed, _ = self._process.communicate(timeout=60)
        report: dict[str, Any] = json.loads(printed)
        return report


class _Watch:
    """What has been seen of one store so far."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._sizes: dict[str, int] = {}

    def look(self, seen: dict[str, Any]) -> None:
        """Take one snapshot and check it, and search it."""
        try:
            store = Store.open(self._store)
            snapshot = Snapshot(store)
        except StoreMissing:
            return
        held = contents(snapshot)
        now = held.sizes
        wrong = held.violations
        wrong += [f"{name} fell from {then} to {now[name]}" for name, then in self._sizes.items() if now[name] < then]
        seen["snapshots"] += 1
        seen["wrong"] += [f"{self._store.name}: {what}" for what in wrong]
        self._sizes = now
        if store.facts().default_space and now["clips"]:
            self._search(store, snapshot, seen)

    def _search(self, store: Store, snapshot: Snapshot, seen: dict[str, Any]) -> None:
        space = store.space(str(store.facts().default_space))
        query = np.full(space.dim, 1 / np.sqrt(space.dim), np.float32)
        ranked, _ = search_vectors(snapshot, space, [query], SearchOptions(k=10_000, by="clip"))
        hits = [hit for hit, _ in ranked]
        seen["searches"] += 1
        found = [clip_id for hit in hits for clip_id in hit.clip_ids]
        if len(set(found)) != len(found) or len(found) < self._sizes["clips"]:
            seen["wrong"].append(f"{self._store.name}: a search found {len(found)} of {self._sizes['clips']} clips")
        if lost := [hit.video_id for hit in hits if not hit.paths]:
            seen["wrong"].append(f"{self._store.name}: hits without a path: {lost[:3]}")


def _read(folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {"snapshots": 0, "searches": 0, "wrong": []}
    watches: dict[str, _Watch] = {}
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        for name in [file.read_text() for file in folder.glob("watched.*")]:
            try:
                watches.setdefault(name, _Watch(folder / name)).look(seen)
            except Exception as error:  # whatever a reader meets is what this process is there to tell
                seen["wrong"].append(f"{name}: {type(error).__name__}: {error}")
    return seen


if __name__ == "__main__":
    print(json.dumps(_read(Path(sys.argv[1]))))
