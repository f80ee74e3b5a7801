"""Frames are chosen as the published code chooses them."""

from __future__ import annotations

import json
from dataclasses import fields
from fractions import Fraction
from math import floor, trunc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.indexer import sampling
from vidx.indexer.sampling import (
    Sampling,
    dense_clips,
    random_in_intervals,
    random_in_segments,
    random_strided,
    segment_centres,
    segment_middles,
    segment_starts,
    shifted_clips,
    strided_clips,
)
from vidx.schema.records import Video

LENGTHS = st.integers(1, 1000)
FRAMES = st.integers(1, 64)
CLIPS = st.integers(2, 10)
SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def originals(shared: Path) -> dict[str, Any]:
    """What the original samplers returned."""
    indices: dict[str, Any] = json.loads((shared / "reference" / "frame-indices.json").read_text())
    return indices


def test_text4vis_frames_are_those_of_its_own_code(originals: dict[str, Any]) -> None:
    assert len(originals["text4vis"]) == 80
    for case in originals["text4vis"]:
        n, frames = case["n"], case["T"]
        assert segment_starts(n, frames).tolist() == case["val"] == case["test_1clips"] == case["linspace"]
        for clips in (1, 3, 4):
            assert shifted_clips(n, frames, clips).ravel().tolist() == case[f"test_{clips}clips"], (n, frames)
        assert dense_clips(n, frames, 3).ravel().tolist() == case["dense_3clips"], (n, frames)


def test_frames_of_the_other_code_bases_are_those_of_their_own_code(originals: dict[str, Any]) -> None:
    for case in originals["actionclip"]:
        assert segment_middles(case["n"], case["T"]).tolist() == case["val"], case
    for case in originals["xclip"]:
        assert segment_centres(case["n"], case["T"]).tolist() == case["test"], case
    for case in originals["mmaction2"]:
        if "T" in case:
            assert segment_centres(case["n"], case["T"]).tolist() == case["test"], case
        else:
            clips = strided_clips(case["n"], case["clip_len"], case["num_clips"], case["frame_interval"])
            assert clips.ravel().tolist() == case["test"], case


@given(n=LENGTHS, frames=FRAMES)
def test_single_clips_follow_their_formulas(n: int, frames: int) -> None:
    segment = Fraction(n, frames)
    expected = {
        segment_starts: [floor(k * segment) for k in range(frames)],
        segment_centres: [floor(k * segment + segment / 2) for k in range(frames)],
        segment_middles: [floor(k * segment + (segment - 1) / 2) for k in range(frames)],
    }
    if n <= frames:
        expected[segment_middles] = expected[segment_starts]
    if frames == 1:
        expected[segment_middles] = [n // 2]
    for sampler, indices in expected.items():
        chosen = sampler(n, frames)
        assert chosen.tolist() == indices == sorted(indices)
        assert chosen.dtype == np.int64
        assert min(indices) >= 0
        assert max(indices) < n


@given(n=LENGTHS, frames=FRAMES, clips=CLIPS)
def test_several_clips_follow_their_formulas(n: int, frames: int, clips: int) -> None:
    segment = Fraction(n, frames)
    starts = [floor(c * (segment - 1) / (clips - 1)) for c in range(clips)]
    shifted = [[trunc(start + k * segment) % n for k in range(frames)] for start in starts]
    starts = [c * floor(Fraction(max(0, n - 128), clips - 1)) for c in range(clips)]
    dense = [[(start + k * (128 // frames)) % n for k in range(frames)] for start in starts]
    for chosen, expected in ((shifted_clips(n, frames, clips), shifted), (dense_clips(n, frames, clips), dense)):
        assert chosen.tolist() == expected
        assert chosen.dtype == np.int64
        assert chosen.min() >= 0
        assert chosen.max() < n
    if n >= frames:  # no start before the video, and no end behind it
        assert (np.diff(shifted) >= 0).all()


@given(n=LENGTHS, clips=st.integers(1, 5))
def test_strided_clips_follow_their_formula(n: int, clips: int) -> None:
    last = max(n - 61, 0)
    starts = [round(Fraction(c * last, clips - 1)) for c in range(clips)] if clips > 1 else [last // 2]
    chosen = strided_clips(n, 16, clips)
    assert chosen.tolist() == [[(start + 4 * k) % n for k in range(16)] for start in starts]
    assert chosen.dtype == np.int64
    assert n < 61 or (np.diff(chosen) == 4).all()


def video_of(n: int) -> Video:
    """Of n frames, 25 a second, that begins at 3 s."""
    facts: dict[str, Any] = dict.fromkeys((field.name for field in fields(Video)), 0)
    return Video(**{**facts, "n_frames": n, "first_s": 3.0, "duration_s": 3 + n / 25})


@given(n=LENGTHS, frames=st.integers(1, 32), share=st.floats(0, 1), at_a_rate=st.booleans())
def test_a_clip_around_an_instant_is_strided_and_inside_the_video(
    n: int, frames: int, share: float, at_a_rate: bool
) -> None:
    video = video_of(2 * n)
    strided = Sampling("strided", frames, frames_per_s=12.5 if at_a_rate else None)
    counted = n if at_a_rate else 2 * n
    [chosen] = strided.indices_around(video, video.first_s + share * (video.duration_s - video.first_s))
    span = 4 * (frames - 1) + 1
    assert chosen.tolist() == [(chosen[0] + 4 * k) % counted for k in range(frames)]
    if span > counted:
        assert chosen[0] == 0
        return
    assert 0 <= chosen[0] <= chosen[-1] < counted
    centre = share * counted
    assert abs(chosen[0] + span / 2 - centre) <= 1 or chosen[0] in (0, counted - span)


@given(n=LENGTHS, frames=st.integers(1, 32))
def test_a_clip_around_the_middle_is_the_one_of_the_whole_video(n: int, frames: int) -> None:
    video, strided = video_of(n), Sampling("strided", frames)
    middle = (video.first_s + video.duration_s) / 2
    assert strided.indices_around(video, middle).tolist() == strided.indices(video).tolist()


def test_only_strided_clips_lie_around_an_instant() -> None:
    with pytest.raises(ValueError, match="takes the whole video"):
        Sampling("centres", 8).indices_around(video_of(50), 1.0)


@given(n=LENGTHS, frames=FRAMES)
def test_one_clip_is_the_plain_sampling(n: int, frames: int) -> None:
    assert shifted_clips(n, frames, 1).tolist() == [segment_starts(n, frames).tolist()]
    assert dense_clips(n, frames, 1)[0, 0] == 0


@given(n=LENGTHS, frames=FRAMES, seed=SEEDS)
def test_training_takes_a_frame_of_every_segment(n: int, frames: int, seed: int) -> None:
    chosen = random_in_segments(n, frames, np.random.default_rng(seed))
    assert chosen.shape == (frames,)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) >= 0).all()
    if n <= frames:
        assert set(chosen.tolist()) == set(range(n))
    else:
        starts = segment_starts(n, frames)
        assert (chosen >= starts).all()
        assert (chosen < [*starts[1:], n]).all()


@given(n=LENGTHS, frames=FRAMES, seed=SEEDS)
def test_training_takes_a_frame_of_every_equal_interval(n: int, frames: int, seed: int) -> None:
    chosen = random_in_intervals(n, frames, np.random.default_rng(seed))
    assert chosen.shape == (frames,)
    assert chosen.dtype == np.int64
    if n < frames:
        assert chosen.tolist() == [round(Fraction(k * n, frames)) % n for k in range(frames)]
    else:
        assert (chosen // (n // frames)).tolist() == list(range(frames))


@given(n=LENGTHS, frames=st.integers(1, 32), stride=st.integers(1, 8), seed=SEEDS)
def test_training_takes_a_strided_clip_that_wraps_only_where_it_must(
    n: int, frames: int, stride: int, seed: int
) -> None:
    chosen = random_strided(n, frames, np.random.default_rng(seed), stride)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == [(int(chosen[0]) + k * stride) % n for k in range(frames)]
    assert chosen[0] == 0 if n <= frames * stride else chosen[0] <= n - frames * stride


def test_every_place_a_training_sampler_may_take_is_taken_about_equally_often() -> None:
    generator = np.random.default_rng(0)
    draws = {
        "segments": [random_in_segments(23, 4, generator) for _ in range(4000)],
        "intervals": [random_in_intervals(23, 4, generator) for _ in range(4000)],
    }
    segments = np.bincount(np.ravel(draws["segments"]), minlength=23) / 4000
    lengths = np.repeat([5, 6, 6, 6], [5, 6, 6, 6])  # floor(23 k / 4): 0, 5, 11, 17, 23
    np.testing.assert_allclose(segments, 1 / lengths, atol=0.04)
    intervals = np.bincount(np.ravel(draws["intervals"]), minlength=23) / 4000
    np.testing.assert_allclose(intervals, [1 / 5] * 20 + [0] * 3, atol=0.04)
    starts = [random_strided(70, 16, generator)[0] for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(starts) / 4000, [1 / 7] * 7, atol=0.04)


@pytest.mark.parametrize("name", ["segment_starts", "segment_centres", "segment_middles"])
@pytest.mark.parametrize(("n", "frames"), [(0, 8), (-1, 8), (8, 0)])
def test_no_frames_are_an_error(name: str, n: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"frames, 1 apart, of {n}"):
        getattr(sampling, name)(n, frames)


def test_no_clips_are_an_error() -> None:
    for sampler in (shifted_clips, dense_clips, strided_clips):
        with pytest.raises(ValueError, match="can't take 0 x 8 frames"):
            sampler(100, 8, 0)
