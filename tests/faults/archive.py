"""Small archives for the tests that break things: many short videos, long ones, bad files, copies."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

MakeVideo = Callable[..., Path]


def tiles(seed: int) -> Callable[[int, tuple[int, int]], np.ndarray]:
    """Pictures of coloured tiles that nothing but the seed and the number of the frame decide."""

    def draw(number: int, size: tuple[int, int]) -> np.ndarray:
        colours = np.random.default_rng([seed, number]).integers(0, 256, (3, 4, 3), np.uint8)
        return np.repeat(np.repeat(colours, size[1] // 3, axis=0), size[0] // 4, axis=1)

    return draw


def plain(colour: tuple[int, int, int]) -> Callable[[int, tuple[int, int]], np.ndarray]:
    """Pictures of one colour."""
    return lambda number, size: np.full((size[1], size[0], 3), colour, np.uint8)


def tiled_video(make_video: MakeVideo, path: Path, seed: int, n_clips: int = 1) -> Path:
    """A video of `n_clips` times ten seconds with a frame every five, and a last one for 0.1 s."""
    times_ms = [*range(0, 10_000 * n_clips, 5000), 10_000 * n_clips - 100]
    return make_video(path, size=(64, 48), gop=2, pts=times_ms, draw=tiles(seed), options={"crf": "23"})


def cut_short(path: Path, n_packets: int) -> None:
    """Cut a Matroska file behind its first packets; the duration it announces stays."""
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    path.write_bytes(path.read_bytes()[: positions[n_packets]])


def without_index(source: Path, path: Path) -> None:
    """The MP4 file `source` without its moov box: a video that can't be read."""
    content = source.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])


def in_a_large_file(source: Path, path: Path, size: int = 70 * 2**20) -> None:
    """Write the MP4 file `source` as one of 70 MB whose fingerprint does not depend on what it shows.

    The boxes of the video lie between the first 64 kB, which hold its type and padding, and the next block that a
    fingerprint looks at. All behind them is one empty box, which takes no room on the disk.
    """
    content = source.read_bytes()
    (type_end,) = struct.unpack(">I", content[:4])
    boxes, begin, end = content[type_end:], 100_000, 700_000
    moved = _with_chunks_moved(boxes, begin - type_end)
    assert begin + len(moved) + 8 < end < size // 64 < size
    with open(path, "wb") as file:
        file.write(content[:type_end] + _empty_box(begin - type_end))
        file.write(moved + _empty_box(end - begin - len(moved)))
        file.write(struct.pack(">I4s", size - end, b"free"))
        file.truncate(size)


def _empty_box(n_bytes: int) -> bytes:
    return struct.pack(">I4s", n_bytes, b"free") + bytes(n_bytes - 8)


def _with_chunks_moved(boxes: bytes, by: int) -> bytes:
    """The boxes of an MP4 file with the places of its chunks (ISO 14496-12, stco) moved by so many bytes."""
    at = boxes.index(b"stco") + 4
    (n,) = struct.unpack_from(">I", boxes, at + 4)
    places = struct.unpack_from(f">{n}I", boxes, at + 8)
    return boxes[: at + 8] + struct.pack(f">{n}I", *(place + by for place in places)) + boxes[at + 8 + 4 * n :]


def many_videos(make_video: MakeVideo, folder: Path) -> dict[str, str]:
    """Fill a folder and tell the state in which the first run has to leave each entry, by name.

    12 videos of one to three clips, two of 60, copies, one cut, one broken, what is no video, and a hidden file.
    """
    folder.mkdir()
    states = {}
    for number in range(12):
        name = f"v{number:02}.{'mkv' if number % 2 else 'mp4'}"
        tiled_video(make_video, folder / name, seed=number, n_clips=1 + number % 3)
        states[name] = "indexed"
    for number in range(2):
        tiled_video(make_video, folder / f"long {number}.mp4", seed=100 + number, n_clips=60)
        states[f"long {number}.mp4"] = "indexed"
    for number in (0, 5, 11):
        copied = next(folder.glob(f"v{number:02}.*"))
        shutil.copyfile(copied, folder / f"z copy {copied.name}")
        states[f"z copy {copied.name}"] = "linked"
    cut_short(tiled_video(make_video, folder / "cut.mkv", seed=200, n_clips=3), n_packets=5)
    without_index(folder / "v02.mp4", folder / "broken.mp4")
    (folder / "notes.txt").write_text("shopping list")
    (folder / "zero.mp4").touch()
    shutil.copyfile(folder / "v00.mp4", folder / ".hidden.mp4")
    return states | {
        "cut.mkv": "partial",
        "broken.mp4": "failed",
        "notes.txt": "not_video",
        "zero.mp4": "not_video",
        ".hidden.mp4": "skipped",
    }
