"""Frames of single clips, as search asks for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vidx.errors import InputError, Unreadable
from vidx.indexer.frames import clip_at, frames_of_clip, still
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store

SPACE = Space("toy", {"video": "0"}, Preprocess(48, 48), 4, "mean", 4)


@pytest.fixture(scope="module")
def video(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds, ten frames a second, frame k plain grey of level 5 * k."""
    return make_video(tmp_path_factory.mktemp("frames") / "a@2.mp4")


def numbers(frames: np.ndarray) -> list[int]:
    assert frames.shape == (4, 48, 48, 3)
    assert frames.dtype == np.uint8
    return [round(float(frame.mean()) / 5) for frame in frames]


def test_the_window_lies_around_the_instant(video: Path) -> None:
    assert numbers(clip_at(video, 2.5, SPACE, 2.0)) == [17, 22, 27, 32]


@pytest.mark.parametrize(("at_s", "expected"), [(0.0, [2, 7, 12, 17]), (5.0, [32, 37, 42, 47])])
def test_at_an_end_of_the_video_the_window_is_moved_inside(at_s: float, expected: list[int], video: Path) -> None:
    assert numbers(clip_at(video, at_s, SPACE, 2.0)) == expected


@pytest.mark.parametrize("clip_s", [2.0, 10.0])
def test_without_an_instant_the_frames_are_spread_over_the_whole_video(clip_s: float, video: Path) -> None:
    assert numbers(clip_at(video, None, SPACE, clip_s)) == [6, 18, 31, 43]


def test_what_gives_no_frames_is_told_with_its_reason(video: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"it ends at 5\.0 s, before 9 s"):
        clip_at(video, 9.0, SPACE)
    with pytest.raises(InputError, match="no file"):
        clip_at(tmp_path / "none.mp4", None, SPACE)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(Unreadable, match="not a video container"):
        clip_at(tmp_path / "text.mp4", None, SPACE)


def test_a_picture_becomes_a_clip_of_equal_frames_and_a_video_is_no_picture(video: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (100, 80), (10, 200, 30)).save(tmp_path / "green.png")
    frames = still(tmp_path / "green.png", SPACE)
    assert frames is not None
    assert frames.shape == (4, 48, 48, 3)
    assert (frames == (10, 200, 30)).all()
    assert still(video, SPACE) is None


def test_a_picture_is_turned_upright_as_its_camera_says(tmp_path: Path) -> None:
    from PIL import Image

    half = np.zeros((80, 80, 3), np.uint8)
    half[:40] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    frames = still(tmp_path / "turned.png", SPACE)
    assert frames is not None
    assert frames[0, :, 40:].mean() > 250  # white at the right
    assert frames[0, :, :8].mean() < 5


@pytest.mark.slow
def test_the_frames_of_a_stored_clip_are_those_of_its_ticks(archive: Path, indexed_store: Path) -> None:
    store = Store.open(indexed_store)
    (name,) = store.spaces()
    snapshot = Snapshot(store)
    clip_id, start_s, end_s, path = snapshot.rows(
        f"SELECT clip_id, start_s, end_s, path_bytes FROM {snapshot.clips(name)} JOIN files USING (video_id) ORDER BY 1"
    )[-1]
    frames = frames_of_clip(store, name, clip_id)
    again = clip_at(Path(os.fsdecode(path)), (start_s + end_s) / 2, store.space(name), end_s - start_s)
    assert np.array_equal(frames, again)
    with pytest.raises(InputError, match="no clip 99"):
        frames_of_clip(store, name, 99)
