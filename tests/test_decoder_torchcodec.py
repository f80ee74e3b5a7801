"""The third decoder: the right frames where it accepts a file, and a refusal where it would give wrong ones.

Most of what can go wrong is shown with a double of its interface; what it really does, wherever FFmpeg's libraries are.
"""

from __future__ import annotations

import csv
import ctypes.util
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from vidx.decoders import OpenVideo, pyav
from vidx.decoders import torchcodec as decoder
from vidx.errors import MediaError, NotVideo, Unreadable, VidxError
from vidx.plugins import available, load
from vidx.schema.records import Preprocess

MakeVideo = Callable[..., Path]
_PX = Preprocess(short_side_px=48, crop_px=48)
_SAME_PICTURE = 12  # mean difference of 256 levels: another way to RGB
_ALMOST_THE_SAME = 2.5
_SERVED = "VIDX_TEST_FFMPEG_OF_PYAV"
_ODD = Path(__file__).parents[2] / "shared" / "videos_odd"
_FIRST_NUMBER = {"editlist_cut.mp4": 33, "editlist_skip_1s.mp4": 25}  # of those that edit lists show


def numbers(video: OpenVideo, ticks: list[int]) -> list[tuple[int, int]]:
    """Ticks of the frames shown, and the numbers that are burned into them as grey levels of 5 each."""
    return [(frame.tick, round(float(frame.pixels(_PX).mean()) / 5)) for _, frame in video.frames_at(ticks)]


# A double: it has the files' own times, and its picture of frame n is plain grey of level 5 * n


class Double:
    """Stands for the module torchcodec, and for its VideoDecoder as the source of 0.17 has it.

    That reads through the file object, counts packets, and gives of a number the first frame that is due then or later.
    """

    def __init__(self) -> None:
        self.decoders = SimpleNamespace(VideoDecoder=self.open)
        self.transforms = SimpleNamespace(Resize=lambda size: ("resize", *size))
        self.metadata = SimpleNamespace(rotation=None)
        self.complaints = SimpleNamespace(count=0)
        self.asked: list[int] = []
        self.lost: set[int] = set()
        self.too_few = 0
        self.on_asking: Callable[[int], None] = lambda number: None

    def open(self, source, **options) -> Double:
        self.options, self.source = options, source
        source.seek(0, 0)
        content = b""
        while block := source.read(65536):
            content += block
        if not content:
            raise RuntimeError("SingleStreamDecoder, /a/b/SingleStreamDecoder.cpp:70, Failed to open input buffer: End")
        return self

    def __len__(self) -> int:
        return len(self.ticks) - self.too_few

    def get_frame_at(self, number: int):
        self.asked.append(number)
        self.source.seek(0, 0)
        self.source.read(65536)
        self.on_asking(number)
        while number in self.lost:
            number += 1
        data = np.full((48, 64, 3), 5 * number, np.uint8)
        return SimpleNamespace(
            pts_seconds=float(self.ticks[number] * self.time_base), data=SimpleNamespace(numpy=lambda: data)
        )


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double()
    monkeypatch.setattr(decoder, "_library", lambda: (double, double.complaints))
    return double


@pytest.fixture
def path(make_video: MakeVideo, tmp_path: Path, double: Double) -> bytes:
    """A file of 50 frames with key frames at every tenth, which the double knows."""
    path = os.fsencode(make_video(tmp_path / "a.mp4"))
    line = pyav.open_video(path).timeline
    double.ticks, double.time_base = line.ticks, line.time_base
    return path


def test_each_frame_is_asked_for_by_its_number_once(path: bytes, double: Double) -> None:
    video = decoder.open_video(path, threads=4, mode="fast")
    ticks = video.timeline.ticks.tolist()
    asked = [ticks[0], ticks[0], ticks[3] - 1, ticks[3], ticks[3], ticks[49] + 10**9]
    assert [number for _, number in numbers(video, asked)] == [0, 0, 2, 3, 3, 49]
    assert double.asked == [0, 2, 3, 40, 49]
    assert (video.mode, double.options["seek_mode"], double.options["num_ffmpeg_threads"]) == ("exact", "exact", 1)


def test_no_picture_is_far_from_the_one_before_so_that_signs_of_life_come(
    make_video: MakeVideo, tmp_path: Path, double: Double
) -> None:
    path = os.fsencode(make_video(tmp_path / "a.mkv", gop=50))
    double.ticks, double.time_base = (line := pyav.open_video(path).timeline).ticks, line.time_base
    signs: list[int] = []
    video = decoder.open_video(path, alive=lambda: signs.append(1))
    before = len(signs)
    numbers(video, [int(video.timeline.ticks[45])])
    assert double.asked == [15, 31, 45]
    assert len(signs) - before == 2 * len(double.asked)  # of its work, and of reading


def test_a_frame_of_another_time_is_never_given(path: bytes, double: Double) -> None:
    double.lost = {23}
    video = decoder.open_video(path)
    ticks = video.timeline.ticks.tolist()
    assert [number for _, number in numbers(video, ticks[20:23])] == [20, 21, 22]
    with pytest.raises(Unreadable, match=r"gives a frame of 2\.400 s for frame 23"):
        numbers(video, [ticks[23]])


def test_a_file_of_which_it_counts_other_frames_is_refused(path: bytes, double: Double) -> None:
    double.too_few = 1
    with pytest.raises(Unreadable, match="counts 49 frames where 50 are shown"):
        decoder.open_video(path)


def test_a_file_that_it_would_turn_otherwise_is_refused(path: bytes, double: Double) -> None:
    double.metadata.rotation = 90.0
    with pytest.raises(Unreadable, match="turn its pictures upright"):
        decoder.open_video(path)


def test_what_it_says_is_told_in_a_line_without_places_in_its_source(path: bytes, double: Double) -> None:
    def fail(number: int) -> None:
        raise RuntimeError("decode_av_frame, /a/b c/SingleStreamDecoder.cpp:1493, Could not push packet: Invalid\nmore")

    double.on_asking = fail
    video = decoder.open_video(path)
    with pytest.raises(Unreadable, match=r"^torchcodec fails at frame 0: Could not push packet: Invalid$"):
        numbers(video, [0])


def test_an_error_of_the_disk_says_nothing_of_the_content(
    path: bytes, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = decoder.open_video(path)
    assert numbers(video, [0])

    def fail(size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(video._source, "_file", SimpleNamespace(read=fail, seek=lambda *_: 0))
    with pytest.raises(OSError, match="Input/output error"):
        numbers(video, [int(video.timeline.ticks[-1])])


def test_errors_that_are_logged_are_damage_from_where_they_may_lie(path: bytes, double: Double) -> None:
    def complain(number: int) -> None:
        double.complaints.count += number == 25

    double.on_asking = complain
    video = decoder.open_video(path)
    assert numbers(video, video.timeline.ticks.tolist()[:25])
    assert video.damage is None
    assert numbers(video, [int(video.timeline.ticks[25])])
    assert (video.damage, video.first_bad_s) == ("decoding: errors in the data of a picture", 2.5)


def test_errors_that_only_a_seek_brings_about_are_no_damage(path: bytes, double: Double) -> None:
    """Frames shown before a key frame may lean on pictures before it, which a seek leaves out."""

    def complain(number: int) -> None:
        double.complaints.count += number % 10 == 0 and (len(double.asked) < 2 or double.asked[-2] != number - 1)

    double.on_asking = complain
    video = decoder.open_video(path)
    ticks = video.timeline.ticks.tolist()
    assert [number for _, number in numbers(video, [ticks[32], ticks[45]])] == [32, 45]
    assert double.asked[:2] == [30, 20]
    assert double.asked[2:15] == [*range(21, 33), 40]
    assert (video.damage, video.first_bad_s) == (None, None)


def test_errors_that_are_there_without_a_seek_too_are_damage(path: bytes, double: Double) -> None:
    def complain(number: int) -> None:
        double.complaints.count += number == 30

    double.on_asking = complain
    video = decoder.open_video(path)
    assert numbers(video, [int(video.timeline.ticks[35])])
    assert video.first_bad_s == 3.0


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("suffix", [".ts", ".avi", ".mpg"])
def test_containers_that_it_gets_wrong_are_refused(suffix: str, make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"a{suffix}", fps=25)
    with pytest.raises(Unreadable, match="can't be trusted"):
        decoder.open_video(os.fsencode(path))


@pytest.mark.usefixtures("double")
def test_a_text_that_names_other_files_is_never_shown_to_it(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "script.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(NotVideo):
        decoder.open_video(os.fsencode(tmp_path / "script.mp4"))


@pytest.mark.usefixtures("double")
def test_noise_of_an_encrypted_file_is_not_shown(shared: Path) -> None:
    with pytest.raises(Unreadable, match="encrypted"):
        decoder.open_video(os.fsencode(shared / "videos_odd" / "encrypted_cenc.mp4"))


# Where it is missing


@pytest.fixture
def fresh() -> None:
    """Whether it is there is found out once for a process."""
    decoder._library.cache_clear()
    yield
    decoder._library.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_where_torchcodec_is_missing_it_can_be_listed_and_its_use_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "VERSIONS", {})
    assert "torchcodec" in available("decoders")
    assert load("decoders", "torchcodec") is decoder
    with pytest.raises(VidxError, match="torchcodec is not installed") as refused:
        decoder.open_video(b"a.mp4")
    assert "pyav" in refused.value.hint


@pytest.mark.usefixtures("fresh")
def test_where_ffmpeg_is_missing_its_use_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    without = SimpleNamespace(ffmpeg_major_version=None, core_library_path=None)
    monkeypatch.setitem(sys.modules, "torchcodec", without)
    monkeypatch.setattr(decoder, "VERSIONS", {"torchcodec": "0.17.0"})
    with pytest.raises(VidxError, match=r"^torchcodec needs FFmpeg's libraries: ") as refused:
        decoder.open_video(b"a.mp4")
    assert "pyav" in refused.value.hint


@pytest.mark.usefixtures("fresh")
def test_without_address_space_torch_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the process."""
    monkeypatch.setattr(decoder, "VERSIONS", {"torchcodec": "0.17.0"})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * 2**30, 4 * 2**30))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("the limit is not to be lifted"))
    with pytest.raises(MemoryError):
        decoder.open_video(b"a.mp4")


# What it really does


@pytest.fixture(scope="module")
def real() -> None:
    """Skips where torchcodec or FFmpeg's libraries are missing."""
    try:
        decoder._library()
    except VidxError as error:
        assert re.match("torchcodec (is not installed|needs FFmpeg's libraries)", str(error))  # noqa: PT017
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libraries are found in another way")
@pytest.mark.skipif(_SERVED in os.environ, reason="this is that run")
def test_where_the_system_has_no_ffmpeg_that_of_pyav_shows_all_this(tmp_path: Path) -> None:
    """PyAV's wheel has FFmpeg's libraries under names of its own; a folder of links gives them their usual ones."""
    carried = Path(av.__file__).parents[1] / "av.libs"
    if not decoder.VERSIONS or ctypes.util.find_library("avcodec") or not carried.is_dir():
        pytest.skip("torchcodec is not installed, or FFmpeg is, or PyAV carries none")
    for library in carried.iterdir():
        (tmp_path / library.name).symlink_to(library)
        if usual := re.fullmatch(r"(lib(?:av|sw)[a-z]+)-\w+(\.so\.\d+)[.\d]*", library.name):
            (tmp_path / (usual[1] + usual[2])).symlink_to(library)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), _SERVED: "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stdout
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 15


@pytest.mark.slow
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:bframes=3"}])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv"])
def test_every_frame_is_the_one_of_its_tick_in_any_order(
    suffix: str, options: dict[str, str], make_video: MakeVideo, tmp_path: Path
) -> None:
    video = decoder.open_video(os.fsencode(make_video(tmp_path / f"a{suffix}", options=options)))
    ticks = [int(tick) for tick in video.timeline.ticks]
    assert numbers(video, ticks) == list(zip(ticks, range(50), strict=True))
    for number in np.random.default_rng(0).permutation(50)[:12]:
        assert numbers(video, [ticks[number]]) == [(ticks[number], number)]
    assert (video.damage, video.first_bad_s) == (None, None)
    assert set(decoder.VERSIONS) == {"torchcodec", "av", "ffmpeg"}


@pytest.mark.slow
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_come_upright_and_the_facts_say_how(rotation: int, make_video: MakeVideo, tmp_path: Path) -> None:
    def left_half_white(_number: int, size: tuple[int, int]) -> np.ndarray:
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[: size[1] // 4, : size[0] // 2] = 255
        return picture

    path = os.fsencode(make_video(tmp_path / "a.mp4", rotation=rotation, draw=left_half_white, n_frames=3))
    videos = [module.open_video(path) for module in (decoder, pyav)]
    assert videos[0].facts == videos[1].facts
    assert videos[0].facts.rotation == rotation
    pictures = [next(video.frames_at([0]))[1].pixels(_PX).astype(int) for video in videos]
    assert np.abs(pictures[0] - pictures[1]).mean() < _SAME_PICTURE


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_a_picture_far_larger_than_needed_is_shrunk_as_it_is_decoded(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", n_frames=2, size=(4096, 2304), options={"preset": "ultrafast"}, rotation=90)
    video = decoder.open_video(os.fsencode(path))
    _, frame = next(video.frames_at([0]))
    assert (frame.frame.width, frame.frame.height) == (1920, 1080)
    assert (video.facts.width, video.facts.height) == (4096, 2304)
    assert len(frame.thumbnail()) <= 4096


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_a_lost_frame_is_not_replaced_by_another(make_video: MakeVideo, tmp_path: Path) -> None:
    """The data of a frame become filler, which is valid and shows nothing."""
    path = make_video(tmp_path / "a.mp4", options={"bf": "0"})
    content = bytearray(path.read_bytes())
    packet = packet_of(path, 23)
    at = content.index(bytes(packet))
    content[at : at + packet.size] = struct.pack(">IB", packet.size - 4, 12) + b"\xff" * (packet.size - 6) + b"\x80"
    path.write_bytes(content)
    video = decoder.open_video(os.fsencode(path))
    ticks = video.timeline.ticks.tolist()
    assert [number for _, number in numbers(video, ticks[:23])] == list(range(23))
    with pytest.raises(Unreadable, match=r"^torchcodec (fails at|gives a frame of .* for) frame 23"):
        numbers(video, ticks[23:])


def packet_of(path: Path, number: int) -> av.Packet:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size][number]


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_damage_that_is_concealed_is_told(make_video: MakeVideo, tmp_path: Path) -> None:
    def noise(number: int, size: tuple[int, int]) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)

    path = make_video(tmp_path / "a.mp4", size=(320, 240), options={"bf": "0", "x264-params": "cabac=1"}, draw=noise)
    packet = packet_of(path, 33)
    content = bytearray(path.read_bytes())
    middle = packet.pos + packet.size // 2
    content[middle : middle + 200] = bytes(range(200))
    path.write_bytes(content)
    video = decoder.open_video(os.fsencode(path))
    assert video.damage is None
    assert len(list(video.frames_at(video.timeline.ticks.tolist()))) == 50
    assert (video.damage, video.first_bad_s) == ("decoding: errors in the data of a picture", 3.3)


@pytest.mark.slow
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("name", [b"colon:in:name.mp4", b"caf\xe9.mp4", b"percent_%03d.mp4", b"line\n.mp4"])
def test_a_strange_name_is_only_a_name(make_video: MakeVideo, tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(make_video(tmp_path / "a.mp4", n_frames=5), path)
    video = decoder.open_video(path)
    assert [number for _, number in numbers(video, video.timeline.ticks.tolist())] == list(range(5))


@pytest.mark.slow
@pytest.mark.usefixtures("real")
@pytest.mark.skipif(sys.platform != "linux", reason="others don't hold to the limit")
def test_a_process_with_a_limit_gets_room_for_the_libraries_and_ends_well(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    """Though the video is never closed, and damaged, so that FFmpeg may have something to say at the very end."""
    path = make_video(tmp_path / "a.mp4", n_frames=20)
    packet = packet_of(path, 15)
    content = bytearray(path.read_bytes())
    content[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path.write_bytes(content)
    code = (
        "import os, resource, sys; from vidx.decoders import torchcodec\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n"
        "video = torchcodec.open_video(os.fsencode(sys.argv[1]))\n"
        "frames = video.frames_at(video.timeline.ticks.tolist())\n"
        "print(next(frames)[1].tick)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "0\n"), run.stderr


def burned_number(picture) -> int:
    """The number burned into the top left corner of a picture as it is coded."""
    grey = picture.frame.to_ndarray(format="gray")
    bits = [int(grey[4:12, 16 * at + 4 : 16 * at + 12].mean() > 127) for at in range(16)]
    assert bits[:4] == [1, 0, 1, 0]
    return int("".join(map(str, bits[4:])), 2)


@pytest.mark.slow
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("name", ["vfr.mp4", "opengop.mp4", "editlist_cut.mp4", "wmv2.wmv", "intra_refresh.mp4"])
def test_frames_of_an_odd_file_are_the_same_in_order_and_by_seeks(name: str, shared: Path) -> None:
    video = decoder.open_video(os.fsencode(shared / "videos_odd" / name))
    ticks = video.timeline.ticks.tolist()
    first = _FIRST_NUMBER.get(name, 0)
    in_order = [(frame.tick, burned_number(frame), frame.frame.to_ndarray()) for _, frame in video.frames_at(ticks)]
    assert [shown[:2] for shown in in_order] == [(tick, first + place) for place, tick in enumerate(ticks)]
    for place in random.Random(0).sample(range(len(ticks)), 8):
        ((_, frame),) = video.frames_at([ticks[place]])
        assert frame.tick == ticks[place]
        assert np.array_equal(frame.frame.to_ndarray(), in_order[place][2])
    assert (video.damage, video.first_bad_s) == (None, None)


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_no_odd_file_gives_a_wrong_frame(shared: Path) -> None:
    """Six frames of each, in any order: right by the number burned in, or the file is refused or said to be damaged."""
    read = set()
    for row in csv.DictReader((shared / "videos_odd" / "MANIFEST.csv").open(encoding="utf-8")):
        name = row["path"]
        if name.startswith("huge"):  # takes a second for each frame
            continue
        try:
            video = decoder.open_video(os.fsencode(shared / "videos_odd" / name))
            ticks = video.timeline.ticks.tolist()
            for place in random.Random(name).sample(range(len(ticks)), min(6, len(ticks))):
                ((_, frame),) = video.frames_at([ticks[place]])
                assert frame.tick == ticks[place]
                if row["burned_numbers"] == "yes" and row["class"] != "partial":
                    number = _FIRST_NUMBER.get(name, 0) + (place % 144 if "720" in name else place)
                    assert burned_number(frame) == number, name
        except MediaError as error:
            assert str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            continue
        assert video.damage is None or row["class"] == "partial", name
        read.add(name)
    assert read >= {"plain.mp4", "rot90.mp4", "hevc10.mp4", "vp9.webm", "wmv2.wmv", "flv1.flv", "late_video.mp4"}
    assert not any(name.endswith((".ts", ".mpg", ".avi")) for name in read)


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_real_videos_look_as_they_do_with_the_first_decoder(shared: Path) -> None:
    """Three frames of every eighth: the same ticks, nearly the same pixels, and all the same facts."""
    preprocess = Preprocess(short_side_px=292, crop_px=260)
    paths = sorted((shared / "videos").glob("*/*.m[pko]*"))[::8]
    for path in paths:
        video, other = (module.open_video(os.fsencode(path)) for module in (decoder, pyav))
        ticks = video.timeline.ticks
        chosen = [int(ticks[round(at)]) for at in np.linspace(0, len(ticks) - 1, 3)]
        for (_, one), (_, two) in zip(video.frames_at(chosen), other.frames_at(chosen), strict=True):
            difference = np.abs(one.pixels(preprocess).astype(int) - two.pixels(preprocess)).mean()
            assert one.tick == two.tick
            assert difference < _ALMOST_THE_SAME, path
        assert video.facts == other.facts
    assert len(paths) >= 5
