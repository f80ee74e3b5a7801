"""The second decoder: the right frames where it accepts a file, and a refusal where it would give wrong ones."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from vidx.decoders import OpenVideo, decord, pyav
from vidx.errors import MediaError, NotVideo, Unreadable
from vidx.schema.records import Preprocess

pytest.importorskip("decord", reason="decord has no wheel for this platform")

MakeVideo = Callable[..., Path]
_PX = Preprocess(short_side_px=48, crop_px=48)
_SAME_PICTURE = 12  # mean difference of 256 levels: other versions of the decoder, another way to RGB
# Files whose damage decord hides, by a frame too many or too few.
_DAMAGED = {"bitflip_1e-3.mp4", "bitflip_1e-4.mp4", "bitflip_1e-5.mp4"}


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


@pytest.mark.slow
def test_whatever_it_accepts_it_shows_like_the_first_decoder(shared: Path) -> None:
    """Every odd file, 12 frames in order and 6 at random: same ticks, and nearly the same pictures."""
    with open(shared / "videos_odd" / "MANIFEST.csv", newline="", encoding="utf-8") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    accepted, wrong = 0, []
    for name in names:
        path = os.fsencode(shared / "videos_odd" / name)
        try:
            videos = [module.open_video(path, threads=2) for module in (decord, pyav)]
        except MediaError:
            continue
        accepted += 1
        assert np.array_equal(videos[0].timeline.ticks, videos[1].timeline.ticks)
        ticks = [int(tick) for tick in videos[0].timeline.ticks]
        chosen = [ticks[round(at)] for at in np.linspace(0, len(ticks) - 1, 12)]
        mixed = list(np.random.default_rng(0).permutation(len(ticks))[:6])
        for asked in (chosen, *([ticks[at]] for at in mixed)):
            with suppress(Unreadable):  # which says that what came before is not to be trusted
                for (_, one), (_, other) in zip(videos[0].frames_at(asked), videos[1].frames_at(asked), strict=True):
                    difference = np.abs(one.pixels(_PX).astype(int) - other.pixels(_PX)).mean()
                    if one.tick != other.tick or difference > _SAME_PICTURE:
                        wrong.append((name, one.tick, difference))
        for video in videos:
            video.close()
    assert accepted > 35
    assert {name for name, *_ in wrong} <= _DAMAGED, wrong


def test_noise_of_an_encrypted_file_is_not_shown(shared: Path) -> None:
    with pytest.raises(Unreadable, match="encrypted"):
        decord.open_video(os.fsencode(shared / "videos_odd" / "encrypted_cenc.mp4"))
