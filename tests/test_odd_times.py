"""Times that containers tell wrongly, twice or not at all: which frame is shown when, all the same."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidx.decoders._order import in_order, timed_by_count
from vidx.decoders._runs import ClockRules, Run, runs_of_one_clock
from vidx.decoders.pyav import PyAVVideo, open_video

_CLOCK_BITS, _TICKS_PER_S = 33, 90_000  # of MPEG transport streams


def opened(path: Path) -> PyAVVideo:
    return open_video(os.fsencode(path))


def number_of(picture) -> int:
    """The number of a frame that `flat_grey` drew, which starts anew every 50."""
    return round(float(picture.frame.to_ndarray(format="gray").mean()) / 5)


def numbers(video: PyAVVideo) -> list[int]:
    return [number_of(picture) for _, picture in video.frames_at(video.timeline.ticks.tolist())]


def seconds(video: PyAVVideo) -> np.ndarray:
    return video.timeline.seconds(video.timeline.ticks)


def assert_same_in_any_order(video: PyAVVideo, expected: list[int]) -> None:
    ticks = video.timeline.ticks.tolist()
    for place in random.Random(0).sample(range(len(ticks)), 12):
        ((_, picture),) = video.frames_at([ticks[place]])
        assert (picture.tick, number_of(picture)) == (ticks[place], expected[place])


# Containers that number packets in the order of decoding


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"bf": "2"}, {"bf": "4", "b-pyramid": "normal"}, {"bf": "0"}])
@pytest.mark.parametrize("threads", [1, 2])
def test_b_frames_in_avi_are_shown_in_their_own_order(make_video, tmp_path, options, threads):
    path = make_video(tmp_path / "a.avi", options=options)
    video = open_video(os.fsencode(path), threads=threads)
    assert numbers(video) == list(range(50))
    assert np.diff(seconds(video)) == pytest.approx(0.1)
    assert_same_in_any_order(video, list(range(50)))
    assert video.damage is None


def frame(pts, *, key=False):
    return SimpleNamespace(pts=pts, key_frame=key)


def test_counted_frames_make_up_for_lost_ones_at_a_key_frame():
    ticks = np.arange(10, 20)
    frames = [frame(10, key=True), frame(12), frame(11), frame(15, key=True), frame(16)]
    assert [tick for tick, _ in timed_by_count(frames, ticks, 10)] == [10, 11, 12, 15, 16]


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0, 1, 9, 2, 3], [0, 1, 2, 3]),  # the third is due far too late
        ([0, 5, 1, 6], [0, 1, 6]),
        ([5, 6, 0, 7], [5, 6, 7]),  # and here far too early
        ([0, 1, 1, 2], [0, 1, 2]),
        ([9, 0, 1, 2, 3], [2, 3]),  # so is the first, which three others tell
        ([3, None, 4, 99, 5], [3, 4, 5]),  # no time, and one that no packet has
    ],
)
def test_a_label_that_contradicts_the_order_is_left_out(labels, shown):
    ticks = np.arange(10)
    assert [place for place, _ in in_order(((label, None) for label in labels), ticks)] == shown


# Clocks that leap


_RULES = ClockRules(back=10, gap=100, leap=36_000, end=0)


def run(first: int, last: int, packets: int = 50) -> Run:
    return Run(0, 0, first, last, packets=packets)


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        ([run(0, 500), run(700, 900)], [0, 1]),  # a gap
        ([run(0, 500), run(0, 900)], [0]),  # starts anew, however long the second is
        ([run(0, 500), run(100_000, 100_500)], [0]),
        ([run(0, 500), run(9_000, 9_010, 2), run(510, 900)], [0, 2]),  # leaps and comes back
        ([run(0, 500), run(20, 30, 2), run(510, 900)], [0, 2]),
        ([run(9_000, 9_000, 1), run(0, 900)], [1]),  # a stray packet sets no clock
    ],
)
def test_the_runs_of_one_clock_make_up_the_video(runs, kept):
    assert runs_of_one_clock(runs, _RULES) == kept


def test_a_gap_of_hours_is_one_if_the_container_announces_so_long_a_video(make_video, tmp_path):
    hours_ms = [0, 7_200_000, 14_400_000, 21_600_000]
    for name in ("a.mkv", "a.mp4"):
        video = opened(make_video(tmp_path / name, pts=hours_ms))
        assert numbers(video) == [0, 1, 2, 3]
        assert seconds(video) == pytest.approx([0, 7200, 14400, 21600])
        assert video.damage is None


def test_a_damaged_time_costs_its_frame_and_not_the_rest(make_video, tmp_path):
    """FLV has the time in front of each frame: 24 bits in milliseconds, then the 8 highest."""
    path = make_video(tmp_path / "a.flv", options={"bf": "0"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        position = [packet.pos for packet in container.demux() if packet.size][24]
    content[position + 7] = 0x70
    path.write_bytes(content)
    video = opened(path)
    assert numbers(video) == [*range(24), *range(25, 50)]
    assert video.damage == "times are damaged: the clock leaps and comes back"
    assert (video.first_bad_s, video.facts.duration_s) == (pytest.approx(2.3), pytest.approx(5.0))


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_frames_of_a_second_part_with_the_same_times_are_never_shown(make_video, tmp_path, suffix):
    first = make_video(tmp_path / f"first.{suffix}", n_frames=30, gop=5).read_bytes()
    second = make_video(tmp_path / f"second.{suffix}", n_frames=30, gop=5, draw=lambda *_: _WHITE).read_bytes()
    (tmp_path / f"both.{suffix}").write_bytes(first + second)
    video = opened(tmp_path / f"both.{suffix}")
    assert numbers(video) == list(range(30))
    assert_same_in_any_order(video, list(range(30)))
    assert video.damage == "the clock starts anew here; only the part before is used"
    assert video.first_bad_s == pytest.approx(3.0)


_WHITE = np.full((48, 64, 3), 255, np.uint8)


# MPEG transport streams


def shifted(stream: bytes, ticks: int) -> bytes:
    """A transport stream whose clock reads so much more, around its 33 bits (ISO 13818-1, 2.4.3)."""
    content = bytearray(stream)

    def shift_time(at: int) -> None:
        high, middle, low = content[at] >> 1 & 7, *struct.unpack_from(">2H", content, at + 1)
        time = (high << 30 | middle >> 1 << 15 | low >> 1) + ticks & (1 << _CLOCK_BITS) - 1
        content[at] = content[at] & 0xF1 | time >> 29 & 0xE
        struct.pack_into(">2H", content, at + 1, time >> 14 & 0xFFFE | 1, time << 1 & 0xFFFE | 1)

    for at in range(0, len(content), 188):
        kind, payload = content[at + 3] >> 4 & 3, at + 4
        if kind & 2:
            if content[payload] and content[payload + 1] & 0x10:
                clock = int.from_bytes(content[payload + 2 : payload + 8], "big")
                base = (clock >> 15) + ticks & (1 << _CLOCK_BITS) - 1
                content[payload + 2 : payload + 8] = (base << 15 | clock & 0x7FFF).to_bytes(6, "big")
            payload += 1 + content[payload]
        if content[at + 1] & 0x40 and kind & 1 and content[payload : payload + 3] == b"\0\0\1":
            times = {2: 1, 3: 2}.get(content[payload + 7] >> 6, 0)
            for number in range(times):
                shift_time(payload + 9 + 5 * number)
    return bytes(content)


@pytest.fixture(scope="module")
def stream(make_video, tmp_path_factory) -> bytes:
    """A transport stream of 50 grey frames, ten a second, a key frame each second, B-frames."""
    return make_video(tmp_path_factory.mktemp("stream") / "a.ts").read_bytes()


def opened_bytes(folder: Path, content: bytes) -> PyAVVideo:
    (folder / "a.ts").write_bytes(content)
    return opened(folder / "a.ts")


@pytest.mark.slow
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before_wrap_s=st.floats(-2, 7), hours=st.sampled_from([0, 1, 13, 25]))
def test_the_clock_of_a_stream_may_begin_and_wrap_anywhere(stream, tmp_path, before_wrap_s, hours):
    ticks = int((hours * 3600 - before_wrap_s) * _TICKS_PER_S) % (1 << _CLOCK_BITS)
    video = opened_bytes(tmp_path, shifted(stream, ticks))
    assert numbers(video) == list(range(50))
    assert seconds(video) == pytest.approx(np.arange(50) / 10)
    assert (video.damage, video.timeline.ticks.dtype) == (None, np.int64)


@pytest.mark.parametrize("start", [188 * 3, 188 * 11, 188 * 40, 1000])
def test_a_stream_that_begins_in_the_middle_has_no_times_before_zero(stream, tmp_path, start):
    video = opened_bytes(tmp_path, stream[start:])
    assert seconds(video).min() == 0
    shown = numbers(video)
    assert shown[-1] == 49
    assert shown == sorted(shown)


def test_parts_that_were_joined_without_a_gap_are_one_video(stream, make_video, tmp_path):
    video = opened_bytes(tmp_path, stream + shifted(stream, 5 * _TICKS_PER_S))
    assert numbers(video) == [*range(50), *range(50)]
    assert seconds(video) == pytest.approx(np.arange(100) / 10)
    assert video.damage is None


def test_packets_that_a_stream_lost_are_noticed(stream, tmp_path):
    with_gap = stream[: 188 * 60] + stream[188 * 75 :]
    video = opened_bytes(tmp_path, with_gap)
    list(video.frames_at(video.timeline.ticks.tolist()))
    assert len(video.timeline.ticks) < 50
    assert video.damage
    assert 0 < video.first_bad_s < 5


@pytest.mark.parametrize("gap_s", [2 * 3600, -60])
def test_behind_a_new_clock_nothing_is_used_and_that_is_said(stream, tmp_path, gap_s):
    video = opened_bytes(tmp_path, shifted(stream, 100 * _TICKS_PER_S) + shifted(stream, (105 + gap_s) * _TICKS_PER_S))
    assert numbers(video) == list(range(50))
    assert video.damage == "the clock starts anew here; only the part before is used"
    assert video.first_bad_s == video.facts.duration_s == pytest.approx(5.0)


# Damage that a decoder passes over


def test_a_frame_that_does_not_come_is_noticed(make_video, tmp_path):
    """The data of a frame become filler, which is valid and shows nothing."""
    path = make_video(tmp_path / "a.mp4", options={"bf": "0"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][23]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = (
        struct.pack(">I", packet.size - 4) + b"\x0c" + b"\xff" * (packet.size - 6) + b"\x80"
    )
    path.write_bytes(content)
    video = opened(path)
    shown = list(video.frames_at(video.timeline.ticks.tolist()))
    assert len(shown) == 50
    assert video.damage
    assert video.first_bad_s == pytest.approx(2.3, abs=0.01)
