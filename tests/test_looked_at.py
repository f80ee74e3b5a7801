"""Frames of whole videos by the rules of published code: the right ones, of every view, in the order asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vidx.indexer.frames import Look, looked_at
from vidx.indexer.sampling import RULES, Sampling
from vidx.schema.records import Preprocess

pytestmark = pytest.mark.slow  # it decodes in processes of its own

STEP = 5  # grey levels between frames


def marked(number: int, size: tuple[int, int]) -> np.ndarray:
    """A frame whose grey tells its number; its left third is darker, its right third brighter."""
    frame = np.full((size[1], size[0], 3), 40 + STEP * number, np.uint8)
    frame[:, : size[0] // 3] -= 20
    frame[:, -(size[0] // 3) :] += 20
    return frame


def numbers_in(view: np.ndarray, offset: int = 0) -> list[int]:
    """The numbers of the frames of a view (T, side, side, 3), by the grey of their middle."""
    side = view.shape[1]
    grey = view[:, side // 4 : -side // 4, side // 4 : -side // 4].mean(axis=(1, 2, 3))
    return [round((level - offset - 40) / STEP) for level in grey]


@pytest.mark.parametrize("rule", RULES)
def test_frames_are_those_of_the_rule(rule: str, tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", n_frames=31, draw=marked, size=(48, 48))
    clips = 1 if rule in ("starts", "centres", "middles") else 3
    sampling = Sampling(rule, 4, clips)
    [looked] = looked_at([(path, [Look(sampling, Preprocess(24, 24))])])
    assert looked.facts is not None
    assert looked.facts.n_frames == 31
    assert np.array_equal(looked.indices[0], sampling.indices(looked.facts))
    assert looked.views[0].shape == (clips, 4, 24, 24, 3)
    shown = [numbers_in(view[:, :, 8:16].repeat(3, axis=2)) for view in looked.views[0]]
    assert shown == looked.indices[0].tolist()


def test_three_crops_of_a_clip_stand_together_left_right_and_middle(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    path = make_video(tmp_path / "a.mp4", n_frames=24, draw=marked, size=(144, 48))
    looks = [
        Look(Sampling("interleaved", 4, 2), Preprocess(48, 48, crops=3)),
        Look(Sampling("starts", 5), Preprocess(48, 48)),
    ]
    [looked] = looked_at([(path, looks)])
    views, single = looked.views
    assert (views.shape, single.shape) == ((6, 4, 48, 48, 3), (1, 5, 48, 48, 3))
    for clip in range(2):
        left, right, middle = views[3 * clip : 3 * clip + 3]
        wanted = looked.indices[0][clip].tolist()
        assert (numbers_in(left, -20), numbers_in(right, 20), numbers_in(middle)) == (wanted, wanted, wanted)
    assert numbers_in(single[0]) == looked.indices[1][0].tolist()


def test_a_rate_of_frames_counts_seconds(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    times_ms = [
        0,
        900,
        1100,
        1900,
        2500,
        3100,
        4000,
        4400,
        4700,
    ]  # frames on screen at 0, 1, 2, 3 and 4 s: 0, 1, 3, 4, 6
    path = make_video(tmp_path / "a.mp4", pts=times_ms, draw=marked, size=(48, 48))
    [looked] = looked_at([(path, [Look(Sampling("starts", 5, frames_per_s=1.0), Preprocess(24, 24))])])
    assert looked.indices[0].tolist() == [[0, 1, 2, 3, 4]]
    assert numbers_in(looked.views[0][0][:, :, 8:16].repeat(3, axis=2)) == [0, 1, 3, 4, 6]


def test_what_gives_no_frames_says_why_and_others_follow(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    good = make_video(tmp_path / "good.mp4", n_frames=20, draw=marked)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    look = [Look(Sampling("starts", 2), Preprocess(24, 24))]
    asked = [tmp_path / "bad.mp4", good, tmp_path / "gone.mp4", *[good] * 8]
    found = list(looked_at((path, look) for path in asked))
    assert [bool(looked.views) for looked in found] == [False, True, False, *[True] * 8]
    assert all(looked.reason for looked in (found[0], found[2]))


@pytest.mark.parametrize(("rule", "frames", "clips"), [("starts", 4, 2), ("nosuch", 4, 1), ("shifted", 0, 1)])
def test_what_can_not_be_sampled_is_refused(rule: str, frames: int, clips: int) -> None:
    with pytest.raises(ValueError, match="can't sample"):
        Sampling(rule, frames, clips)
