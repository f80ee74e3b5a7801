"""What `vidx index --skip-still` saves on footage of static cameras, and how far vectors move by it.

    python benchmarks/still.py [FOLDER] [--encoder conse] [--weights FILE ...] [--clips 18] [--json]

Films are made of photographs (scikit-image's), as a fixed camera would see them: noise of the sensor, light that
drifts, H.264 at a low rate, and now and then a figure that walks by, a third to a twelfth as high as the picture.
Videos below FOLDER are measured beside them. Of each threshold this is printed: the share of clips that are not
encoded, and of those with a figure in them; the cosine between the vector that a skipped clip gets and the one it would
have had, median and worst.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vidx import encoders
from vidx.decoders.pyav import open_video
from vidx.encoders import VideoTextEncoder
from vidx.errors import MediaError
from vidx.indexer.plan import Windows, plan
from vidx.indexer.still import Extent

THRESHOLDS = (2, 4, 6, 8, 10, 12, 16, 24)  # of 255
PICTURES = ("coffee.png", "motorcycle_left.png", "chelsea.png")
SIZE, FPS, CLIP_S = (640, 360), 2, 10.0
CASES = {  # standard deviation of the noise, how much darker it has got at the end, options of libx264
    "plain": (2, 0.0, {"crf": "26"}),
    "noisy": (10, 0.0, {"crf": "26"}),
    "low rate": (4, 0.0, {"b": "60k"}),
    "drift": (2, 0.4, {"crf": "26"}),
}
HEIGHTS = (1 / 3, 1 / 6, 1 / 12)  # of figures, in turn; one every EVERY clips
EVERY = 6


@dataclass(frozen=True)
class Measured:
    """One clip: what is told of it before it is encoded, and the vector it would have."""

    figure: float  # height of the figure in it, as a share of the picture's; 0: none
    extent: Extent
    vector: np.ndarray


def main() -> None:
    """Print a table for each kind of footage; with --json one JSON object after them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--clips", type=int, default=18, help="of each made film")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    encoder = encoders.build(encoders.here(arguments.encoder, arguments.weights))
    found = {}
    for name, films in footage(arguments.folder, encoder, arguments.clips):
        found[name] = [outcome(films, most) for most in THRESHOLDS]
        print(f"\n{name}: {sum(map(len, films))} clips\nthreshold  skipped  figures  median  worst")
        for row in found[name]:
            print("{threshold:9}  {skipped:7}  {figures:7}  {median:6}  {worst:5}".format(**row), flush=True)
    if arguments.json:
        print(json.dumps(found))


def footage(folder: Path | None, encoder: VideoTextEncoder, n_clips: int) -> Iterator[tuple[str, list[list[Measured]]]]:
    """Kinds of footage and their films: the made ones, then the videos of each folder below `folder`."""
    with tempfile.TemporaryDirectory() as made:
        for case in CASES:
            paths = [Path(made) / f"{case} {picture}.mp4" for picture in PICTURES]
            for seed, (path, picture) in enumerate(zip(paths, PICTURES, strict=True)):
                make_film(path, picture, case, n_clips, seed)
            yield case, [list(measured(path, encoder, made=True)) for path in paths]
    videos = sorted(file for file in folder.rglob("*") if file.is_file()) if folder else []
    for name, group in groupby(videos, lambda path: path.parent.name):
        films = []
        for path in group:
            with suppress(MediaError):
                films.append(list(measured(path, encoder, made=False)))
        if films:
            yield name, films


def make_film(path: Path, picture: str, case: str, n_clips: int, seed: int) -> Path:
    """A film of a fixed camera; every sixth clip has a figure in it from its beginning to its end."""
    import skimage

    noise, darker, options = CASES[case]
    rng = np.random.default_rng(seed)
    view = Image.open(Path(skimage.__file__).parent / "data" / picture).convert("RGB").resize(SIZE)
    grains = [rng.normal(0, noise, (SIZE[1], SIZE[0], 3)).astype(np.float32) for _ in range(4)]
    n_clip = round(CLIP_S * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "veryfast", "g": str(10 * FPS), **options}
        for number in range(n_clips * n_clip):
            shown = view.copy()
            if height := figure_in(number // n_clip):
                draw_figure(shown, height, (number % n_clip) / n_clip, seed)
            light = 1 - darker * number / (n_clips * n_clip)
            grain = np.roll(grains[number % 4], rng.integers(0, 300, 2), (0, 1))
            noisy = np.clip(np.asarray(shown, np.float32) * light + grain, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def figure_in(clip: int) -> float:
    """Height of the figure in a clip, 0 for none."""
    return HEIGHTS[clip // EVERY % len(HEIGHTS)] if clip % EVERY == EVERY // 2 else 0.0


def draw_figure(shown: Image.Image, height: float, at: float, seed: int) -> None:
    """Somebody in dark trousers and a coloured shirt, who crosses the middle of the picture while `at` goes 0 to 1."""
    from PIL import ImageDraw

    h = height * SIZE[1]
    x, top = SIZE[0] * (0.3 + 0.4 * at), SIZE[1] * 0.7 - h / 2
    draw = ImageDraw.Draw(shown)
    draw.ellipse((x - 0.07 * h, top, x + 0.07 * h, top + 0.16 * h), fill=(190, 150, 125))
    shirt = tuple(int(level) for level in np.random.default_rng(seed).integers(60, 200, 3))
    draw.rectangle((x - 0.13 * h, top + 0.16 * h, x + 0.13 * h, top + 0.55 * h), fill=shirt)
    draw.rectangle((x - 0.1 * h, top + 0.55 * h, x + 0.1 * h, top + h), fill=(45, 48, 60))


def measured(path: Path, encoder: VideoTextEncoder, *, made: bool) -> Iterator[Measured]:
    """The clips of a video as the indexer makes them, each encoded. Raises MediaError."""
    space = encoder.spec.space
    video = open_video(str(path).encode())
    clips = plan(video.timeline, Windows(CLIP_S, CLIP_S, space.frames))
    for number, clip in enumerate(clips):
        shown = {tick: frame.pixels(space.preprocess) for tick, frame in video.frames_at(sorted(set(clip.ticks)))}
        if len(shown) == len(set(clip.ticks)):
            pixels = np.stack([shown[tick] for tick in clip.ticks])
            [vector] = encoder.encode_video(pixels[None])
            yield Measured(figure_in(number) if made else 0.0, Extent.of(pixels), vector)
    video.close()


def outcome(films: list[list[Measured]], most: float) -> dict[str, float]:
    """What a threshold makes of some films."""
    cosines, n_clips, n_figures, figures = [], 0, 0, 0
    for clips in films:
        reference: Measured | None = None
        for clip in clips:
            n_clips, n_figures = n_clips + 1, n_figures + bool(clip.figure)
            if reference is None or clip.extent.change(reference.extent) > most:
                reference = clip
                continue
            cosines.append(float(clip.vector @ reference.vector))
            figures += bool(clip.figure)
    return {
        "threshold": most,
        "skipped": round(len(cosines) / n_clips, 3),
        "figures": round(figures / max(1, n_figures), 3),
        "median": round(float(np.median(cosines or [np.nan])), 4),
        "worst": round(min(cosines, default=float("nan")), 4),
    }


if __name__ == "__main__":
    main()
