"""Shots: which clips they make, and that real cuts and fades are found where they are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.config import IndexOptions
from vidx.decoders import pyav
from vidx.errors import InputError
from vidx.indexer import shots
from vidx.indexer.plan import Windows
from vidx.indexer.shots import LEAST_S, check_detector, plan_shots
from vidx.schema.records import Timeline
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.test_plan import shown_at, steady, timelines

_CUTS_S = (3.0, 7.4, 19.0)  # of the film below, and a fade through black around 24 s
_FPS, _FILM_S = 25, 30


def of_shots(clip_s: float = 10.0, frames: int = 8) -> Windows:
    return Windows(clip_s, clip_s, frames, segment="shots")


def spans_of(line: Timeline, cuts_s: list[float], clip_s: float = 10.0) -> list[tuple[float, float]]:
    ticks = [round((at_s + line.origin_s) / float(line.time_base)) for at_s in cuts_s]
    return [(round(clip.start_s, 3), round(clip.end_s, 3)) for clip in plan_shots(line, ticks, of_shots(clip_s))]


# From cuts to clips


def test_each_shot_is_a_clip_and_a_video_without_cuts_is_one():
    assert spans_of(steady(9), []) == [(0, 9)]
    assert spans_of(steady(20, first_s=2.0), [5, 14]) == [(2, 5), (5, 14), (14, 22)]


def test_long_shots_are_divided_equally_and_none_is_longer_than_asked_for():
    assert spans_of(steady(32), [4]) == [(0, 4), (4, 13.333), (13.333, 22.667), (22.667, 32)]
    assert spans_of(steady(20), []) == [(0, 10), (10, 20)]


def test_short_shots_are_joined_to_the_next_and_the_last_to_the_one_before():
    assert spans_of(steady(12), [3, 3.4, 8]) == [(0, 3), (3, 8), (8, 12)]
    assert spans_of(steady(12), [0.5, 6, 11.5]) == [(0, 6), (6, 12)]
    assert spans_of(steady(4), [0.4, 0.8, 1.2, 1.6, 2.0, 2.4]) == [(0, 1.2), (1.2, 2.4), (2.4, 4)]


def test_parts_of_a_shot_in_which_no_frame_starts_are_not_made():
    year_s = 365 * 86400
    ticks = np.array([0, 1000, 2000, year_s * 1000])
    line = Timeline(ticks, ticks[:1], year_s * 1000 + 40, steady(1).time_base, 0.0)
    clips = plan_shots(line, [], of_shots())
    assert len(clips) == 2
    assert all(0 < clip.end_s - clip.start_s <= 10 for clip in clips)


@given(timelines(), st.sets(st.integers(0, 60), max_size=20), st.floats(1, 30), st.integers(1, 16))
def test_every_frame_starts_in_one_clip_and_clips_keep_to_cuts_and_lengths(line, places, clip_s, frames):
    cuts = [int(line.ticks[place]) for place in sorted(places) if 0 < place < len(line.ticks)]
    clips = plan_shots(line, cuts, of_shots(clip_s, frames))
    times_s, cuts_s = line.seconds(line.ticks), line.seconds(np.array(cuts, np.int64))
    for time_s in times_s:
        assert sum(clip.start_s - 1e-5 <= time_s < clip.end_s - 1e-5 for clip in clips) >= 1
        assert sum(clip.start_s + 1e-5 < time_s < clip.end_s - 1e-5 for clip in clips) <= 1
    for clip in clips:
        length_s = clip.end_s - clip.start_s
        assert length_s <= clip_s + 1e-5
        inside = cuts_s[(cuts_s > clip.start_s + 1e-5) & (cuts_s < clip.end_s - 1e-5)]
        near = [*cuts_s, times_s[0], float(line.seconds(line.end_tick))]
        for cut_s in inside:  # only one that would have made a shot shorter than a second
            assert any(0 < abs(cut_s - other) < LEAST_S for other in near)
        centres = clip.start_s + (np.arange(frames) + 0.5) * length_s / frames
        assert list(clip.ticks) == [int(line.ticks[shown_at(times_s, centre_s)]) for centre_s in centres]
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in pairwise(clips))


def test_shots_have_no_stride():
    with pytest.raises(InputError, match="stride"):
        IndexOptions(segment="shots", stride_s=5.0)


def test_without_the_detectors_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shots, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        check_detector()
    assert "vidx[shots]" in error.value.hint


def test_the_plan_of_windows_is_recorded_as_before_and_that_of_shots_has_no_stride():
    assert json.loads(Windows(10.0, 5.0, 8).to_json()) == {
        "segment": "windows",
        "clip_s": 10.0,
        "stride_s": 5.0,
        "frames": 8,
    }
    assert json.loads(of_shots().to_json()) == {"segment": "shots", "clip_s": 10.0, "frames": 8}


# Finding cuts


def draw_film(number: int, size: tuple[int, int]) -> np.ndarray:
    """Shots of coloured tiles that drift; the fourth fades to black, and a fifth comes out of it."""
    time_s = number / _FPS
    shot = sum(time_s >= cut_s - 1e-6 for cut_s in (*_CUTS_S, 24.0))
    tiles = np.random.default_rng(shot).integers(0, 256, (6, 12, 3))
    picture = np.repeat(np.repeat(tiles, 20, axis=0), 20, axis=1)
    picture = np.roll(picture, number // 5, axis=1)[: size[1], : size[0]]
    light = min(1.0, max(0.0, abs(time_s - 24.0) - 0.2))  # black for 0.4 s, a second before and after to get there
    return (picture * light).astype(np.uint8)


@pytest.fixture(scope="module")
def film(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    options = {"crf": "23", "sc_threshold": "40"}
    size = (160, 120)
    make_video(
        folder / "film.mp4", n_frames=_FPS * _FILM_S, fps=_FPS, size=size, gop=250, draw=draw_film, options=options
    )
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


needs_detector = pytest.mark.skipif(
    not all(map(shots.find_spec, ("scenedetect", "cv2"))), reason="PySceneDetect is not installed"
)


@needs_detector
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exact", "skim"])
def test_cuts_are_found_to_a_frame_or_two_and_a_fade_where_it_is_black(mode, film):
    video = pyav.open_video(bytes(film / "film.mp4"), mode=mode)
    found = video.timeline.seconds(np.array(shots.cuts(video)))
    video.close()
    n_cuts = len(_CUTS_S)
    assert found[:n_cuts] == pytest.approx(_CUTS_S, abs=0.09)
    assert len(found) > n_cuts
    assert found[n_cuts:] == pytest.approx(24.0, abs=1.0)  # several, which make one clip


@needs_detector
@pytest.mark.slow
def test_a_run_by_shots_stores_a_clip_for_each_and_the_frames_lie_inside(film, server, tmp_path):
    store = tmp_path / "store"
    command = ["vidx", "index", str(film), "--store", str(store), "--encoder", "tiny"]
    assert server.run([*command, "--segment", "shots"]).code == 0
    snapshot = Snapshot(Store.open(store))
    [space] = Store.open(store).spaces()
    clips = snapshot.rows(f"SELECT start_s, end_s, frame_pts_s FROM {snapshot.clips(space)} ORDER BY start_s")
    starts = [start for start, _, _ in clips]
    assert starts == pytest.approx([0, 3, 7.4, 13.2, 19, 24], abs=1)  # the third lasts 11.6 s and is halved
    assert [end for _, end, _ in clips] == pytest.approx([*starts[1:], _FILM_S])
    assert all(start <= min(times) <= max(times) < end for start, end, times in clips)
    [[versions, plan]] = snapshot.rows("SELECT versions, plan FROM newest")
    assert "scenedetect" in versions
    assert json.loads(plan)["segment"] == "shots"
    assert "1 unchanged" in (again := server.run(command)).errors + again.printed  # whoever does not ask keeps them
    assert server.run([*command, "--segment", "windows"]).code == 0
    snapshot = Snapshot(Store.open(store))
    assert len(snapshot.rows(f"SELECT 1 FROM {snapshot.clips(space)}")) == 3


@needs_detector
@pytest.mark.slow
def test_a_run_with_a_stride_of_shots_ends_with_one_line(film, server, tmp_path):
    options = ["--encoder", "tiny", "--segment", "shots", "--stride", "5"]
    run = server.run(["vidx", "index", str(film), "--store", str(tmp_path / "store"), *options])
    assert run.code == 2
    assert len(run.errors.strip().splitlines()) <= 2
    assert "stride" in run.errors
    assert not (tmp_path / "store").exists()


@needs_detector
@pytest.mark.slow
def test_cuts_of_a_joined_film_are_nearly_all_found_and_few_are_made_up(shared):
    with open(shared / "videos" / "SEGMENTS.csv", newline="") as file:
        truth = np.array([float(row["start_s"]) for row in csv.DictReader(file)][1:])
    video = pyav.open_video(bytes(shared / "videos" / "long" / "joined_a.mp4"), mode="skim")
    found = video.timeline.seconds(np.array(shots.cuts(video)))
    video.close()
    distances = np.abs(found[:, None] - truth)
    assert (distances.min(axis=0) <= 0.1).mean() >= 0.96
    assert (distances.min(axis=1) <= 0.1).mean() >= 0.93
