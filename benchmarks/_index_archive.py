"""What benchmarks/index.py indexes: films in several formats, tiny clips, a very long file, a tree that is known."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vidx.config import CLIP_S
from vidx.encoders import EncoderSpec
from vidx.indexer.plan import Windows
from vidx.indexer.walk import walk
from vidx.schema import tables
from vidx.schema.records import FoundFile
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png")
GRAINS, GRAIN = 4, 6.0  # pictures of grain that take turns; its standard deviation in levels
A_FOLDER = 1000  # files of a tree
AT_ONCE = 20_000  # rows of a commit


@dataclass(frozen=True)
class Film:
    """A file to make. `options` are of the codec; what they leave open is as the codec has it."""

    name: str
    codec: str
    width: int
    height: int
    seconds: int
    kbit_s: int
    options: tuple[tuple[str, str], ...] = ()
    rate: int = 25


def films(seconds: int) -> list[Film]:
    """The archive of whole runs; the first two are those that decoders are compared on."""
    hd = (1920, 1080, seconds, 5000)
    return [
        Film("gop60.mp4", "libx264", *hd, (("g", "60"),)),
        Film("gop250.mp4", "libx264", *hd, (("g", "250"),)),
        Film(
            "hevc.mkv", "libx265", 1280, 720, seconds // 2, 2000, (("preset", "fast"), ("x265-params", "log-level=0"))
        ),
        Film("mpeg4.avi", "mpeg4", 640, 480, seconds * 2, 1500),
        Film("vp9.webm", "libvpx-vp9", 854, 480, seconds // 2, 1000, (("deadline", "realtime"), ("cpu-used", "8"))),
        Film("short.mov", "libx264", 640, 360, 8, 800),
    ]


def make_films(folder: Path, wanted: Iterable[Film]) -> None:
    """Write those that are not there yet; films of one size and length show the same."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [film for film in wanted if not (folder / film.name).exists()]
    for shape, alike in groupby(missing, lambda film: (film.width, film.height, film.seconds * film.rate)):
        _write(folder, list(alike), _filmed(*shape))


def _write(folder: Path, alike: list[Film], frames: Iterator[np.ndarray]) -> None:
    aside = {film: folder / f".{film.name}" for film in alike}  # a name that is there is a whole film
    with ExitStack() as stack:
        outputs = []
        for film, path in aside.items():
            container = stack.enter_context(av.open(str(path), "w", format=_format(film)))
            stream = container.add_stream(film.codec, rate=film.rate, options=dict(film.options))
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
            stream.bit_rate, stream.time_base = film.kbit_s * 1000, Fraction(1, film.rate)
            outputs.append((container, stream))
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            for (container, stream), film in zip(outputs, alike, strict=True):
                frame.pts, frame.time_base = number, Fraction(1, film.rate)
                container.mux(stream.encode(frame))
        for container, stream in outputs:
            container.mux(stream.encode())
    for film, path in aside.items():
        path.rename(folder / film.name)


def _format(film: Film) -> str:
    ending = film.name.rpartition(".")[2]
    return {"mkv": "matroska"}.get(ending, ending)


def _filmed(width: int, height: int, n_frames: int) -> Iterator[np.ndarray]:
    """A camera that wanders and zooms over photographs, with grain: uint8 (height, width, 3)."""
    scene = _scene(2 * width, 2 * height)
    rng = np.random.default_rng(width)
    grains = [(rng.standard_normal((height, width, 1), np.float32) * GRAIN).astype(np.int16) for _ in range(GRAINS)]
    for number in range(n_frames):
        at = 2 * np.pi * number / max(n_frames, 1500)  # once round in a minute, or in the film
        shown = 1.25 + 0.35 * np.sin(3 * at)
        left, top = (2 - shown) * width * (1 + np.sin(2 * at)) / 2, (2 - shown) * height * (1 + np.cos(3 * at)) / 2
        box = (float(left), float(top), float(left + shown * width), float(top + shown * height))
        picture = scene.resize((width, height), Image.Resampling.BILINEAR, box)
        yield np.clip(np.asarray(picture, np.int16) + grains[number % GRAINS], 0, 255).astype(np.uint8)


def _scene(width: int, height: int) -> Image.Image:
    """Six photographs side by side."""
    found = find_spec("skimage")  # found, not imported: only its pictures are wanted
    if found is None or found.origin is None:
        sys.exit("the films need the photographs of scikit-image: pip install scikit-image")
    whole = Image.new("RGB", (width, height))
    for number, name in enumerate(PICTURES):
        with Image.open(Path(found.origin).parent / "data" / name) as opened:
            tile = opened.convert("RGB").resize((width // 3, height // 2), Image.Resampling.BICUBIC)
        whole.paste(tile, (number % 3 * (width // 3), number // 3 * (height // 2)))
    return whole


TINY = Film("tiny.mp4", "libx264", 160, 120, int(CLIP_S), 40, rate=5, options=(("bf", "0"), ("g", "10")))


def make_tiny(folder: Path, n: int) -> None:
    """One clip n times, every file with another title: contents that differ, of one size."""
    make_films(folder.parent, [TINY])
    folder.mkdir()
    for number in range(n):
        _repeat(folder.parent / TINY.name, folder / f"{number:06}.mp4", times=1, title=str(number))


def make_long(folder: Path, hours: float) -> None:
    """The same clip again and again in one file."""
    make_films(folder.parent, [TINY])
    folder.mkdir()
    _repeat(folder.parent / TINY.name, folder / "long.mp4", times=int(hours * 3600 / TINY.seconds), title="long")


def _repeat(source: Path, target: Path, *, times: int, title: str) -> None:
    """Packets copied, nothing decoded."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [(bytes(packet), packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
        assert stream.time_base is not None
        base, length = stream.time_base, int(TINY.seconds / stream.time_base)
        with av.open(str(target), "w") as output:
            output.metadata["title"] = title
            copy = output.add_stream_from_template(stream)
            for turn in range(times):
                for data, pts, is_key in packets:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base, packet.is_keyframe = copy, base, is_key
                    packet.pts = packet.dts = (pts or 0) + turn * length
                    output.mux(packet)


def make_known_tree(tree: Path, store_path: Path, spec: EncoderSpec, n: int) -> None:
    """A tree of n files of a few bytes, and a store as if each had been indexed as a video of one clip."""
    for number in range(n):
        folder = tree / f"{number // A_FOLDER:04}"
        if number % A_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:07}.mp4").write_bytes(str(number).encode())
    files = [file for file in walk(tree) if isinstance(file, FoundFile)]
    with writing(Store.create(store_path)) as writer:
        writer.add_space(spec.space)
        for first in range(0, n, AT_ONCE):
            some = files[first : first + AT_ONCE]
            clip_id = writer.reserve_clip_ids(len(some))
            vectors = np.random.default_rng(first).standard_normal((len(some), spec.space.dim), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            rows = Commit()
            for number, (file, vector) in enumerate(zip(some, vectors, strict=True)):
                _add_rows(rows, spec, file, f"made-{first + number}", clip_id + number, vector)
            writer.commit(rows)


def _add_rows(
    rows: Commit, spec: EncoderSpec, file: FoundFile, video_id: str, clip_id: int, vector: np.ndarray
) -> None:
    frames = spec.space.frames
    times = {"start_s": 0.0, "end_s": CLIP_S, "frame_pts": [0] * frames, "frame_pts_s": [0.0] * frames}
    clip = {"clip_id": clip_id, "video_id": video_id, **times, "vector": vector}
    rows.clips.setdefault(spec.space.name, []).append(clip)
    video = {"video_id": video_id, "size_bytes": file.size_bytes, "duration_s": CLIP_S}
    rows.videos.append(dict.fromkeys(tables.VIDEOS.names) | video)
    plan = Windows(CLIP_S, CLIP_S, frames).to_json()
    outcome: dict[str, Any] = {"state": "ok", "plan": plan, "decoder": "pyav", "decode_mode": "exact", "device": "cpu"}
    outcome |= {"video_id": video_id, "space": spec.space.name, "first_clip_id": clip_id, "n_clips": 1}
    rows.indexed.append(dict.fromkeys(tables.INDEXED.names) | outcome | {"indexed_at": datetime.now(UTC)})
    found = {"root": file.root, "path": file.path, "path_bytes": file.path_bytes, "size": file.size_bytes}
    found |= {"mtime_ns": file.mtime_ns, "device": file.device, "video_id": video_id, "state": "present"}
    rows.files.append(dict.fromkeys(tables.FILES.names) | found)
