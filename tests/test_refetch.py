"""Frames fetched again at the ticks of a stored clip are those that were embedded, to the last bit."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidx.errors import InputError, Unreadable
from vidx.indexer import frames
from vidx.indexer.frames import frames_of_clip
from vidx.indexer.process import DecodeProcess, Limits
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.archive import MakeVideo, tiled_video, tiles
from vidx.tests.faults.commands import index
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.place import Place
from vidx.tests.faults.plugin.tiny_encoder import digest

pytestmark = pytest.mark.slow

FPS, SECONDS, SIZE = 10, 23, (96, 66)
CLIPS_OF_A_VIDEO = 4  # fetched again, of the first, the last and those between


def make(path: Path, codec: str, first: int = 0, sar: Fraction | None = None, **options: str) -> None:
    """A video of 23 s in which no two frames are alike, whose first frame has number `first`, by a codec."""
    draw = tiles(zlib.crc32(path.name.encode()))
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.thread_count = 1
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        stream.options = options
        for number in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(number, SIZE)), format="rgb24")
            frame.pts, frame.time_base = number + first, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


_IRREGULAR_MS = [0, *np.cumsum([(40, 250, 90, 700)[n % 4] for n in range(90)]).tolist()]
_X264 = {"preset": "veryfast", "g": "40", "bf": "3", "sc_threshold": "0"}
GENERATED: dict[str, dict[str, Any]] = {
    "constant.mp4": {"codec": "libx264", **_X264},
    "constant.mkv": {"codec": "libx264", **_X264},
    "open_gop.mp4": {"codec": "libx264", **_X264, "x264-params": "open-gop=1:bframes=3:b-pyramid=normal"},
    "pixels_4_3.mp4": {"codec": "libx264", **_X264, "sar": Fraction(4, 3)},
    "an_hour_on.ts": {"codec": "libx264", **_X264, "first": 3600 * FPS},
    "first_second_hidden.mp4": {"codec": "libx264", **_X264, "first": -FPS},
    "bframes.avi": {"codec": "mpeg4", "bf": "2", "g": "40"},
    "bframes.mpg": {"codec": "mpeg2video", "bf": "2", "g": "12"},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8", "g": "40"},
    "hevc.mp4": {"codec": "libx265", "preset": "ultrafast", "x265-params": "log-level=none"},
}
IRREGULAR: dict[str, dict[str, Any]] = {
    "variable.mp4": {},
    "variable.mkv": {},
    "turned_90.mp4": {"rotation": 90},
    "turned_180.mov": {"rotation": 180},
}


class OneProcess:
    """Decodes clip after clip, where vidx starts a process for each; a new one follows one that died."""

    def __init__(self) -> None:
        self._process: DecodeProcess | None = None

    @contextmanager
    def __call__(self) -> Iterator[DecodeProcess]:
        if self._process is None or not self._process.usable:
            self._process = DecodeProcess(Limits(), log=None)
        yield self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()


@pytest.fixture(scope="module")
def one_process() -> Iterator[OneProcess]:
    process = OneProcess()
    yield process
    process.close()


@dataclass(frozen=True)
class Refetched:
    """A store, what its encoder was given, and the clips of each file."""

    process: OneProcess
    store: Store
    embedded: dict[bytes, set[str]]  # digests of frames by the vector that was made of them
    clips: dict[str, list[tuple[int, bytes]]]  # clip id and vector, by name, of whole videos only

    def differing(self, name: str) -> list[int]:
        """Ids of those clips of a file whose frames are not the same again."""
        ids = self.clips[name]
        some = {ids[round(n * (len(ids) - 1) / (CLIPS_OF_A_VIDEO - 1))] for n in range(CLIPS_OF_A_VIDEO)}
        (space,) = self.store.spaces()
        return [clip_id for clip_id, vector in sorted(some) if self._again(space, clip_id) not in self.embedded[vector]]

    def _again(self, space: str, clip_id: int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "_process", self.process)
            return digest(frames_of_clip(self.store, space, clip_id))


def indexed(process: OneProcess, folder: Path, base: Path, *arguments: str) -> Refetched:
    """Index a folder, with a record of all that is embedded."""
    run = index(folder, base / "store", *arguments, TINY_RECORD=str(base / "record"))
    assert (run.code, run.errors) == (0, "")
    embedded: dict[bytes, set[str]] = {}
    for line in map(json.loads, (base / "record").read_text().splitlines()):
        embedded.setdefault(bytes.fromhex(line["vector"]), set()).add(line["frames"])
    store = Store.open(base / "store")
    snapshot = Snapshot(store)
    (space,) = store.spaces()
    rows = snapshot.rows(
        f"SELECT f.path, c.clip_id, c.vector FROM {snapshot.clips(space)} c JOIN files f USING (video_id)"
        " JOIN newest n USING (video_id) WHERE n.state = 'ok' ORDER BY c.clip_id"
    )
    clips: dict[str, list[tuple[int, bytes]]] = {}
    for path, clip_id, vector in rows:
        clips.setdefault(Path(path).name, []).append((clip_id, np.array(vector, np.float32).tobytes()))
    return Refetched(process, store, embedded, clips)


@pytest.fixture(scope="module")
def generated(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of GENERATED and IRREGULAR."""
    folder = tmp_path_factory.mktemp("generated")
    for name, how in GENERATED.items():
        make(folder / name, **how)
    for name, how in IRREGULAR.items():
        make_video(folder / name, size=SIZE, pts=_IRREGULAR_MS, draw=tiles(zlib.crc32(name.encode())), **how)
    return folder


@pytest.fixture(scope="module")
def plain_run(generated: Path, one_process: OneProcess, tmp_path_factory: pytest.TempPathFactory) -> Refetched:
    return indexed(one_process, generated, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def overlapping_run(generated: Path, one_process: OneProcess, tmp_path_factory: pytest.TempPathFactory) -> Refetched:
    """Short clips that overlap."""
    return indexed(one_process, generated, tmp_path_factory.mktemp("overlapping"), "--clip", "4", "--stride", "1.5")


@pytest.mark.parametrize("name", [*GENERATED, *IRREGULAR])
def test_frames_are_the_same_again(name: str, plain_run: Refetched) -> None:
    assert len(plain_run.clips[name]) >= 2
    assert plain_run.differing(name) == []


@pytest.mark.parametrize("name", [*GENERATED, *IRREGULAR])
def test_frames_of_clips_that_overlap_are_the_same_again(name: str, overlapping_run: Refetched) -> None:
    assert len(overlapping_run.clips[name]) >= 10
    assert overlapping_run.differing(name) == []


def test_the_encoder_saw_every_clip_once_and_no_two_alike(plain_run: Refetched) -> None:
    assert sum(len(digests) for digests in plain_run.embedded.values()) == len(plain_run.embedded)
    assert sorted(vector for clips in plain_run.clips.values() for _, vector in clips) == sorted(plain_run.embedded)


def test_what_is_generated_is_what_it_is_called(plain_run: Refetched) -> None:
    rows = Snapshot(plain_run.store).rows(
        "SELECT f.path, v.rotation, v.sar_num, v.time_origin_s, v.n_frames FROM files f JOIN videos v USING (video_id)"
    )
    facts = {Path(path).name: tuple(rest) for path, *rest in rows}
    assert facts["turned_90.mp4"][0] == 90
    assert facts["turned_180.mov"][0] == 180
    assert facts["pixels_4_3.mp4"][1] == 4
    assert facts["an_hour_on.ts"][2] == pytest.approx(3600, abs=2)
    assert facts["first_second_hidden.mp4"][3] == FPS * (SECONDS - 1)


NAMED = [
    "plain.mp4",
    "vfr.mp4",
    "vfr_gap.mkv",
    "rot90.mp4",
    "rot270.mp4",
    "sar_4_3.mp4",
    "opengop.mp4",
    "intra_refresh.mp4",
    "offset3600.ts",
    "wrap33.ts",
    "size_change.ts",
    "editlist_cut.mp4",
    "editlist_skip_1s.mp4",
    "late_video.mp4",
    "no_editlist_bframes.mp4",
    "asp_bframes.avi",
    "odd_dims_mpeg4.avi",
    "avi_frames_lie.avi",
    "mpeg2_interlaced.mpg",
    "h264_interlaced.mp4",
    "wmv2.wmv",
    "vp9.webm",
    "av1.mp4",
    "hevc10.mp4",
    "theora.ogv",
    "six_hours_13_frames.mp4",
    "six_hours_720_frames.mkv",
    "real_unordered.mov",
]


@pytest.fixture(scope="module")
def odd_run(shared: Path, one_process: OneProcess, tmp_path_factory: pytest.TempPathFactory) -> Refetched:
    """All shared odd files; what is damaged is only told once, in the order in which it was decoded."""
    return indexed(one_process, shared / "videos_odd", tmp_path_factory.mktemp("odd"))


@pytest.mark.parametrize("name", NAMED)
def test_frames_of_odd_files_are_the_same_again(name: str, odd_run: Refetched) -> None:
    assert odd_run.differing(name) == []


def test_frames_of_all_other_whole_odd_files_are_the_same_again(odd_run: Refetched) -> None:
    assert len(odd_run.clips) > 50
    others = odd_run.clips.keys() - NAMED
    assert {name: ids for name in others if (ids := odd_run.differing(name))} == {}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture
def one(make_video: MakeVideo, server: ForkServer, tmp_path: Path) -> Callable[[], np.ndarray]:
    """Fetches the frames of the first clip of archive/a.mp4 again."""
    (tmp_path / "archive").mkdir()
    tiled_video(make_video, tmp_path / "archive" / "a.mp4", seed=1)
    Place(tmp_path / "store", server).index(tmp_path / "archive")
    store = Store.open(tmp_path / "store")
    (space,) = store.spaces()
    [(clip_id,)] = (snapshot := Snapshot(store)).rows(f"SELECT clip_id FROM {snapshot.clips(space)}")
    return lambda: frames_of_clip(store, space, clip_id)


def test_frames_come_from_a_copy_where_the_first_path_is_gone(
    one: Callable[[], np.ndarray], server: ForkServer, tmp_path: Path
) -> None:
    before = one()
    shutil.copyfile(tmp_path / "archive" / "a.mp4", tmp_path / "archive" / "b.mp4")
    Place(tmp_path / "store", server).index(tmp_path / "archive")
    (tmp_path / "archive" / "a.mp4").unlink()
    assert np.array_equal(one(), before)


@pytest.mark.parametrize("what", ["is gone", "is another one now", "is another one of its size now", "is a folder now"])
def test_a_file_that_is_not_what_it_was_gives_no_frames(
    what: str, one: Callable[[], np.ndarray], make_video: MakeVideo, tmp_path: Path
) -> None:
    video = tmp_path / "archive" / "a.mp4"
    size = video.stat().st_size
    video.unlink()
    if what == "is another one of its size now":
        assert make_video(video, n_frames=2).stat().st_size < size
        os.truncate(video, size)  # zeros behind the last box mean nothing
    elif what == "is another one now":
        tiled_video(make_video, video, seed=2, n_clips=2)
    elif what == "is a folder now":
        video.mkdir()
    with pytest.raises(Unreadable, match=r"a\.mp4"):
        one()


def test_a_clip_that_is_not_there_is_an_error_of_the_caller(one: Callable[[], np.ndarray], tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with pytest.raises(InputError, match="12345"):
        frames_of_clip(store, store.spaces()[0], 12345)
