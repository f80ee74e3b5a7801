"""How clips become moments."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.search.moments import Moment, moments

# Multiples of 1/64 are exact in single precision, sums and halves included: no test depends on rounding.
SCORES = st.integers(-64, 64).map(lambda number: number / 64)


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """starts_s, ends_s, scores of clips that overlap, touch or leave gaps, ordered by start."""
    scores = draw(st.lists(SCORES, min_size=1, max_size=25))
    lengths = draw(st.lists(st.sampled_from([5.0, 10.0]), min_size=len(scores), max_size=len(scores)))
    steps = draw(st.lists(st.sampled_from([2.5, 5.0, 10.0, 20.0]), min_size=len(scores), max_size=len(scores)))
    starts_s = np.cumsum([0.0, *steps[1:]])
    return starts_s, starts_s + lengths, np.array(scores, np.float32)


def touch(starts_s: np.ndarray, ends_s: np.ndarray, earlier: int) -> bool:
    return bool(starts_s[earlier + 1] <= ends_s[earlier])


def found(video: tuple[np.ndarray, ...], background: float) -> list[Moment]:
    return moments(*video, background)


@given(videos(), SCORES)
def test_every_clip_is_in_exactly_one_moment(video: tuple[np.ndarray, ...], background: float) -> None:
    clips = [clip for moment in found(video, background) for clip in moment.clips]
    assert sorted(clips) == list(range(len(video[2])))


@given(videos(), SCORES)
def test_the_clips_of_a_moment_follow_each_other_without_a_gap(
    video: tuple[np.ndarray, ...], background: float
) -> None:
    starts_s, ends_s, _ = video
    for moment in found(video, background):
        assert list(moment.clips) == list(range(moment.clips[0], moment.clips[-1] + 1))
        assert all(touch(starts_s, ends_s, clip) for clip in moment.clips[:-1])


@given(videos(), SCORES)
def test_moments_come_best_first_and_earlier_first_when_equal(video: tuple[np.ndarray, ...], background: float) -> None:
    order = [(-moment.score, moment.peak) for moment in found(video, background)]
    assert order == sorted(order)


@given(videos(), SCORES)
def test_the_peak_is_the_first_best_clip_and_gives_the_score(video: tuple[np.ndarray, ...], background: float) -> None:
    scores = video[2]
    for moment in found(video, background):
        members = scores[list(moment.clips)]
        assert moment.score == members.max()
        assert moment.peak == moment.clips[int(members.argmax())]


@given(videos(), SCORES)
def test_a_moment_spans_from_its_first_start_to_its_last_end(video: tuple[np.ndarray, ...], background: float) -> None:
    starts_s, ends_s, _ = video
    for moment in found(video, background):
        assert moment.start_s == starts_s[list(moment.clips)].min()
        assert moment.end_s == ends_s[list(moment.clips)].max()


@given(videos(), SCORES)
def test_merged_clips_stand_out_at_least_half_as_much_as_the_peak(
    video: tuple[np.ndarray, ...], background: float
) -> None:
    for moment in found(video, background):
        above = [video[2][clip] - background for clip in moment.clips]
        assert len(above) == 1 or min(above) >= min(0.5 * (moment.score - background), moment.score - background)


@given(videos(), SCORES)
def test_a_moment_stops_only_at_a_gap_a_weak_clip_or_a_better_moment(
    video: tuple[np.ndarray, ...], background: float
) -> None:
    starts_s, ends_s, scores = video
    ordered = found(video, background)
    place = {clip: number for number, moment in enumerate(ordered) for clip in moment.clips}
    for number, moment in enumerate(ordered):
        floor = min(moment.score, (moment.score + background) / 2)
        for outside, earlier in ((moment.clips[0] - 1, moment.clips[0] - 1), (moment.clips[-1] + 1, moment.clips[-1])):
            if 0 <= outside < len(scores) and touch(starts_s, ends_s, earlier):
                assert scores[outside] < floor or place[outside] < number


@given(videos(), SCORES, SCORES)
def test_a_higher_background_never_lengthens_the_best_moment(
    video: tuple[np.ndarray, ...], one: float, other: float
) -> None:
    low, high = found(video, min(one, other))[0], found(video, max(one, other))[0]
    assert set(high.clips) <= set(low.clips)
    assert high.peak == low.peak


@given(videos(), SCORES, st.sampled_from([-0.5, 0.25, 1.0]))
def test_adding_the_same_to_all_scores_and_the_background_changes_no_span(
    video: tuple[np.ndarray, ...], background: float, shift: float
) -> None:
    starts_s, ends_s, scores = video
    shifted = moments(starts_s, ends_s, scores + np.float32(shift), background + shift)
    assert [moment.clips for moment in shifted] == [moment.clips for moment in found(video, background)]


@settings(max_examples=50)
@given(videos(), SCORES)
def test_clips_that_do_not_touch_are_moments_of_their_own(video: tuple[np.ndarray, ...], background: float) -> None:
    scores = video[2]
    starts_s = np.arange(len(scores)) * 20.0
    apart = moments(starts_s, starts_s + 10, scores, background)
    assert [moment.clips for moment in apart] == [(int(clip),) for clip in np.argsort(-scores, kind="stable")]


def test_no_clips_make_no_moments() -> None:
    assert moments(np.empty(0), np.empty(0), np.empty(0, np.float32), 0.1) == []


def test_a_plain_scene_is_one_moment_and_what_is_around_it_is_others() -> None:
    starts_s = np.arange(6) * 10.0
    scores = np.array([0.1, 0.3, 0.5, 0.4, 0.1, 0.1], np.float32)
    best, *others = moments(starts_s, starts_s + 10, scores, 0.1)
    assert (best.start_s, best.end_s, best.peak, best.clips) == (10.0, 40.0, 2, (1, 2, 3))
    assert [moment.clips for moment in others] == [(0,), (4, 5)]
