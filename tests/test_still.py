"""Still footage: what counts as still, and that skipped clips are there all the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.indexer.answers import Clip, Ended, Opened
from vidx.indexer.encode import EncodedClip, encode
from vidx.indexer.jobs import Job, Part
from vidx.indexer.still import MOST_CHANGE, Extent, is_still
from vidx.schema.records import DecodedClip, FoundFile, Outcome
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.mixing import interleaved

_FRAMES, _DIM = 4, 8


def pixels_of(clip: np.ndarray) -> np.ndarray:
    return np.clip(clip, 0, 255).astype(np.uint8)


def view(rng: np.random.Generator, height: int, width: int, noise: float = 0.0, frames: int = 4) -> np.ndarray:
    """A clip of smooth coloured ground, float, with the noise of a sensor; the ground hangs on the size alone."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([60 + 100 * x / width, 60 + 100 * y / height, 128 + 40 * np.sin(x / 9)], axis=-1)
    return ground + rng.normal(0, noise, (frames, height, width, 3))


def still(a: np.ndarray, b: np.ndarray) -> bool:
    return is_still(Extent.of(pixels_of(a)), Extent.of(pixels_of(b)))


# What counts as still


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_blocks_tile_the_picture_and_an_extent_is_of_their_means(height, width, frames, seed):
    clip = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    extent = Extent.of(clip)
    rows, columns = (max(1, round(length / 8)) for length in (height, width))
    assert extent.lowest.shape == extent.highest.shape == (rows, columns, 3)
    for row in range(rows):
        for column in range(columns):
            block = clip[
                :,
                row * height // rows : (row + 1) * height // rows,
                column * width // columns : (column + 1) * width // columns,
            ]
            means = block.mean(axis=(1, 2))
            assert extent.lowest[row, column] == pytest.approx(means.min(axis=0), abs=1e-3)
            assert extent.highest[row, column] == pytest.approx(means.max(axis=0), abs=1e-3)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(112, 112), (130, 130), (60, 101)]), st.floats(0, 6))
def test_the_same_view_is_still_however_its_noise_falls(seed, size, noise):
    rng = np.random.default_rng(seed)
    assert still(view(rng, *size, noise), view(rng, *size, noise))


@given(st.integers(0, 2**32 - 1), st.integers(0, 102), st.integers(0, 94), st.integers(0, 3), st.booleans())
def test_somebody_small_anywhere_in_any_frame_of_either_clip_is_change(seed, left, top, frame, is_first):
    rng = np.random.default_rng(seed)
    a, b = view(rng, 112, 112, 4), view(rng, 112, 112, 4)
    changed = a if is_first else b
    patch = changed[frame, top : top + 18, left : left + 10]  # in a picture of 224 pixels somebody a twelfth as high
    patch += np.where(patch.mean() < 128, 50, -50)
    assert not still(a, b)
    assert not still(b, a)


@given(st.integers(0, 2**32 - 1))
def test_a_clip_that_moves_inside_itself_is_not_even_still_against_itself(seed):
    rng = np.random.default_rng(seed)
    moving = view(rng, 64, 64)
    moving[:2, 20:40, 20:40] += 60
    assert not still(moving, moving)


def test_light_that_fades_slowly_is_change_once_it_has_gone_too_far():
    rng = np.random.default_rng(0)
    clips = [view(rng, 64, 64) - level for level in range(0, 40, 2)]
    verdicts = [still(clips[0], clip) for clip in clips]
    assert verdicts == sorted(verdicts, reverse=True)
    assert verdicts[1]
    assert not verdicts[int(MOST_CHANGE)]


# Skipping in the chain


class Recorder:
    """An encoder whose vectors tell which clip they were made of; it keeps the sizes of its batches."""

    class spec:
        name = "recorder"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seen: list[int] = []

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames))
        self.seen += [int(clip[0, 0, 0, 0]) for clip in frames]
        return np.stack([vector_of(clip) for clip in frames])


def vector_of(clip: np.ndarray) -> np.ndarray:
    """Unit norm; other levels of grey give other vectors."""
    vector = np.random.default_rng(int(clip[0, 0, 0, 0])).standard_normal(_DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def job(name: str) -> Job:
    return Job(FoundFile("/", f"/{name}".encode(), 1, 1, 1), name, (Part("space"),))


def clip_of(name: str, number: int, level: int) -> Clip:
    """A clip of plain grey."""
    pixels = np.full((_FRAMES, 16, 16, 3), level, np.uint8)
    clip = DecodedClip(10.0 * number, 10.0 * number + 10, (number,), (10.0 * number,), pixels, b"jpeg", number)
    return Clip(job(name), (clip,), damaged=False, number=number)


def opened(name: str) -> Opened:
    return Opened(job(name), None, 0, 0, "pyav", {})  # type: ignore[arg-type]


def answers_of(name: str, levels: list[int]) -> list[Opened | Clip | Ended]:
    clips = [clip_of(name, number, level) for number, level in enumerate(levels)]
    return [opened(name), *clips, Ended(job(name), Outcome("ok"))]


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[dict[str, list[int]], list[Opened | Clip | Ended]]:
    """Levels of the clips of several videos, and their answers in one order that keeps each video's own."""
    levels = st.lists(st.sampled_from([10, 14, 22, 100, 200]), max_size=30)
    videos = {name: draw(levels) for name in "abc"[: draw(st.integers(1, 3))]}
    return videos, interleaved(draw, {name: answers_of(name, levels) for name, levels in videos.items()})


def expected_levels(levels: list[int]) -> list[int]:
    """For each clip of a video, the level of the clip whose vector it is to get."""
    sources: list[int] = []
    for level in levels:
        sources.append(sources[-1] if sources and abs(level - sources[-1]) <= MOST_CHANGE else level)
    return sources


@given(mixtures(), st.integers(1, 9))
def test_a_still_clip_gets_the_vector_of_the_last_encoded_one_of_its_own_video(mixture, batch_size):
    videos, mixed = mixture
    encoder = Recorder()
    out = list(encode(iter(mixed), {"space": encoder}, batch_size, skip_still=True))
    for name, levels in videos.items():
        own = [answer for answer in out if answer.job.video_id == name]
        assert isinstance(own[0], Opened)
        assert isinstance(own[-1], Ended)
        clips = own[1:-1]
        assert [(clip.start_s, clip.thumbnail_pts) for clip in clips] == [(10.0 * n, n) for n in range(len(levels))]
        for clip, level in zip(clips, expected_levels(levels), strict=True):
            assert np.array_equal(clip.vector, vector_of(np.full((1, 1, 1, 1), level)))
    n_encoded = sum(1 for levels in videos.values() for _ in changes(expected_levels(levels)))
    assert sum(encoder.batches) == n_encoded
    assert all(size <= batch_size for size in encoder.batches)


def changes(sources: list[int]) -> Iterator[int]:
    """Where another clip's vector is used than before."""
    yield from (n for n, (a, b) in enumerate(pairwise([None, *sources])) if a != b)


@given(mixtures(), st.integers(1, 9))
def test_without_the_option_every_clip_is_encoded_and_every_batch_but_the_last_is_full(mixture, batch_size):
    videos, mixed = mixture
    encoder = Recorder()
    out = list(encode(iter(mixed), {"space": encoder}, batch_size))
    n_clips = sum(map(len, videos.values()))
    assert sum(isinstance(answer, EncodedClip) for answer in out) == n_clips
    n_full, rest = divmod(n_clips, batch_size)
    assert encoder.batches == [batch_size] * n_full + [rest] * (rest > 0)


def test_a_video_that_is_decoded_anew_starts_with_a_clip_of_its_own():
    again = [opened("a"), clip_of("a", 0, 50), opened("a"), clip_of("a", 0, 53), Ended(job("a"), Outcome("ok"))]
    encoder = Recorder()
    list(encode(iter(again), {"space": encoder}, 8, skip_still=True))
    assert encoder.seen == [50, 53]


def test_a_long_still_video_does_not_pile_up_behind_a_batch_that_never_fills():
    taken = 0

    def source() -> Iterator[Opened | Clip]:
        nonlocal taken
        yield opened("a")
        for number in range(1000):
            taken += 1
            yield clip_of("a", number, 70 + number % 3)

    lags = [taken - given for given, _ in enumerate(encode(source(), {"space": Recorder()}, 8, skip_still=True))]
    assert max(lags) <= 64
    assert max(lags[100:]) <= 1


# Whole runs


def draw_room(number: int, size: tuple[int, int]) -> np.ndarray:
    """A frame each second: noise over grey; somebody walks by in seconds 20 to 30, and a lamp goes on at 50."""
    rng = np.random.default_rng(number)
    picture = rng.normal(90 if number < 50 else 130, 3, (size[1], size[0], 3))
    if 20 <= number < 30:
        left = (number - 20) * 12
        picture[40:80, left : left + 20] = (150, 40, 40)
    return pixels_of(picture)


@pytest.fixture(scope="module")
def room(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    make_video(folder / "room.mp4", n_frames=80, fps=1, size=(160, 120), draw=draw_room, options={"crf": "28"})
    return folder


@pytest.fixture(scope="module")
def server_and_record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForkServer, Path]]:
    record = tmp_path_factory.mktemp("record") / "encoded"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_RECORD", str(record))
        server = ForkServer()
    yield server, record
    server.close()


@pytest.mark.slow
def test_a_run_encodes_what_changes_and_stores_every_clip_and_what_is_planned_stays(room, server_and_record, tmp_path):
    server, record = server_and_record

    def index(*options: str) -> tuple[int, dict[str, object], list[tuple[float, float, list[float]]]]:
        """How many clips were encoded, the plan that is recorded, the clips in order."""
        record.write_text("")
        store = tmp_path / "store"
        run = server.run(["vidx", "index", str(room), "--store", str(store), "--encoder", "tiny", *options])
        assert run.code == 0, run.errors
        snapshot = Snapshot(Store.open(store))
        [[plan]] = snapshot.rows("SELECT plan FROM newest")
        [space] = Store.open(store).spaces()
        clips = snapshot.rows(f"SELECT start_s, end_s, vector FROM {snapshot.clips(space)} ORDER BY start_s")
        return len(record.read_text().splitlines()), json.loads(plan), clips

    n_encoded, plan, clips = index("--skip-still")
    assert [(start, end) for start, end, _ in clips] == [(10.0 * n, 10.0 * n + 10) for n in range(8)]
    same = [n for n, (a, b) in enumerate(pairwise(clips), 1) if a[2] == b[2]]
    assert same == [1, 4, 6, 7]  # the clip behind the walk changes as well: what is seen against it has gone
    assert n_encoded == 4
    assert plan["skip_still"] is True
    assert index()[:2] == (0, plan)  # a run without the option leaves it
    n_encoded, plan, anew = index("--clip", "10")  # and one that asks for windows plans anew
    assert n_encoded == 8
    assert "skip_still" not in plan
    cosines = [float(np.dot(a[2], b[2])) for a, b in zip(clips, anew, strict=True)]
    assert min(cosines) > 0.999
