"""A small store with a history, and what every command says of it while all is well."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidx.tests.faults.archive import MakeVideo, tiled_video
from vidx.tests.faults.commands import index_command
from vidx.tests.faults.fork_server import ForkServer


@dataclass(frozen=True)
class Shelf:
    """A folder, a store of it, and what the commands say while all is well."""

    videos: Path
    store: Path
    answers: dict[str, Any]

    @property
    def readings(self) -> dict[str, Any]:
        """Those answers that take no writing."""
        return {name: said for name, said in self.answers.items() if name != "index"}


def commands(videos: Path, store: Path) -> dict[str, list[str]]:
    """Every command that opens a store."""
    return {
        "search": ["vidx", "search", "red", "--by", "clip", "--format", "json", "--store", str(store)],
        "status": ["vidx", "status", "--json", "--store", str(store)],
        "index": index_command(videos, store),
    }


def answer(command: str, printed: str) -> Any:
    """What a command said, without what differs from one time to the next."""
    last = json.loads(printed.splitlines()[-1])
    if command == "search":
        return [(hit["video_id"], hit["start_s"], hit["score"], hit["paths"]) for hit in last["hits"]]
    return {name: value for name, value in last.items() if name not in ("seconds", "last_run", "store")}


def make_shelf(make_video: MakeVideo, server: ForkServer, folder: Path) -> Shelf:
    """Three videos, indexed in three runs, so that every table has several commits and files."""
    videos, store = folder / "videos", folder / "store"
    videos.mkdir()
    for number in range(3):
        tiled_video(make_video, videos / f"v{number}.mp4", seed=number, n_clips=2)
        ended = server.run(index_command(videos, store))
        assert (ended.code, ended.errors) == (0, "")
    return Shelf(videos, store, answers(server, videos, store))


def answers(server: ForkServer, videos: Path, store: Path) -> dict[str, Any]:
    """What every command says of a store; all must succeed."""
    return {name: _said(server, name, command) for name, command in commands(videos, store).items()}


def readings(server: ForkServer, videos: Path, store: Path) -> dict[str, Any]:
    """The same of the commands that only read."""
    wanted = {name: command for name, command in commands(videos, store).items() if name != "index"}
    return {name: _said(server, name, command) for name, command in wanted.items()}


def _said(server: ForkServer, name: str, command: list[str]) -> Any:
    ended = server.run(command)
    assert (ended.code, ended.errors) == (0, ""), name
    return answer(name, ended.printed)
