"""Windows and their frames, over any set of presentation times."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vidx.indexer.plan import Windows, plan
from vidx.schema.records import PlannedClip, Timeline

_TICKS_PER_S = 1000
_NEAR_S = 1e-5


def line(times_ms: list[int], end_ms: int, origin_s: float = 0.0) -> Timeline:
    """A timeline of frames at these milliseconds, the last one shown until `end_ms`."""
    ticks = np.array(times_ms, np.int64)
    return Timeline(ticks, ticks[:1], end_ms, Fraction(1, _TICKS_PER_S), origin_s)


def steady(length_s: float, fps: int = 10, first_s: float = 0.0) -> Timeline:
    """A constant rate from `first_s` on."""
    times_ms = [round((first_s + number / fps) * 1000) for number in range(round(length_s * fps))]
    return line(times_ms, round((first_s + length_s) * 1000))


def spans(clips: list[PlannedClip]) -> list[tuple[float, float]]:
    return [(round(clip.start_s, 4), round(clip.end_s, 4)) for clip in clips]


def shown_at(times_s: np.ndarray, instant_s: float) -> int:
    """Position of the last frame that starts at or before an instant, by a plain search."""
    earlier = [at for at, time_s in enumerate(times_s) if time_s <= instant_s + 1e-6]
    return earlier[-1] if earlier else 0


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Irregular frame times with holes, late starts, negative ticks and clock offsets."""
    steps = draw(st.lists(st.one_of(st.integers(1, 200), st.integers(1, 60_000)), max_size=60))
    first = draw(st.integers(-100_000, 100_000))
    times_ms = [int(time_ms) for time_ms in np.cumsum([first, *steps])]
    last_ms = draw(st.one_of(st.integers(1, 200), st.integers(1, 30_000)))
    return line(times_ms, times_ms[-1] + last_ms, draw(st.integers(-50, 3600)) * 1.0)


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    clip_s, stride_s = draw(st.integers(1, 300)) / 10, draw(st.integers(1, 600)) / 10
    assume(clip_s / stride_s <= 50)
    return Windows(clip_s, stride_s, draw(st.integers(1, 16)))


@given(timelines(), windows())
def test_clips_are_in_order_and_inside_the_video(video, wanted):
    clips = plan(video, wanted)
    first_s, end_s = float(video.seconds(video.ticks[0])), float(video.seconds(video.end_tick))
    assert clips
    assert all(earlier.start_s < later.start_s for earlier, later in itertools.pairwise(clips))
    assert all(first_s - _NEAR_S <= clip.start_s < clip.end_s <= end_s + _NEAR_S for clip in clips)


@pytest.mark.slow
@given(timelines(), windows())
def test_every_frame_start_is_in_a_clip_unless_the_stride_leaves_gaps(video, wanted):
    assume(wanted.stride_s <= wanted.clip_s)
    clips = plan(video, wanted)
    for time_s in video.seconds(video.ticks):
        assert any(clip.start_s - _NEAR_S <= time_s <= clip.end_s + _NEAR_S for clip in clips)


@given(timelines(), windows())
def test_every_clip_holds_the_start_of_a_frame(video, wanted):
    times_s = video.seconds(video.ticks)
    for clip in plan(video, wanted):
        assert ((times_s >= clip.start_s - _NEAR_S) & (times_s < clip.end_s)).any()


@given(timelines(), windows())
def test_clips_start_at_whole_strides_and_last_one_window_unless_joined_or_cut(video, wanted):
    clips = plan(video, wanted)
    first_s, end_s = float(video.seconds(video.ticks[0])), float(video.seconds(video.end_tick))
    strides = [(clip.start_s - first_s) / wanted.stride_s for clip in clips]
    assert strides == pytest.approx(np.round(strides), abs=1e-6)
    for clip in clips[:-1]:
        assert clip.end_s - clip.start_s == pytest.approx(min(wanted.clip_s, end_s - clip.start_s), abs=_NEAR_S)
    assert clips[-1].end_s - clips[-1].start_s < 1.5 * wanted.clip_s + _NEAR_S


@given(timelines(), windows())
def test_a_clip_has_the_frames_on_screen_at_the_centres_of_its_segments(video, wanted):
    times_s = video.seconds(video.ticks)
    for clip in plan(video, wanted):
        segment_s = (clip.end_s - clip.start_s) / wanted.frames
        centres = [clip.start_s + (number + 0.5) * segment_s for number in range(wanted.frames)]
        assert list(clip.ticks) == [int(video.ticks[shown_at(times_s, centre)]) for centre in centres]


@given(timelines(), windows(), st.integers(-(10**6), 10**6))
def test_a_clock_offset_moves_no_clip(video, wanted, offset):
    """A container that counts from another origin, with its start time set accordingly, is cut the same."""
    moved = Timeline(
        video.ticks + offset * _TICKS_PER_S,
        video.key_ticks,
        video.end_tick + offset * _TICKS_PER_S,
        video.time_base,
        video.origin_s + offset,
    )
    here, there = plan(video, wanted), plan(moved, wanted)
    assert [clip.start_s for clip in there] == pytest.approx([clip.start_s for clip in here], abs=1e-6)
    assert [clip.end_s for clip in there] == pytest.approx([clip.end_s for clip in here], abs=1e-6)


@pytest.mark.parametrize(
    ("length_s", "expected"),
    [
        (0.2, [(0, 0.2)]),
        (9.9, [(0, 9.9)]),
        (10.0, [(0, 10)]),
        (14.9, [(0, 14.9)]),
        (15.0, [(0, 10), (10, 15)]),
        (19.0, [(0, 10), (10, 19)]),
        (20.0, [(0, 10), (10, 20)]),
        (24.9, [(0, 10), (10, 24.9)]),
        (25.0, [(0, 10), (10, 20), (20, 25)]),
    ],
)
def test_a_last_window_of_less_than_half_joins_the_one_before(length_s, expected):
    assert spans(plan(steady(length_s), Windows(10, 10, 8))) == expected


def test_overlapping_windows_end_with_the_first_that_reaches_the_end():
    assert spans(plan(steady(12.0), Windows(4, 2, 4))) == [(0, 4), (2, 6), (4, 8), (6, 10), (8, 12)]
    assert spans(plan(steady(11.0), Windows(4, 2, 4))) == [(0, 4), (2, 6), (4, 8), (6, 10), (8, 11)]


def test_a_stride_longer_than_a_clip_leaves_the_time_between_out():
    assert spans(plan(steady(25.0), Windows(2, 10, 4))) == [(0, 2), (10, 12), (20, 22)]
    ticks = {tick for clip in plan(steady(25.0), Windows(2, 10, 4)) for tick in clip.ticks}
    assert all(tick % 10_000 < 2000 for tick in ticks)


def test_the_frames_of_ten_seconds_are_those_in_the_middle_of_eight_segments():
    (clip,) = plan(steady(10.0), Windows(10, 10, 8))
    assert clip.ticks == (600, 1800, 3100, 4300, 5600, 6800, 8100, 9300)


def test_a_frame_due_at_the_very_centre_is_the_one_on_screen():
    (clip,) = plan(line([0, 1000, 2000, 3000], 4000), Windows(4, 4, 2))
    assert clip.ticks == (1000, 3000)


def test_a_video_that_starts_late_is_cut_from_its_first_frame():
    clips = plan(steady(20.0, first_s=2.0), Windows(10, 10, 4))
    assert spans(clips) == [(2, 12), (12, 22)]
    assert clips[0].ticks[0] >= 2000


def test_a_still_picture_gives_one_clip_of_the_same_frame():
    (clip,) = plan(line([0], 40), Windows(10, 10, 8))
    assert (clip.start_s, clip.end_s, clip.ticks) == (0, 0.04, (0,) * 8)


def test_windows_inside_a_hole_are_not_made():
    times_ms = [*range(0, 5000, 100), *range(60_000, 65_000, 100)]
    assert spans(plan(line(times_ms, 65_000), Windows(10, 10, 4))) == [(0, 10), (60, 65)]


def test_a_short_rest_behind_a_hole_stays_a_clip_of_its_own():
    times_ms = [*range(0, 5000, 100), 60_000]
    assert spans(plan(line(times_ms, 60_100), Windows(10, 10, 4))) == [(0, 10), (60, 60.1)]


def test_a_hole_of_years_costs_no_more_than_its_frames():
    year_ms = 365 * 86_400 * 1000
    clips = plan(line([0, 50 * year_ms], 50 * year_ms + 100), Windows(1, 0.1, 8))
    assert 2 <= len(clips) <= 20
    assert clips[0].start_s == 0
    assert clips[-1].ticks[-1] == 50 * year_ms


def test_the_recorded_plan_tells_windows_apart():
    plans = {
        Windows(clip_s, stride_s, frames).to_json() for clip_s in (5, 10) for stride_s in (5, 10) for frames in (8,)
    }
    assert len(plans) == 4
    assert json.loads(Windows(10, 5, 8).to_json()) == {"segment": "windows", "clip_s": 10, "stride_s": 5, "frames": 8}
