"""A pool to test on: clips that training never drew, each with a caption that no other has, as real video files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidx.train.shapes.captions import whole_caption
from vidx.train.shapes.data import stream
from vidx.train.shapes.drawing import draw_look, pictures
from vidx.train.shapes.scenes import OF_TWO, Content, draw_contents, draw_scene, is_held_out

_STREAM = 4  # of random numbers of a seed; training has others
_RATE, _SECONDS, _SIDE_PX = 25, 2, 128
_CRF = "23"
TABLE = "captions.csv"


@dataclass(frozen=True)
class PoolClip:
    """A file of a pool: what happens in it, and whether training never saw such a combination."""

    path: Path
    text: str
    contents: tuple[Content, ...]

    @property
    def is_held_out(self) -> bool:
        """Whether one of its things was left out of training."""
        return any(map(is_held_out, self.contents))


def make_pool(folder: Path, n: int, seed: int) -> list[PoolClip]:
    """Write `n` clips as H.264 and `captions.csv`, which `vidx eval retrieval` reads; the same for a seed each time."""
    folder.mkdir(parents=True, exist_ok=True)
    times = (np.arange(_RATE * _SECONDS) + 0.5) / (_RATE * _SECONDS)
    made = []
    for number, contents in enumerate(_distinct(seed, n)):
        random = stream(seed, _STREAM, number)
        scene = draw_scene(random, contents, times)
        clip = PoolClip(folder / f"{number:04}.mp4", whole_caption(contents).text, contents)
        _write(clip.path, pictures(random, scene, draw_look(random, scene, _SIDE_PX)))
        made.append(clip)
    with open(folder / TABLE, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption", "motion", "held_out"])
        table.writerows([clip.path.name, clip.text, clip.contents[0].motion, int(clip.is_held_out)] for clip in made)
    return made


def _distinct(seed: int, n: int) -> Iterator[tuple[Content, ...]]:
    """Contents that no other has, of two things that act alike in either order."""
    random = stream(seed, _STREAM)
    seen: set[frozenset[Content] | tuple[Content, ...]] = set()
    while len(seen) < n:
        contents = draw_contents(random)
        key = frozenset(contents) if contents[0].motion in OF_TWO else contents
        if key not in seen:
            seen.add(key)
            yield contents


def _write(path: Path, frames: np.ndarray) -> None:
    """uint8 (T, side, side, 3) as H.264."""
    with av.open(str(path), "w") as container:
        stream_ = container.add_stream("libx264", rate=_RATE, options={"crf": _CRF})
        stream_.width, stream_.height, stream_.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream_.time_base = Fraction(1, _RATE)
        for picture in frames:
            container.mux(stream_.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream_.encode())
