"""The made archive's films show what its labels.csv says, frame by frame."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vidx.errors import InputError

SCRIPT = Path(__file__).parents[1] / "benchmarks/photographs.py"
RATE, SEED = 12, 5
NEEDS_FOOLBOX = pytest.mark.skipif(find_spec("foolbox") is None, reason="foolbox is not installed")


@pytest.fixture(scope="module")
def photographs() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield import_module("photographs")


@pytest.fixture(scope="module")
def two(photographs):
    """Two photographs full of detail, which no filler resembles."""
    return [shown for shown in photographs.PHOTOGRAPHS if shown.label in ("cat", "motorcycle")]


@pytest.fixture(scope="module")
def archive(photographs, two, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "films"
    photographs.make(folder, SEED, 2, photographs=two, filler_films=1)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def frames_of(path: Path) -> tuple[list[float], list[Image.Image]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], [frame.to_image() for frame in frames]


def outline(picture: Image.Image) -> np.ndarray:
    """20 by 15 levels of grey as a unit vector without its mean: light and contrast leave it as it is."""
    levels = np.asarray(picture.convert("L").resize((20, 15), Image.Resampling.BILINEAR), np.float64).ravel()
    levels -= levels.mean()
    return levels / max(float(np.linalg.norm(levels)), 1e-9)


def outlines_of_windows(source: str) -> np.ndarray:
    """The outlines of 4:3 windows all over a photograph, either way round: what a camera may see of it."""
    package, file = source.split(":")
    whole = Image.open(Path(find_spec(package).origin).parent / file).convert("L")
    whole.thumbnail((256, 256))
    seen = []
    for picture in (whole, ImageOps.mirror(whole)):
        widest = min(picture.width, picture.height * 4 / 3)
        for width in np.linspace(0.6, 1, 9) * widest:
            height = width * 3 / 4
            for left in np.linspace(0, picture.width - width, 10):
                for top in np.linspace(0, picture.height - height, 10):
                    box = (int(left), int(top), int(left + width), int(top + height))
                    seen.append(outline(picture.crop(box)))
    return np.array(seen)


@pytest.mark.slow
def test_a_row_names_exactly_the_frames_that_show_its_photograph(archive, two):
    windows = {shown.label: outlines_of_windows(shown.source) for shown in two}
    labelled = [row for row in rows_of(archive) if row["label"]]
    assert Counter(row["label"] for row in labelled) == {"cat": 2, "motorcycle": 2}
    for row in labelled:
        times, pictures = frames_of(archive / row["path"])
        inside = [float(row["start_s"]) - 0.01 <= time < float(row["end_s"]) - 0.01 for time in times]
        outlines = np.array([outline(picture) for picture in pictures])
        for label, seen in windows.items():
            likeness = (outlines @ seen.T).max(axis=1)
            shows = likeness > 0.7  # films of these two: at least 0.82 where it is, at most 0.62 elsewhere
            assert np.array_equal(shows, inside if label == row["label"] else np.zeros_like(inside)), row


@pytest.mark.slow
def test_films_are_h264_of_one_size_and_rate_without_gaps(archive):
    paths = sorted(archive.glob("*.mp4"))
    assert len(paths) == 5
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 240)
        times, pictures = frames_of(path)
        assert 30 * RATE <= len(pictures) <= 40 * RATE
        assert np.allclose(times, np.arange(len(times)) / RATE, atol=1e-3)


@pytest.mark.slow
def test_a_film_of_fillers_has_one_row_without_a_label_over_all_of_it(archive):
    (row,) = [row for row in rows_of(archive) if not row["label"]]
    times, _ = frames_of(archive / row["path"])
    assert (float(row["start_s"]), float(row["end_s"])) == pytest.approx((0, times[-1] + 1 / RATE), abs=1e-3)
    assert {row["path"] for row in rows_of(archive)} == {path.name for path in archive.glob("*.mp4")}


@pytest.mark.slow
def test_a_seed_gives_its_frames_again_and_another_gives_others(photographs, two, archive, tmp_path):
    for seed in (SEED, SEED + 1):
        photographs.make(tmp_path / str(seed), seed, 1, photographs=two[:1], filler_films=0)
    first, again, other = (
        frames_of(folder / "0000.mp4")[1] for folder in (archive, tmp_path / str(SEED), tmp_path / str(SEED + 1))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=False))


def test_every_photograph_has_as_many_films_in_either_half(photographs):
    films = photographs.plan(0, 12, photographs.PHOTOGRAPHS, 24)
    halves = Counter((next((s for s, _ in film.shots if not isinstance(s, str)), None), film.half) for film in films)
    assert set(halves) == {(s, half) for s in (None, *photographs.PHOTOGRAPHS) for half in ("calibrate", "test")}
    assert all(number == (12 if shown is None else 6) for (shown, _), number in halves.items())
    assert len({film.name for film in films}) == len(films) == 12 * len(photographs.PHOTOGRAPHS) + 24


def test_scenes_last_15_to_25_s_and_begin_anywhere_in_a_clip(photographs):
    starts = []
    for film in photographs.plan(3, 12, photographs.PHOTOGRAPHS, 0):
        (row,) = film.rows()
        start_s, end_s = float(row[1]), float(row[2])
        total_s = sum(frames for _, frames in film.shots) / RATE
        assert 30 <= total_s <= 40
        assert 14.99 < end_s - start_s < 25.01
        assert 2 <= start_s < end_s <= total_s - 1.99
        starts.append(int(start_s % 10))
    assert min(Counter(starts)[second] for second in range(10)) >= 5


def test_there_are_20_photographs_and_no_picture_twice(photographs):
    sources = [shown.source for shown in photographs.PHOTOGRAPHS]
    assert len(set(sources)) == len(sources) >= 20
    assert not set(sources) & {*photographs.STILLS, photographs.RABBIT}


@pytest.mark.parametrize("package", ["skimage", "sklearn", "matplotlib", pytest.param("foolbox", marks=NEEDS_FOOLBOX)])
def test_every_photograph_is_where_it_should_be_and_large_enough(photographs, package):
    sources = [shown.source for shown in photographs.PHOTOGRAPHS if shown.source.startswith(package + ":")]
    assert sources
    for source in sources:
        with Image.open(Path(find_spec(package).origin).parent / source.split(":")[1]) as picture:
            assert min(picture.size) > 150, source


@given(st.integers(0, 2**32), st.integers(60, 800), st.floats(0.6, 3), st.floats(0, 1), st.floats(0, 1))
def test_a_window_shows_enough_of_the_picture_and_what_is_named(photographs, seed, height, shape, x, y):
    size = (round(height * shape), height)
    left, top, wide, high = photographs.window(np.random.default_rng(seed), size, (x, y))
    assert wide / high == pytest.approx(4 / 3)
    assert wide * high >= 0.4 * size[0] * size[1] * (1 - 1e-9)
    for at, extent, whole, named in ((left, wide, size[0], x), (top, high, size[1], y)):
        assert 0 <= at <= whole - extent + 1e-6
        assert at - 1e-6 <= named * whole <= at + extent + 1e-6


def test_a_package_that_is_not_there_is_told_in_one_line(tmp_path):
    hidden = f"""
import runpy, sys
sys.modules["foolbox"] = None
sys.argv = [{str(SCRIPT)!r}, {str(tmp_path / "films")!r}]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == "the photographs need foolbox: pip install foolbox\n"
    assert not (tmp_path / "films").exists()


def test_a_folder_that_holds_something_is_left_alone(photographs, tmp_path):
    (tmp_path / "mine.mp4").touch()
    with pytest.raises(InputError, match="is not empty"):
        photographs.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.mp4"]
