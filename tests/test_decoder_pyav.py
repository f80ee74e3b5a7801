"""The PyAV decoder on generated videos and on the shared odd files, whose frames carry their number in the pixels."""

from __future__ import annotations

import csv
import ctypes
import io
import os
import random
import re
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vidx.decoders._packets import raise_what_is_not_the_content
from vidx.decoders.pyav import PyAVVideo, open_video
from vidx.errors import MediaError, NotVideo, Unreadable
from vidx.schema.records import Preprocess

_ODD = Path(__file__).parents[2] / "shared" / "videos_odd"
_SQUARE = Preprocess(short_side_px=48, crop_px=48)

_MANIFEST = _ODD / "MANIFEST.csv"
_ROWS = list(csv.DictReader(_MANIFEST.open(encoding="utf-8"))) if _MANIFEST.exists() else []
_NUMBERED = [row["path"] for row in _ROWS if row["class"] == "index" and row["burned_numbers"] == "yes"]
_BY_NAME = {row["path"]: row for row in _ROWS}

# Frame numbers that are not 0, 1, 2 ... up to the number of frames. Of the joined parts of size_change.ts the first two
# frames of the second have the times of the last two of the first.
_NUMBERS = {
    "editlist_cut.mp4": [*range(33, 150)],
    "editlist_skip_1s.mp4": [*range(25, 150)],
    "six_hours_720_frames.mkv": [number % 144 for number in range(720)],
    "mpeg2_interlaced.mpg": [number for number in range(0, 150, 2) if number != 104],
    "size_change.ts": [*range(75), *range(2, 75)],
}
_FIRST_S = {"late_video.mp4": 2.0, "asp_bframes.avi": 0.04, "odd_dims_mpeg4.avi": 0.04}
_NO_TIMES_INSIDE = {"asp_bframes.avi", "odd_dims_mpeg4.avi"}  # times of B-frames in AVI are the demuxer's guess


def opened(path: Path | bytes) -> PyAVVideo:
    return open_video(os.fsencode(path))


def grey_number(picture) -> int:
    """The number of a frame that `flat_grey` drew."""
    return round(float(picture.pixels(_SQUARE).mean()) / 5)


def burned_number(picture) -> int | None:
    """The number burned into a frame, read where its coded picture holds it."""
    grey = picture.frame.to_ndarray(format="gray")
    across, down = (1.5, 272 / 240) if picture.frame.width == 480 else (1, 1)  # size_change.ts
    bits = [
        int(
            grey[int(4 * down) : int(12 * down), int((16 * at + 4) * across) : int((16 * at + 12) * across)].mean()
            > 127
        )
        for at in range(16)
    ]
    number = int("".join(map(str, bits[4:])), 2)
    return number if bits[:4] == [1, 0, 1, 0] else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def plain(make_video, folder):
    """50 flat grey frames, 10 a second, a key frame every 10, B-frames."""
    return make_video(folder / "plain.mp4")


# Times and seeking


def test_every_frame_comes_at_its_own_time(plain):
    video = opened(plain)
    shown = list(video.frames_at(video.timeline.ticks))
    assert [grey_number(picture) for _, picture in shown] == list(range(50))
    assert [picture.tick for _, picture in shown] == [tick for tick, _ in shown] == list(video.timeline.ticks)
    assert video.timeline.seconds(video.timeline.ticks) == pytest.approx([number / 10 for number in range(50)])
    assert (video.damage, video.first_bad_s) == (None, None)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_keeps_its_true_times(make_video, tmp_path, suffix):
    times_ms = [0, 40, 80, 500, 1000, 1010, 1020, 9000, 9100, 9500]
    video = opened(make_video(tmp_path / f"variable.{suffix}", pts=times_ms))
    assert video.timeline.seconds(video.timeline.ticks) == pytest.approx([time_ms / 1000 for time_ms in times_ms])
    instants_s = {0.0: 0, 0.039: 0, 0.06: 1, 0.499: 2, 0.75: 3, 5.0: 6, 8.999: 6, 9.0: 7, 9.6: 9}
    ticks = [round(time_s / video.timeline.time_base) for time_s in instants_s]
    assert [grey_number(picture) for _, picture in video.frames_at(ticks)] == list(instants_s.values())


@pytest.fixture(
    scope="module", params=["plain.mp4", "plain.mkv", "plain.ts", "open_gop.mp4", "one_key.mkv", "variable.mp4"]
)
def sought(request, make_video, folder):
    """Videos that are hard to seek in, open all through the module."""
    options = {"x264-params": "open-gop=1:bframes=4:b-adapt=0"} if "open_gop" in request.param else None
    pts = [number * number * 10 for number in range(40)] if "variable" in request.param else None
    gop = 1000 if "one_key" in request.param else 10
    path = make_video(folder / f"sought_{request.param}", gop=gop, pts=pts, options=options)
    video = opened(path)
    yield video
    video.close()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_seek_to_any_instant_gives_the_frame_on_screen_then(sought, data):
    line = sought.timeline
    instants = st.integers(int(line.ticks[0]) - 10, line.end_tick + 10)
    ticks = sorted(data.draw(st.lists(instants, min_size=1, max_size=6)))
    expected = [max(0, int(np.searchsorted(line.ticks, tick, side="right")) - 1) for tick in ticks]
    shown = list(sought.frames_at(ticks))
    assert [tick for tick, _ in shown] == ticks
    assert [grey_number(picture) for _, picture in shown] == expected
    assert [picture.tick for _, picture in shown] == [line.ticks[at] for at in expected]


def test_sound_that_starts_first_moves_the_first_frame(tmp_path):
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=10), container.add_stream("pcm_s16le", rate=8000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 4), np.int16), format="s16", layout="mono")
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = 15 + number, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    facts = opened(path).facts
    assert (facts.first_s, facts.duration_s) == (pytest.approx(1.5), pytest.approx(3.5))
    assert facts.has_audio
    assert facts.time_origin_s == 0


def test_a_clock_that_starts_at_an_hour_is_counted_from_its_start(make_video, tmp_path):
    video = opened(make_video(tmp_path / "hour.ts", pts=[3_600_000 + 100 * number for number in range(10)]))
    assert (video.facts.first_s, video.facts.duration_s) == (pytest.approx(0), pytest.approx(1.0, abs=0.01))
    assert video.facts.time_origin_s >= 3600


def test_the_facts_are_those_of_the_file(plain):
    facts = opened(plain).facts
    assert (facts.container, facts.codec, facts.pixel_format) == ("mov", "h264", "yuv420p")
    assert (facts.width, facts.height, facts.rotation, facts.sar_num, facts.sar_den) == (64, 48, 0, 1, 1)
    assert (facts.n_frames, facts.stream_index, facts.has_audio) == (50, 0, False)
    assert (facts.first_s, facts.duration_s, facts.frame_rate) == (0, pytest.approx(5), pytest.approx(10))
    assert facts.size_bytes == plain.stat().st_size


# Pictures


_CORNERS = np.array([[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 250)]], np.uint8)  # top row, bottom row


def draw_corners(_number, size):
    return np.repeat(np.repeat(_CORNERS, size[1] // 2, axis=0), size[0] // 2, axis=1)


def corners_of(rgb):
    """Colours in the middle of the four quarters, rounded to 0 or 250."""
    height, width = rgb.shape[:2]
    picked = rgb[[height // 4, 3 * height // 4]][:, [width // 4, 3 * width // 4]]
    return (picked > 125) * np.uint8(250)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_picture_stored_on_its_side_is_turned_upright(make_video, tmp_path, rotation):
    path = make_video(tmp_path / "turned.mp4", n_frames=3, size=(96, 48), rotation=rotation, draw=draw_corners)
    video = opened(path)
    ((_, picture),) = video.frames_at([0])
    expected = np.rot90(_CORNERS, rotation // 90)  # counterclockwise
    thumbnail = Image.open(io.BytesIO(picture.thumbnail()))
    assert video.facts.rotation == rotation
    assert corners_of(picture.pixels(_SQUARE)).tolist() == expected.tolist()
    assert thumbnail.size == ((96, 48) if rotation % 180 == 0 else (48, 96))
    assert corners_of(np.asarray(thumbnail)).tolist() == expected.tolist()


def test_pixels_that_are_not_square_are_made_square(make_video, tmp_path):
    """64 x 48 pixels, each twice as wide as high: of the 128 x 48 shown, the middle 48 columns are 24 stored ones."""

    def draw(_number, size):
        rgb = np.zeros((size[1], size[0], 3), np.uint8)
        rgb[:, 18:46] = 250
        return rgb

    path = make_video(tmp_path / "wide.mp4", n_frames=3, draw=draw, options={"x264-params": "sar=2/1"})
    video = opened(path)
    ((_, picture),) = video.frames_at([0])
    assert (video.facts.sar_num, video.facts.sar_den) == (2, 1)
    assert picture.pixels(_SQUARE).min() > 200
    assert Image.open(io.BytesIO(picture.thumbnail())).size == (128, 48)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (640, 360), (1024, 32), (32, 1024)])
@pytest.mark.parametrize("shrink_to", [0, 2])
def test_pixels_have_the_size_the_encoder_asked_for(make_video, tmp_path, size, shrink_to):
    path = make_video(tmp_path / "sized.mp4", n_frames=1, size=size, draw=draw_corners)
    ((_, picture),) = opened(path).frames_at([0])
    pixels = picture.pixels(Preprocess(short_side_px=72, crop_px=64, shrink_to=shrink_to))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
    assert corners_of(pixels).tolist() == _CORNERS.tolist()


def test_resizing_agrees_with_pillow_at_full_size(make_video, tmp_path):
    def draw(_number, size):
        rows, columns = np.mgrid[: size[1], : size[0]]
        waves = [np.sin(columns / 9), np.cos(rows / 7), np.sin((rows + columns) / 11)]
        return (127 + 100 * np.stack(waves, axis=2)).astype(np.uint8)

    path = make_video(tmp_path / "waves.mp4", n_frames=1, size=(320, 240), draw=draw, options={"crf": "1"})
    ((_, picture),) = opened(path).frames_at([0])
    resized = Image.fromarray(draw(0, (320, 240))).resize((133, 100), Image.Resampling.BICUBIC)
    expected = np.asarray(resized)[2:98, 18:114].astype(int)  # round(18.5) is 18
    exact = picture.pixels(Preprocess(short_side_px=100, crop_px=96, shrink_to=0)).astype(int)
    shrunk = picture.pixels(Preprocess(short_side_px=100, crop_px=96, shrink_to=2)).astype(int)
    assert np.abs(exact - expected).mean() < 3
    assert np.abs(shrunk - expected).mean() < 4


@pytest.mark.parametrize("size", [(64, 48), (640, 480), (2048, 16), (16, 2048), (160, 160)])
def test_a_thumbnail_of_noise_is_still_small(make_video, tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path = make_video(tmp_path / "noise.mp4", n_frames=1, size=size, draw=lambda _number, _size: noise)
    ((_, picture),) = opened(path).frames_at([0])
    thumbnail = picture.thumbnail()
    image = Image.open(io.BytesIO(thumbnail))
    image.load()
    assert len(thumbnail) <= 4096
    assert image.format == "JPEG"
    assert max(image.size) <= 160


# Names, and files that are no videos


@pytest.mark.parametrize(
    "name",
    [
        b"-leading-dash.mp4",
        b"colon:in:name.mp4",
        b"http:name.mp4",
        b"concat:a.mp4|b.mp4",
        b"percent_%03d_%s.mp4",
        b"glob[1]*{a,b}?.mp4",
        b"line\nbreak.mp4",
        b'quote\'s "double".mp4',
        b"caf\xe9.mp4",
        "动画 🎬.mp4".encode(),
        b"n" * 251 + b".mp4",
        b"no_extension",
        b"wrong.txt",
    ],
)
def test_a_strange_name_is_only_a_name(plain, tmp_path, monkeypatch, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    try:
        shutil.copyfile(os.fsencode(plain), path)
    except OSError:
        pytest.skip("this file system does not take the name")
    monkeypatch.chdir(tmp_path)
    assert open_video(path).facts.n_frames == 50
    assert open_video(name).facts.n_frames == 50


class Opens:
    """Counts how often a file is opened, by any code of any process (Linux inotify)."""

    _IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._fd, os.fsencode(path), self._IN_OPEN) >= 0

    def seen(self) -> bool:
        try:
            return bool(os.read(self._fd, 65536))
        except BlockingIOError:
            return False


@pytest.mark.skipif(sys.platform != "linux", reason="watches files with inotify")
@pytest.mark.parametrize(
    "script",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{name}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{uri}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {name}\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        'bandwidth="1"><BaseURL>{name}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    ],
    ids=["hls", "hls_uri", "concat", "concat_absolute", "dash", "sdp"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".mpd", ".sdp"])
def test_a_script_opens_no_other_file(plain, tmp_path, script, suffix):
    target = shutil.copyfile(plain, tmp_path / "target.mp4")
    path = tmp_path / f"script{suffix}"
    path.write_text(script.format(name=target.name, path=target, uri=target.as_uri()))
    opens = Opens(target)
    with pytest.raises(NotVideo, match="not a video container"):
        opened(path)
    assert not opens.seen()
    target.read_bytes()
    assert opens.seen()  # the watch does see


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"x" * 1000, "not a video container"), (b"\n", "not a video")]
)
def test_what_is_no_container_is_not_video(tmp_path, content, reason):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(NotVideo, match=reason):
        opened(tmp_path / "a.mp4")


def test_a_file_that_is_not_there_is_the_disks_trouble_and_not_the_contents(tmp_path):
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "gone.mp4")


def test_a_cut_mp4_without_its_index_is_unreadable(plain, tmp_path):
    content = plain.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(Unreadable, match="index is missing"):
        opened(path)


def test_a_cut_matroska_file_gives_what_is_there_and_says_so(make_video, tmp_path):
    whole, path = make_video(tmp_path / "whole.mkv"), tmp_path / "cut.mkv"
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    path.write_bytes(whole.read_bytes()[: positions[25]])
    video = opened(path)
    numbers = [grey_number(picture) for _, picture in video.frames_at(video.timeline.ticks)]
    assert len(numbers) == 25
    assert numbers[:20] == list(range(20))
    assert re.fullmatch(r"the file is cut: it announces \d+ bytes and holds \d+", video.damage)
    assert 2.0 <= video.first_bad_s <= 3.0


# The shared odd files


@pytest.mark.slow
@pytest.mark.parametrize("name", _NUMBERED)
def test_a_good_odd_file_gives_its_frames_in_any_order(name):
    """Sequential decoding gives the burned numbers in order; seeking in any order gives the same frames."""
    row, video = _BY_NAME[name], opened(_ODD / name)
    line = video.timeline
    expected = _NUMBERS.get(name, list(range(int(row["ffprobe_frames"]))))
    mask = ~1 if name == "mpeg2_interlaced.mpg" else ~0  # its lowest bit is half of one field, half of the other
    chance = random.Random(0)
    sample = chance.sample(line.ticks.tolist(), min(10, len(line.ticks)))
    sequential, sampled_pixels = {}, {}
    for tick, picture in video.frames_at(line.ticks.tolist()):
        sequential[tick] = (picture.tick, burned_number(picture))
        if tick in sample:
            sampled_pixels[tick] = picture.pixels(_SQUARE)
    assert [number & mask for _, number in sequential.values()] == expected
    assert [own for own, _ in sequential.values()] == list(sequential) == line.ticks.tolist()
    assert (video.damage, video.first_bad_s) == (None, None)
    for tick in sample:
        ((_, picture),) = video.frames_at([tick])
        assert (picture.tick, burned_number(picture)) == sequential[tick]
        assert np.array_equal(picture.pixels(_SQUARE), sampled_pixels[tick])


@pytest.mark.parametrize("name", [row["path"] for row in _ROWS if row["class"] == "index"])
def test_a_good_odd_file_has_the_times_and_size_of_the_manifest(name):
    row, video = _BY_NAME[name], opened(_ODD / name)
    facts, line = video.facts, video.timeline
    length_s = float(row["last_time_s"]) - float(row["first_time_s"])
    frame_s = length_s / max(1, int(row["ffprobe_frames"]) - 1) + 0.001
    last_s = float(line.seconds(line.ticks[-1]))
    assert facts.first_s == pytest.approx(_FIRST_S.get(name, 0.0), abs=0.001)
    assert last_s - facts.first_s == pytest.approx(length_s, abs=frame_s if name in _NO_TIMES_INSIDE else 0.002)
    assert last_s < facts.duration_s <= last_s + max(1.0, frame_s)
    assert facts.n_frames == len(_NUMBERS.get(name, range(int(row["ffprobe_frames"]))))
    assert (facts.width, facts.height) == (int(row["width"]), int(row["height"]))


@pytest.mark.parametrize("codec", sorted({row["codec"] for row in _ROWS if row["class"] == "index"}))
def test_a_codec_has_its_own_name_whichever_library_decodes_it(codec):
    name = next(row["path"] for row in _ROWS if row["class"] == "index" and row["codec"] == codec)
    assert opened(_ODD / name).facts.codec == codec


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("audio_only.mp4", NotVideo),
        ("audio_with_cover.mp4", NotVideo),
        ("zero_byte.mp4", NotVideo),
        ("text.mp4", NotVideo),
        ("html_error_page.mp4", NotVideo),
        ("playlist_as_video.mp4", NotVideo),
        ("concat_script.mp4", NotVideo),
        ("png_named.mp4", NotVideo),
        ("jpeg_named.mp4", NotVideo),
        ("anim.gif", NotVideo),
        ("raw_annexb.h264", NotVideo),
        ("cut_no_moov.mp4", Unreadable),
        ("encrypted_cenc.mp4", Unreadable),
        ("real_init_segment_only.mp4", Unreadable),
    ],
)
def test_an_odd_file_that_is_no_video_is_refused_in_one_line(shared, name, error):
    assert name in _BY_NAME
    with pytest.raises(error) as refused:
        opened(shared / "videos_odd" / name)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_list_of_refused_files_has_all_the_manifest_rejects(shared):
    refused = set()
    for row in _ROWS:
        try:
            opened(shared / "videos_odd" / row["path"]).close()
        except MediaError:
            refused.add(row["path"])
    assert {row["path"] for row in _ROWS if row["class"] == "reject"} <= refused
    assert not refused & {row["path"] for row in _ROWS if row["class"] == "index"}


@pytest.mark.parametrize("name", [row["path"] for row in _ROWS if row["class"] == "partial"])
def test_a_damaged_odd_file_is_refused_or_says_what_is_damaged(name):
    try:
        video = opened(_ODD / name)
    except MediaError as error:
        assert str(error)  # noqa: PT017
        return
    ticks = [tick for tick, _ in video.frames_at([int(tick) for tick in video.timeline.ticks])]
    assert ticks == [tick for tick in video.timeline.ticks if ticks[0] <= tick <= ticks[-1]]
    assert video.damage
    assert 0 <= video.first_bad_s <= video.facts.duration_s


def test_the_part_before_a_discontinuity_is_whole(shared):
    video = opened(shared / "videos_odd" / "discontinuity.ts")
    numbers = [burned_number(picture) for _, picture in video.frames_at(video.timeline.ticks)]
    assert numbers == list(range(150))
    assert video.facts.duration_s == pytest.approx(6.0)
    assert video.first_bad_s == pytest.approx(6.0)


@pytest.mark.parametrize(("name", "rotation"), [("rot90.mp4", 90), ("rot180.mp4", 180), ("rot270.mp4", 270)])
def test_an_odd_file_on_its_side_is_turned(shared, name, rotation):
    """The number lies in a corner that the turn brings elsewhere: turned back, it is where it was burned."""
    video = opened(shared / "videos_odd" / name)
    ((_, picture),) = video.frames_at([int(video.timeline.ticks[37])])
    upright = np.asarray(Image.open(io.BytesIO(picture.thumbnail())))
    stored = np.asarray(Image.fromarray(picture.frame.to_ndarray(format="rgb24")).resize((160, 120))).astype(int)
    assert video.facts.rotation == rotation
    assert np.abs(np.rot90(upright, -rotation // 90) - stored).mean() < 12


def test_of_two_video_streams_the_first_is_used_and_a_cover_is_none(shared):
    assert opened(shared / "videos_odd" / "two_video_streams.mp4").facts.stream_index == 0
    assert opened(shared / "videos_odd" / "audio_first.mp4").facts.stream_index == 1
    covered = opened(shared / "videos_odd" / "cover_art_first.mp4").facts
    assert (covered.codec, covered.n_frames) == ("h264", 150)


def test_an_error_that_is_not_the_contents_is_raised_as_what_it_is(make_video, tmp_path):
    """FFmpeg says "Input/output error" of some cut files too, so a file that can be read to its end is to blame."""
    path = os.fsencode(make_video(tmp_path / "a.mp4"))
    refused = av.error.OSError(5, "Input/output error")
    raise_what_is_not_the_content(refused, path, lambda: None)
    raise_what_is_not_the_content(av.error.InvalidDataError(1, "damaged"), path, lambda: None)
    with pytest.raises(FileNotFoundError):
        raise_what_is_not_the_content(refused, path + b" gone", lambda: None)
    with pytest.raises(MemoryError):
        raise_what_is_not_the_content(av.error.MemoryError(12, "Cannot allocate memory"), path, lambda: None)
