"""The second decoder: the right frames where it accepts a file, and a refusal where it would give wrong ones."""

from __future__ import annotations

import csv
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from vidx.decoders import OpenVideo, decord, pyav
from vidx.errors import MediaError, NotVideo, Unreadable, VidxError
from vidx.plugins import available, load
from vidx.schema.records import Preprocess

pytest.importorskip("decord", reason="decord has no wheel for this platform")

MakeVideo = Callable[..., Path]
_PX = Preprocess(short_side_px=48, crop_px=48)
_SAME_PICTURE = 12  # mean difference of 256 levels: other versions of the decoder, another way to RGB
_ALMOST_THE_SAME = 2.5
_ODD = Path(__file__).parents[2] / "shared" / "videos_odd"
_ROWS = list(csv.DictReader((_ODD / "MANIFEST.csv").open(encoding="utf-8"))) if _ODD.exists() else []
_BY_NAME = {row["path"]: row for row in _ROWS}
# Of the odd files with burned numbers those that decord reads; of all others it gives no frame.
_READ = [
    *("plain.mp4", "moov_at_end.mp4", "fragmented.mp4", "vfr.mp4", "vfr_gap.mkv", "sar_4_3.mp4", "odd_dims_vp9.webm"),
    *("rot90.mp4", "rot180.mp4", "rot270.mp4", "hevc10.mp4", "hdr_pq.mp4", "vp9.webm", "alpha_vp9.webm"),
    *("h264_interlaced.mp4", "gray.mp4", "yuv444.mp4", "opengop.mp4", "intra_refresh.mp4", "late_video.mp4"),
    *("no_editlist_bframes.mp4", "one_frame.mp4", "one_frame.mkv", "short_200ms.mp4", "UPPER.MP4", "no_extension"),
    *(".hidden.mp4", "mkv_named.mp4", "audio_first.mp4", "duration_lies_x1000.mp4", "six_hours_13_frames.mp4"),
    *("six_hours_720_frames.mkv", "fps_1000.mp4"),
]
# The others that it reads; the first two are damaged, and it says so.
_READ_TOO = [
    *(
        "cut_middle.mkv",
        "bitflip_1e-5.mp4",
        "all_black.mp4",
        "huge_8192x4320.mp4",
        "prores.mov",
        "real_h265_10bits.mp4",
    ),
    *("real_phone_rot90.mov", "real_phone_rot270.mov", "real_unordered.mov"),
]


def numbers(video: OpenVideo, ticks: list[int]) -> list[tuple[int, int]]:
    """Ticks of the frames shown, and the numbers that are burned into them as grey levels of 5 each."""
    return [(frame.tick, round(float(frame.pixels(_PX).mean()) / 5)) for _, frame in video.frames_at(ticks)]


@pytest.mark.parametrize("options", [{}, {"bf": "3"}, {"x264-params": "open-gop=1:bframes=3"}])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_every_frame_is_the_one_of_its_tick(
    suffix: str, options: dict[str, str], make_video: MakeVideo, tmp_path: Path
) -> None:
    video = decord.open_video(os.fsencode(make_video(tmp_path / f"a{suffix}", options=options)))
    ticks = [int(tick) for tick in video.timeline.ticks]
    assert numbers(video, ticks) == list(zip(ticks, range(50), strict=True))
    for number in np.random.default_rng(0).permutation(50)[:8]:
        assert numbers(video, [ticks[number]]) == [(ticks[number], number)]


def test_between_two_ticks_the_earlier_frame_is_shown(make_video: MakeVideo, tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 500, 2500, 2540]
    video = decord.open_video(os.fsencode(make_video(tmp_path / "a.mkv", pts=times_ms)))
    ticks = [int(tick) for tick in video.timeline.ticks]
    asked = [ticks[0], ticks[3] - 1, ticks[3], ticks[4] - 1, ticks[5]]
    assert [number for _, number in numbers(video, asked)] == [0, 2, 3, 3, 5]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_come_upright_and_the_facts_say_how(rotation: int, make_video: MakeVideo, tmp_path: Path) -> None:
    def left_half_white(_number: int, size: tuple[int, int]) -> np.ndarray:
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[:, : size[0] // 2] = 255
        return picture

    path = os.fsencode(make_video(tmp_path / "a.mp4", rotation=rotation, draw=left_half_white, n_frames=3))
    videos = [module.open_video(path) for module in (decord, pyav)]
    assert [video.facts.rotation for video in videos] == [rotation, rotation]
    pictures = [next(video.frames_at([0]))[1].pixels(_PX).astype(int) for video in videos]
    assert np.abs(pictures[0] - pictures[1]).mean() < _SAME_PICTURE


@pytest.mark.slow
def test_a_picture_far_larger_than_needed_is_shrunk_as_it_is_decoded(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", n_frames=2, size=(4096, 2304), options={"preset": "ultrafast"})
    video = decord.open_video(os.fsencode(path))
    _, frame = next(video.frames_at([0]))
    assert (frame.frame.width, frame.frame.height) == (1920, 1080)
    assert (video.facts.width, video.facts.height) == (4096, 2304)
    assert len(frame.thumbnail()) <= 4096


def test_signs_of_life_come_for_frames_that_are_passed_over_too(make_video: MakeVideo, tmp_path: Path) -> None:
    signs: list[int] = []
    path = os.fsencode(make_video(tmp_path / "a.mp4"))
    video = decord.open_video(path, alive=lambda: signs.append(1))
    before = len(signs)
    list(video.frames_at([int(video.timeline.ticks[-1])]))
    assert len(signs) - before == 50


@pytest.mark.parametrize("suffix", [".ts", ".avi", ".mpg"])
def test_containers_that_it_gets_wrong_are_refused(suffix: str, make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"a{suffix}", fps=25)
    with pytest.raises(Unreadable, match="can't be trusted"):
        decord.open_video(os.fsencode(path))


def test_a_text_that_names_other_files_is_never_shown_to_it(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "script.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(NotVideo):
        decord.open_video(os.fsencode(tmp_path / "script.mp4"))


def burned_number(picture) -> int:
    """The number burned into the top left corner of a picture as it is coded."""
    grey = picture.frame.to_ndarray(format="gray")
    bits = [int(grey[4:12, 16 * at + 4 : 16 * at + 12].mean() > 127) for at in range(16)]
    assert bits[:4] == [1, 0, 1, 0]
    return int("".join(map(str, bits[4:])), 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", _READ if _ROWS else [])
def test_an_odd_file_that_it_reads_gives_the_frames_of_its_ticks_in_any_order(name: str) -> None:
    video = decord.open_video(os.fsencode(_ODD / name), threads=2)
    ticks = video.timeline.ticks.tolist()
    shown = [(frame.tick, burned_number(frame)) for _, frame in video.frames_at(ticks)]
    assert shown == [(tick, number % 144 if "720" in name else number) for number, tick in enumerate(ticks)]
    assert len(ticks) == int(_BY_NAME[name]["ffprobe_frames"])
    for place in random.Random(0).sample(range(len(ticks)), min(5, len(ticks))):
        ((_, frame),) = video.frames_at([ticks[place]])
        assert (frame.tick, burned_number(frame)) == shown[place]
    assert (video.damage, video.first_bad_s) == (None, None)


def whole_ticks(video: OpenVideo) -> list[int]:
    return [tick for tick, _ in video.frames_at(video.timeline.ticks.tolist())]


@pytest.mark.slow
def test_every_other_odd_file_is_refused_or_says_what_is_damaged(shared: Path) -> None:
    read = []
    for name in sorted(set(_BY_NAME) - set(_READ)):
        try:
            video = decord.open_video(os.fsencode(shared / "videos_odd" / name), threads=2)
            assert whole_ticks(video) == video.timeline.ticks.tolist()
        except MediaError as error:
            assert str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            continue
        read.append(name)
        assert (video.damage is not None) == (_BY_NAME[name]["class"] == "partial"), name
    assert read == sorted(_READ_TOO)


@pytest.mark.slow
def test_real_videos_look_as_they_do_with_the_first_decoder(shared: Path) -> None:
    """Eight frames of each: the same ticks, nearly the same pixels, and all the same facts."""
    preprocess = Preprocess(short_side_px=292, crop_px=260)
    read = 0
    for path in sorted((shared / "videos").glob("*/*.m[pko]*"))[::3]:  # all agreed, at 35 s
        try:
            video = decord.open_video(os.fsencode(path), threads=2)
        except Unreadable as error:
            assert "74 frames where 56 are shown" in str(error)  # noqa: PT017
            continue
        other, ticks = pyav.open_video(os.fsencode(path), threads=2), video.timeline.ticks
        chosen = [int(ticks[round(at)]) for at in np.linspace(0, len(ticks) - 1, 8)]
        for (_, one), (_, two) in zip(video.frames_at(chosen), other.frames_at(chosen), strict=True):
            difference = np.abs(one.pixels(preprocess).astype(int) - two.pixels(preprocess)).mean()
            assert one.tick == two.tick
            assert difference < _ALMOST_THE_SAME, path
        assert video.facts == other.facts
        read += 1
    assert read > 11


def test_noise_of_an_encrypted_file_is_not_shown(shared: Path) -> None:
    with pytest.raises(Unreadable, match="encrypted"):
        decord.open_video(os.fsencode(shared / "videos_odd" / "encrypted_cenc.mp4"))


# What can't be proved is refused, and what is damaged is told


def test_a_file_whose_pictures_change_their_size_is_refused(make_video: MakeVideo, tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{width}.ts", n_frames=10, size=(width, 48)) for width in (64, 96)]
    path = tmp_path / "changes.mkv"
    with av.open(str(path), "w") as container:
        stream = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as source:
                stream = stream or container.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        packet.pts += 90_000 * number
                        packet.dts += 90_000 * number
                        container.mux(packet)
    assert len(pyav.open_video(os.fsencode(path)).timeline.ticks) == 20
    with pytest.raises(Unreadable, match="size may change"):
        decord.open_video(os.fsencode(path))


def test_frames_that_an_edit_list_hides_are_refused(shared: Path) -> None:
    with pytest.raises(Unreadable, match="would count 150 frames where 117 are shown"):
        decord.open_video(os.fsencode(shared / "videos_odd" / "editlist_cut.mp4"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_lost_frame_shows_in_the_count_and_nothing_is_trusted(
    suffix: str, make_video: MakeVideo, tmp_path: Path
) -> None:
    """The data of a frame become filler, which is valid and shows nothing."""
    path = make_video(tmp_path / f"a{suffix}", options={"bf": "0"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][23]
    content = bytearray(path.read_bytes())
    at = content.index(bytes(packet))
    content[at : at + packet.size] = struct.pack(">IB", packet.size - 4, 12) + b"\xff" * (packet.size - 6) + b"\x80"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match="decord fails at frame"):
        whole_ticks(decord.open_video(os.fsencode(path)))


@pytest.mark.slow
def test_damage_that_decord_conceals_is_told(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", size=(320, 240), options={"bf": "0", "x264-params": "cabac=1"}, draw=noise)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
    content = bytearray(path.read_bytes())
    middle = packet.pos + packet.size // 2
    content[middle : middle + 200] = bytes(range(200))
    path.write_bytes(content)
    video = decord.open_video(os.fsencode(path))
    assert video.damage is None
    assert whole_ticks(video) == video.timeline.ticks.tolist()
    assert video.damage == "decoding: errors in the data of a picture"
    assert 2.0 <= video.first_bad_s <= 3.0


def noise(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)


@pytest.mark.parametrize(
    "name", [b"colon:in:name.mp4", b"caf\xe9.mp4", b"percent_%03d.mp4", b"-dash.mp4", b"line\n.mp4"]
)
def test_a_strange_name_is_only_a_name(make_video: MakeVideo, tmp_path: Path, name: bytes) -> None:
    if sys.platform != "linux" and not name.isascii():
        pytest.skip("decord takes UTF-8 only, and other systems have no second name for an open file")
    path = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(make_video(tmp_path / "a.mp4"), path)
    assert len(whole_ticks(decord.open_video(path))) == 50


def test_where_decord_is_missing_it_can_be_listed_and_its_use_says_so(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decord, "VERSIONS", {})
    decord._library.cache_clear()
    assert "decord" in available("decoders")
    assert load("decoders", "decord") is decord
    with pytest.raises(VidxError, match="decord is not installed") as refused:
        decord.open_video(os.fsencode(make_video(tmp_path / "a.mp4")))
    assert "pyav" in refused.value.hint


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_huge_picture_takes_a_bounded_memory(shared: Path) -> None:
    """24 pictures of 8192 x 4320; in RGB each is 106 MB."""
    code = (
        "import os, sys; from vidx.decoders import decord; from vidx.schema.records import Preprocess\n"
        "video = decord.open_video(os.fsencode(sys.argv[1]))\n"
        "for _, frame in video.frames_at(video.timeline.ticks.tolist()): frame.pixels(Preprocess(292, 260))\n"
        "print(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-c", code, shared / "videos_odd" / "huge_8192x4320.mp4"]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak_kb = int(status.partition("VmHWM:")[2].split()[0])
    assert peak_kb < 500_000
