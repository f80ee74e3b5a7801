"""Tiny real videos, and one small archive indexed once for all tests."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from vidx.schema.store import Store

# No test fetches anything, and none sees what its user has fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VIDX_WEIGHTS"] = os.path.join(tempfile.gettempdir(), f"vidx-test-weights-{os.getuid()}")
# Several processes share the cores: a thread that spins while it waits takes one from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_SCENES = (
    ("cat_coffee.mp4", "chelsea.png", "coffee.png"),
    ("rocket_astronaut.mp4", "rocket.jpg", "astronaut.png"),
    ("coins_motorcycle.mp4", "coins.png", "motorcycle_left.png"),
)
_SCENE_S, _FPS, _SIZE = 12, 10, (320, 240)

# Files whose tests are all slow, and whose imports alone take seconds.
_OF_NETWORKS = {
    f"test_{name}.py" for name in ("checkpoint", "movinet", "network_encoder", "open_clip", "reference")
} | {
    f"test_{name}.py"
    for name in (
        "released_keys",
        "videomae",
        "encoders_open_clip",
        "train_classifiers",
        "train_clip_text",
        "train_gpu",
        "train_shapes",
        "shapes",
        "tags_model",
        "benchmark_recipes",
    )
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The quick round does not import what it would not run."""
    quick = config.getoption("markexpr") == "not slow"
    return True if quick and collection_path.name in _OF_NETWORKS else None


def pytest_configure(config: pytest.Config) -> None:
    """The quick round tries fewer examples of each property; a busy machine is no error in any."""
    settings.register_profile("gate", deadline=None)
    settings.register_profile("quick", deadline=None, max_examples=20)
    settings.load_profile("quick" if config.getoption("markexpr") == "not slow" else "gate")


def flat_grey(number: int, size: tuple[int, int]) -> np.ndarray:
    """The picture of frame `number`: plain grey of level 5 * number, again from black every 50 frames."""
    return np.full((size[1], size[0], 3), 5 * (number % 50), np.uint8)


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """A function that writes an H.264 file and returns its path; see `_make_video`."""
    return _make_video


def _make_video(
    path: Path,
    *,
    n_frames: int = 50,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    gop: int = 10,
    pts: Sequence[int] | None = None,
    rotation: int | None = None,
    draw: Callable[[int, tuple[int, int]], np.ndarray] = flat_grey,
    options: dict[str, str] | None = None,
) -> Path:
    """A video with B-frames. `draw(number, (width, height))` gives RGB uint8 (height, width, 3).

    `pts` are the times of the frames in milliseconds, for a variable rate; n_frames and fps then do not count.
    `rotation` (mp4 and mov only) is the angle, counterclockwise, that brings the stored picture upright. `options` are
    of libx264.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.thread_count = 1
        base = Fraction(1, fps) if pts is None else Fraction(1, 1000)
        stream.codec_context.time_base = base
        stream.options = {"crf": "10", "preset": "veryfast", "g": str(gop), "sc_threshold": "0", **(options or {})}
        for number, tick in enumerate(range(n_frames) if pts is None else pts):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(number, size)), format="rgb24")
            frame.pts, frame.time_base = tick, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if rotation is not None:
        _write_rotation(path, rotation)
    return path


def _write_rotation(path: Path, rotation: int) -> None:
    """Replace the display matrix in the track header of an mp4 (ISO 14496-12, tkhd version 0)."""
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[rotation]
    rows = (cosine << 16, -sine << 16, 0, sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *rows)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test files that lies beside the repository, where there is one."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "videos_odd" / "MANIFEST.csv").exists():
        pytest.skip("the folder of shared test videos is not beside this repository")
    return folder


@pytest.fixture(scope="session")
def memory_folder() -> Iterator[Callable[[], Path]]:
    """A function that makes a folder in memory, or on the disk where the system has no such room.

    For stores whose writers are killed or refused: that leaves the same behind in both, and memory waits for no disk.
    """
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    with tempfile.TemporaryDirectory(prefix="vidx-test-", dir=memory if roomy else None) as folder:
        yield lambda: Path(tempfile.mkdtemp(dir=folder))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch in one thread: of networks as small as in tests, several would spend their time waiting for another."""
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new, empty store."""
    return Store.create(tmp_path / "store")


@pytest.fixture(scope="session")
def vidx() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The installed command: vidx("index", folder, "--store", path) gives the finished process."""

    def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("vidx"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)

    return run


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three videos, two scenes of 12 s each: a still picture that the view slowly moves over.

    cat_coffee.mp4, rocket_astronaut.mp4, coins_motorcycle.mp4.
    """
    skimage = pytest.importorskip("skimage", reason="the pictures of the archive come with scikit-image")
    pictures = Path(skimage.__file__).parent / "data"
    folder = tmp_path_factory.mktemp("archive")
    n_scene = _SCENE_S * _FPS
    for name, *scenes in _SCENES:
        enlarged = [_enlarged(pictures / scene) for scene in scenes]

        def draw(number: int, size: tuple[int, int], enlarged: list[np.ndarray] = enlarged) -> np.ndarray:
            picture = enlarged[number // n_scene]
            left = (picture.shape[1] - size[0]) * (number % n_scene) // n_scene
            top = (picture.shape[0] - size[1]) // 2
            return picture[top : top + size[1], left : left + size[0]]

        _make_video(
            folder / name, n_frames=2 * n_scene, fps=_FPS, size=_SIZE, gop=_FPS, draw=draw, options={"crf": "20"}
        )
    return folder


def _enlarged(path: Path) -> np.ndarray:
    """A picture just large enough that a view of _SIZE can move over it by an eighth of its width."""
    image = Image.open(path).convert("RGB")
    scale = max(_SIZE[0] * 9 / 8 / image.width, _SIZE[1] / image.height)
    return np.asarray(image.resize((round(image.width * scale), max(_SIZE[1], round(image.height * scale)))))


@pytest.fixture(scope="session")
def indexed_store(
    archive: Path, vidx: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The store that `vidx index` made of `archive`; for reading only."""
    path = tmp_path_factory.mktemp("indexed") / "store"
    run = vidx("index", archive, "--store", path)
    assert run.returncode == 0, run.stderr
    return path
