"""One store, and what the commands say of it; for tests that index, change the disk, and index again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidx.tests.faults.archive import MakeVideo, plain
from vidx.tests.faults.commands import Run, adds_up, index_command, parsed
from vidx.tests.faults.fork_server import ForkServer

COLOURS = {"red": (254, 0, 0), "green": (0, 255, 1), "blue": (0, 0, 254)}


def coloured_video(make_video: MakeVideo, path: Path, colour: str, n_clips: int = 1) -> Path:
    """A video that a search for its colour finds first, with a frame every five seconds."""
    times_ms = [*range(0, 10_000 * n_clips, 5000), 10_000 * n_clips - 100]
    return make_video(path, size=(64, 48), gop=2, pts=times_ms, draw=plain(COLOURS[colour]))


@dataclass(frozen=True)
class Place:
    """A store and a server that runs commands on it."""

    store: Path
    server: ForkServer

    def index(self, root: Path, *arguments: str) -> Run:
        """Index a folder. Must succeed and add up."""
        run = self.try_index(root, *arguments)
        assert run.code == 0, run.errors
        assert run.errors == ""
        assert adds_up(run.done)
        return run

    def try_index(self, root: Path, *arguments: str) -> Run:
        """Index a folder, whatever comes of it."""
        ended = self.server.run(index_command(root, self.store, *arguments))
        return parsed(ended.code, ended.printed, ended.errors)

    def search(self, text: str, k: int = 1000) -> list[dict[str, Any]]:
        """Hits, one a video, best first."""
        words = ["search", text, "--by", "video", "-k", str(k), "--format", "json", "--store", str(self.store)]
        ended = self.server.run(["vidx", *words])
        assert (ended.code, ended.errors) == (0, "")
        hits: list[dict[str, Any]] = json.loads(ended.printed)["hits"]
        return hits

    def first(self, text: str) -> dict[str, Any]:
        """The best hit."""
        return self.search(text)[0]

    def status(self, *arguments: str) -> dict[str, Any]:
        """`vidx status --json`."""
        ended = self.server.run(["vidx", "status", "--json", "--store", str(self.store), *arguments])
        assert (ended.code, ended.errors) == (0, "")
        facts: dict[str, Any] = json.loads(ended.printed)
        return facts


def counts(run: Run) -> dict[str, int]:
    """The account of a run without what is zero, `files` and the time."""
    return {name: n for name, n in run.done.items() if n and name not in ("event", "files", "seconds")}
