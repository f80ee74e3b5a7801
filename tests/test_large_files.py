"""Files above 64 MB, of which only a sample is read to tell them apart: equal samples are not yet equal videos."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidx.indexer.fingerprint import WHOLE_BYTES, fingerprint
from vidx.tests.faults.archive import MakeVideo, in_a_large_file, plain
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import COLOURS, Place, counts

pytestmark = pytest.mark.slow

# Colour, and times of the frames in milliseconds: another duration, and then only another number of frames.
CONTENTS = {
    "a": ("red", [*range(0, 10_000, 1000), 9900]),
    "b": ("green", [*range(0, 20_000, 1000), 19_900]),
    "c": ("blue", [*range(0, 10_000, 500), 9900]),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def large(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of equal size whose samples are equal: a.mp4, b.mp4 and c.mp4."""
    folder = tmp_path_factory.mktemp("large")
    for name, (colour, times_ms) in CONTENTS.items():
        small = make_video(folder / "small.mp4", pts=times_ms, draw=plain(COLOURS[colour]))
        in_a_large_file(small, folder / f"{name}.mp4")
        small.unlink()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture
def place(server: ForkServer, tmp_path: Path) -> Place:
    return Place(tmp_path / "store", server)


def found(place: Place) -> dict[str, list[str]]:
    """Names of the files that a search for each colour finds first, where it finds it at all."""
    best = {colour: place.first(colour) for colour in COLOURS}
    return {colour: [Path(path).name for path in hit["paths"]] for colour, hit in best.items() if hit["score"] > 0.99}


def test_the_samples_are_equal(large: Path) -> None:
    assert len({fingerprint(bytes(path)) for path in large.iterdir()}) == 1
    assert {path.stat().st_size > WHOLE_BYTES for path in large.iterdir()} == {True}


@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_different_videos_of_one_run_are_different(names: str, large: Path, root: Path, place: Place) -> None:
    for at, name in enumerate(names):
        shutil.copyfile(large / f"{name}.mp4", root / f"{at} {name}.mp4")
    assert counts(place.index(root)) == {"indexed": 3, "clips": 4}
    of = {name: [f"{at} {name}.mp4"] for at, name in enumerate(names)}
    assert found(place) == {"red": of["a"], "green": of["b"], "blue": of["c"]}
    assert counts(place.index(root)) == {"unchanged": 3}


def test_different_videos_of_several_runs_are_different(large: Path, root: Path, place: Place) -> None:
    for n, name in enumerate("abc"):
        shutil.copyfile(large / f"{name}.mp4", root / f"{name}.mp4")
        assert place.index(root).done["indexed"] == 1
        assert place.index(root).done["unchanged"] == n + 1
    assert found(place) == {"red": ["a.mp4"], "green": ["b.mp4"], "blue": ["c.mp4"]}


@pytest.mark.parametrize("together", [True, False])
def test_a_copy_is_linked(together: bool, large: Path, root: Path, place: Place) -> None:
    for name in "ab":
        shutil.copyfile(large / f"{name}.mp4", root / f"{name}.mp4")
    if not together:
        place.index(root)
    for name in "ab":
        shutil.copyfile(large / f"{name}.mp4", root / f"{name} copy.mp4")
    run = place.index(root)
    assert (run.done["linked"], run.done["indexed"]) == (2, 2 if together else 0)
    assert found(place) == {"red": ["a copy.mp4", "a.mp4"], "green": ["b copy.mp4", "b.mp4"]}


def test_moved_touched_and_missing_ones_are_known_again(large: Path, root: Path, place: Place) -> None:
    for name in "abc":
        shutil.copyfile(large / f"{name}.mp4", root / f"{name}.mp4")
    place.index(root)
    (root / "b.mp4").rename(root / "z.mp4")
    (root / "c.mp4").touch()
    assert counts(place.index(root)) == {"linked": 1, "unchanged": 2}
    root.rename(root.parent / "unplugged")
    assert counts(place.index(root)) == {"missing": 3}
    (root.parent / "unplugged").rename(root)
    assert counts(place.index(root)) == {"unchanged": 3}
    assert found(place) == {"red": ["a.mp4"], "green": ["z.mp4"], "blue": ["c.mp4"]}


def test_one_in_the_place_of_another_retires_it(large: Path, root: Path, place: Place) -> None:
    shutil.copyfile(large / "a.mp4", root / "video.mp4")
    place.index(root)
    shutil.copyfile(large / "b.mp4", root / "video.mp4")
    assert counts(place.index(root)) == {"indexed": 1, "clips": 2}
    assert found(place) == {"green": ["video.mp4"]}
    assert place.status()["retired"] == 1
