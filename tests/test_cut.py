"""Files that were cut, broken inside or have something behind their end, in every container; and whole ones."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidx.decoders._packets import announced
from vidx.decoders.pyav import PyAVVideo, open_video
from vidx.errors import MediaError, NotVideo, Unreadable

N_FRAMES, FPS, SOUND_HZ = 40, 10, 8000

# Name of a file: codecs of pictures and sound, options of the muxer.
_KINDS: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "plain.mp4": ("libx264", "aac", {}),
    "index_first.mp4": ("libx264", None, {"movflags": "faststart"}),
    "fragmented.mp4": ("libx264", None, {"movflags": "frag_keyframe+empty_moov"}),
    "plain.mov": ("libx264", "pcm_s16le", {}),
    "sound.mkv": ("libx264", "pcm_s16le", {}),
    "live.mkv": ("libx264", None, {"live": "1"}),
    "plain.webm": ("libvpx", None, {}),
    "sound.avi": ("mpeg4", "pcm_s16le", {}),
    "plain.flv": ("libx264", None, {}),
    "plain.ogg": ("libvpx", None, {}),
    "plain.asf": ("wmv2", None, {}),
    "plain.mxf": ("mpeg2video", None, {}),
    "plain.mpg": ("mpeg2video", "mp2", {}),
    "plain.ts": ("libx264", None, {}),
}
# A transport stream can be cut between two packets, and nothing shows; Ogg and live Matroska between two elements.
_STATES_ITS_END = [name for name in _KINDS if name not in ("plain.ts", "plain.ogg", "live.mkv", "plain.flv")]


def write(path: Path, video: str, sound: str | None, options: dict[str, str]) -> None:
    """Four seconds of moving stripes, ten pictures a second, a key frame every second, and perhaps a hum."""
    with av.open(str(path), "w", options=options) as container:
        pictures = container.add_stream(video, rate=25 if path.suffix in (".mpg", ".mxf") else FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.codec_context.gop_size, pictures.bit_rate = FPS, 200_000
        pictures.codec_context.thread_count = 1
        hum = container.add_stream(sound, rate=SOUND_HZ if sound == "pcm_s16le" else 44100) if sound else None
        if hum is not None:
            hum.layout = "mono"
        for number in range(N_FRAMES):
            rgb = np.roll(np.indices((48, 64)).sum(axis=0) * 9 % 256, 5 * number, axis=1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([rgb] * 3, axis=2), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, pictures.average_rate or FPS)
            container.mux(pictures.encode(frame))
            if hum is not None:
                encode_hum(container, hum, number)
        for stream in container.streams:
            container.mux(stream.encode(None))


def encode_hum(container: av.container.OutputContainer, hum: av.AudioStream, number: int) -> None:
    """The tenth of a second of sound that belongs to a picture."""
    length = hum.rate // FPS
    wave = (np.sin(np.arange(length) / 9) * 9000).astype(np.int16)[None]
    samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
    samples.sample_rate, samples.pts, samples.time_base = hum.rate, number * length, Fraction(1, hum.rate)
    container.mux(hum.encode(samples))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives a whole file of a kind; each is written once."""
    folder = tmp_path_factory.mktemp("whole")

    def give(name: str) -> Path:
        if not (path := folder / name).exists():
            write(path, *_KINDS[name])
        return path

    return give


def read(path: Path) -> PyAVVideo:
    """A video of which every frame has been decoded."""
    video = open_video(os.fsencode(path))
    list(video.frames_at(video.timeline.ticks.tolist()))
    video.close()
    return video


def is_noticed(path: Path) -> bool:
    """Whether a file is refused, or gives a reason and a time inside the video."""
    try:
        video = read(path)
    except MediaError as error:
        return "\n" not in str(error)
    return bool(video.damage) and 0 <= video.first_bad_s <= video.facts.duration_s


@pytest.mark.parametrize("name", _KINDS)
def test_a_whole_file_raises_no_alarm(whole, name):
    video = read(whole(name))
    assert (video.damage, video.first_bad_s, len(video.timeline.ticks)) == (None, None, N_FRAMES)


@pytest.mark.parametrize("name", _STATES_ITS_END)
def test_a_file_cut_anywhere_is_noticed(whole, tmp_path, name):
    content, chance = whole(name).read_bytes(), random.Random(name)
    for length in sorted(chance.sample(range(1, len(content) - 64), 12)):
        (tmp_path / name).write_bytes(content[:length])
        assert is_noticed(tmp_path / name), f"cut to {length} of {len(content)} bytes"


@pytest.mark.parametrize("name", sorted(set(_KINDS) - set(_STATES_ITS_END)))
def test_a_file_cut_inside_an_element_is_noticed(whole, tmp_path, name):
    content = whole(name).read_bytes()
    with av.open(str(whole(name))) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    for position in positions[5::9]:
        (tmp_path / name).write_bytes(content[: position + 101])
        assert is_noticed(tmp_path / name), f"cut to {position + 101} of {len(content)} bytes"


def test_the_time_of_a_cut_is_the_end_of_the_last_readable_frame(whole, tmp_path):
    content = whole("sound.mkv").read_bytes()
    with av.open(str(whole("sound.mkv"))) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    (tmp_path / "cut.mkv").write_bytes(content[: positions[20] + 3])
    video = read(tmp_path / "cut.mkv")
    assert video.damage == f"the file is cut: it announces {len(content)} bytes and holds {positions[20] + 3}"
    assert video.first_bad_s == pytest.approx(2.0)


@pytest.mark.parametrize("name", sorted(set(_KINDS) - {"plain.flv"}))
@pytest.mark.parametrize("garbage", [bytes(3000), random.Random(0).randbytes(3000)], ids=["zeros", "noise"])
def test_foreign_bytes_behind_the_end_are_no_damage(whole, tmp_path, name, garbage):
    (tmp_path / name).write_bytes(whole(name).read_bytes() + garbage)
    video = read(tmp_path / name)
    assert (video.damage, len(video.timeline.ticks)) == (None, N_FRAMES)


@pytest.mark.parametrize("name", ["sound.mkv", "live.mkv", "sound.avi", "plain.flv", "plain.ogg", "plain.asf"])
def test_a_wiped_stretch_is_noticed_and_the_rest_is_used(whole, tmp_path, name):
    content = bytearray(whole(name).read_bytes())
    half = len(content) // 2
    content[half : half + 700] = bytes(700)
    (tmp_path / name).write_bytes(content)
    video = read(tmp_path / name)
    last_s = float(video.timeline.seconds(int(video.timeline.ticks[-1])))
    assert video.damage
    assert 0.5 < video.first_bad_s < 3.5 < last_s


def test_a_flipped_bit_breaks_the_checksum_of_its_cluster(whole, tmp_path):
    """FFmpeg's muxer writes one for each cluster; here a cluster is a second and a key frame."""
    content = bytearray(whole("sound.mkv").read_bytes())
    with av.open(str(whole("sound.mkv"))) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][25]
    content[packet.pos + packet.size - 2] ^= 1
    (tmp_path / "flipped.mkv").write_bytes(content)
    video = open_video(os.fsencode(tmp_path / "flipped.mkv"))
    assert video.damage.startswith("the container is damaged at byte ")
    assert 0 < video.first_bad_s <= 2.5


def test_frames_that_the_demuxer_passes_over_are_missed(whole, tmp_path):
    """One wrong byte in front of a frame, and FFmpeg leaves out the rest of its cluster without a word."""
    content = bytearray(whole("plain.webm").read_bytes())
    with av.open(str(whole("plain.webm"))) as container:
        position = [packet.pos for packet in container.demux(video=0) if packet.size][14]
    content[position + 3] |= 0x06  # laced, which it is not
    (tmp_path / "a.webm").write_bytes(content)
    video = read(tmp_path / "a.webm")
    assert len(video.timeline.ticks) < N_FRAMES
    assert video.damage == "frames are missing: their data are damaged or lost"
    assert 0 < video.first_bad_s <= 1.5


@pytest.mark.parametrize("name", ["plain.mp4", "fragmented.mp4", "sound.mkv", "plain.flv", "plain.asf", "plain.ts"])
def test_of_two_files_in_one_the_first_is_used_and_that_is_said(whole, tmp_path, name):
    content = whole(name).read_bytes()
    (tmp_path / name).write_bytes(content + content)
    video = read(tmp_path / name)
    assert len(video.timeline.ticks) == N_FRAMES
    assert "only the" in video.damage
    assert video.first_bad_s == pytest.approx(video.facts.duration_s)


# What some programs write, and nothing is lost


def test_an_avi_whose_recording_was_not_finished_states_no_size(whole, tmp_path):
    content = bytearray(whole("sound.avi").read_bytes())
    content[4:8] = bytes(4)
    (tmp_path / "unfinished.avi").write_bytes(content)
    assert read(tmp_path / "unfinished.avi").damage is None


def test_a_large_avi_goes_on_in_further_lists(whole, tmp_path):
    content = whole("sound.avi").read_bytes()
    more = b"RIFF" + struct.pack("<I", 16) + b"AVIX" + b"LIST" + struct.pack("<I", 4) + b"movi"
    (tmp_path / "large.avi").write_bytes(content + more)
    assert read(tmp_path / "large.avi").damage is None
    (tmp_path / "cut.avi").write_bytes(content + more[:-4] + b"movi00dc" + struct.pack("<I", 999))
    assert read(tmp_path / "cut.avi").damage is not None


def set_edit_list(content: bytes, edits: list[tuple[int, int]]) -> bytes:
    """Give the only track of an MP4 whose index comes last the edits (milliseconds, tick) instead of its own one."""
    at = content.index(b"edts") - 4
    entries = b"".join(struct.pack(">iiI", length, tick, 1 << 16) for length, tick in edits)
    box = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    old = struct.unpack(">I", content[at : at + 4])[0]
    result = bytearray(content[:at] + struct.pack(">I4s", 8 + len(box), b"edts") + box + content[at + old :])
    for holder in (b"moov", b"trak"):
        size_at = content.index(holder) - 4
        size = struct.unpack(">I", content[size_at : size_at + 4])[0] + len(result) - len(content)
        result[size_at : size_at + 4] = struct.pack(">I", size)
    return bytes(result)


@pytest.fixture(scope="module")
def numbered(make_video, tmp_path_factory) -> Path:
    """An MP4 of 50 grey frames, ten a second, without B-frames."""
    return make_video(tmp_path_factory.mktemp("numbered") / "a.mp4", options={"bf": "0"})


def ticks_per_frame(path: Path) -> int:
    with av.open(str(path)) as container:
        return int(1 / (FPS * container.streams.video[0].time_base))


def shown_numbers(video: PyAVVideo) -> list[int]:
    pictures = (picture for _, picture in video.frames_at(video.timeline.ticks.tolist()))
    return [round(float(picture.frame.to_ndarray(format="gray").mean()) / 5) for picture in pictures]


def test_a_trimmed_recording_is_not_a_cut_file(numbered, tmp_path):
    """Phones trim by an edit list: the frames are there, and the index has fewer than the header announces."""
    frame = ticks_per_frame(numbered)
    trimmed = tmp_path / "trimmed.mp4"
    trimmed.write_bytes(set_edit_list(numbered.read_bytes(), [(1000, 10 * frame), (1500, 25 * frame)]))
    video = open_video(os.fsencode(trimmed))
    assert shown_numbers(video) == [*range(10, 20), *range(25, 40)]
    assert video.timeline.seconds(video.timeline.ticks) == pytest.approx(np.arange(25) / FPS)
    assert (video.damage, video.first_bad_s) == (None, None)


def test_an_index_that_ends_in_a_damaged_size_is_no_trim(numbered, tmp_path):
    content = bytearray(numbered.read_bytes())
    at = content.index(b"stsz") + 16 + 4 * 30
    content[at : at + 4] = b"\x7f\xff\xff\0"
    (tmp_path / "a.mp4").write_bytes(content)
    video = read(tmp_path / "a.mp4")
    assert video.damage.startswith("the file is cut: it announces 50 frames and holds ")
    assert 2.9 <= video.first_bad_s <= video.facts.duration_s


def test_an_edit_list_that_hides_everything_is_ignored(numbered, tmp_path):
    hidden = tmp_path / "hidden.mp4"
    hidden.write_bytes(set_edit_list(numbered.read_bytes(), [(0, 0)]))
    video = open_video(os.fsencode(hidden))
    assert len(video.timeline.ticks) == 50
    assert (video.damage, video.first_bad_s) == ("its edit list hides every frame; it is ignored", 0.0)


# What a container announces


@pytest.mark.parametrize("name", ["plain.mp4", "sound.mkv", "sound.avi", "plain.flv", "plain.asf"])
def test_a_container_announces_its_length_without_its_packets_being_read(whole, name):
    seconds, frames = announced(os.fsencode(whole(name)))
    assert seconds == pytest.approx(N_FRAMES / FPS, abs=0.3)
    assert frames == (N_FRAMES if name in ("plain.mp4", "sound.avi") else 0)


def test_a_live_recording_announces_nothing(whole):
    assert announced(os.fsencode(whole("live.mkv"))) == (0.0, 0)


def test_what_is_announced_is_the_headers_word(shared):
    assert announced(os.fsencode(shared / "videos_odd" / "avi_frames_lie.avi")) == (600.0, 15000)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", NotVideo), (b"#EXTM3U\na.mp4\n", NotVideo), (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", Unreadable)],
)
def test_what_can_not_be_opened_announces_nothing(tmp_path, content, error):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(error):
        announced(os.fsencode(tmp_path / "a.mp4"))
    with pytest.raises(FileNotFoundError):
        announced(os.fsencode(tmp_path / "gone.mp4"))
