"""Random changes to two folders, each followed by a run over one of them, against a model of what should be recorded.

VIDX_TEST_SEED is the seed, 0 if it is not set.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidx.tests.faults.archive import MakeVideo
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import COLOURS, Place, coloured_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


SEED = int(os.environ.get("VIDX_TEST_SEED", "0"))
STEPS = 25


class Model:
    """What should be recorded: the content of each path. A content is known for good once a run has met it."""

    def __init__(self) -> None:
        self.rows: dict[Path, bytes] = {}
        self.known: set[bytes] = set()

    def index(self, root: Path) -> int:
        """A run over a folder; returns how many contents it has to decode."""
        found = {path: path.read_bytes() for path in root.rglob("*.mp4")} if root.exists() else {}
        new = set(found.values()) - self.known
        self.known |= new
        self.rows |= found
        if found:
            gone = [path for path in self.rows if root in path.parents and not path.exists()]
            present = {content for path, content in self.rows.items() if path.exists()}
            for path in gone:
                if self.rows[path] in present:
                    del self.rows[path]
        return len(new)

    def hits(self) -> set[tuple[tuple[str, ...], bool]]:
        """Paths of each content that a search finds, and whether any is there."""
        contents = set(self.rows.values())
        listed = [sorted(path for path, content in self.rows.items() if content == one) for one in contents]
        return {(tuple(map(str, paths)), any(path.exists() for path in paths)) for paths in listed}


def change_something(dice: random.Random, roots: list[Path], spare: list[bytes]) -> str:
    """One change to the disk, as a user makes them; returns what it was."""
    there = sorted(path for root in roots for path in root.rglob("*.mp4"))
    folder, name = dice.choice(roots), f"{dice.choice('abcdef')}.mp4"
    kind = dice.choice(["add", "add", "copy", "move", "move", "delete", "touch", "replace", "unplug", "plug"])
    aside = folder.with_name(f"{folder.name} unplugged")
    if kind == "unplug" and folder.exists():
        folder.rename(aside)
    elif kind == "plug" and aside.exists() and not folder.exists():
        aside.rename(folder)
    elif kind == "add" and folder.exists():
        (folder / name).write_bytes(dice.choice(spare))
    elif there and kind in ("copy", "move", "delete", "touch", "replace"):
        path = dice.choice(there)
        match kind:
            case "copy" if folder.exists() and path != folder / name:
                shutil.copyfile(path, folder / name)
            case "move" if folder.exists():
                path.replace(folder / name)
            case "delete":
                path.unlink()
            case "touch":
                os.utime(path, ns=(dice.randrange(2**60),) * 2)
            case "replace":
                path.write_bytes(dice.choice(spare))
    return f"{kind} {folder.name} {name}"


def test_after_any_changes_the_store_knows_each_content_by_the_paths_it_has(
    server: ForkServer, make_video: MakeVideo, tmp_path: Path
) -> None:
    dice, model, place = random.Random(SEED), Model(), Place(tmp_path / "store", server)
    spare = [
        coloured_video(make_video, tmp_path / "spare.mp4", colour, n_clips=n).read_bytes()
        for colour in COLOURS
        for n in (1, 2)
    ]
    (tmp_path / "spare.mp4").unlink()
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
        (root / "a.mp4").write_bytes(spare[0])
    story = [f"seed {SEED}"]
    for _ in range(STEPS):
        story += [change_something(dice, roots, spare) for _ in range(dice.randrange(3))]
        root = dice.choice(roots)
        known_before = any(root in path.parents for path in model.rows)
        if not known_before and not (root.exists() and any(root.iterdir())):
            continue  # refused, as a test above shows
        story.append(f"index {root.name}")
        decoded = model.index(root)
        assert place.index(root).done["indexed"] == decoded, story
        hits = {(tuple(hit["paths"]), hit["online"]) for hit in place.search("red")}
        assert hits == model.hits(), story
