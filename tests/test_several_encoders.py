"""Several encoders in one run: one decoding, and in each space what a run of its own would have made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx import encoders
from vidx.config import IndexOptions
from vidx.encoders import EncoderSpec, VideoTextEncoder
from vidx.errors import InputError
from vidx.indexer import worker as worker_module
from vidx.indexer.answers import Clip, Ended, Opened
from vidx.indexer.encode import EncodedClip, encode
from vidx.indexer.jobs import Job, Part, Resume
from vidx.indexer.run import Done, check_encoders, index_archive
from vidx.schema.records import DecodedClip, FoundFile, Outcome
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.unfinished import Unfinished, read_unfinished
from vidx.schema.writer import Commit, StoreWriter
from vidx.tests.faults.checks import contents, doubled_thumbnails
from vidx.tests.faults.commands import PLUGIN, VIDX, finished
from vidx.tests.mixing import interleaved

BOTH = ("tiny", "tiny-5")
SPACES = ("a", "b")
FILE = FoundFile("/", b"/v.mp4", 1, 1, 1)

Messages = list[dict[str, Any]]


# Where a job goes on


def resume(n_done: int, **changes: Any) -> Resume:
    made = {"plan": "{}", "decoder": "pyav", "decode_mode": "exact", "versions": {"av": "1"}, "device": "cpu"}
    rest = {"precision": "float32", "first_clip_id": 7, "n_planned": 20, "resumable": True}
    return Resume(Unfinished("v", "s", **{**made, **rest, **changes}), n_done, 10.0 * n_done)


def job(*resumes: Resume | None) -> Job:
    return Job(FILE, "v", tuple(Part(space, resume=each) for space, each in zip(SPACES, resumes, strict=False)))


def test_a_job_goes_on_at_the_first_clip_that_any_space_lacks() -> None:
    assert job(None).resume is None
    assert job(early := resume(3)).resume is early
    assert job(resume(5), early).resume is early
    assert job(early, resume(5)).resume is early


@pytest.mark.parametrize(
    "other", [None, *(resume(5, **c) for c in ({"decoder": "x"}, {"versions": {}}, {"n_planned": 9}))]
)
def test_a_job_starts_anew_where_a_space_has_no_beginning_or_another_one(other: Resume | None) -> None:
    assert job(resume(3), other).resume is None
    assert job(other, resume(3)).resume is None


# Batches


class Counting:
    """An encoder whose vectors tell the level of grey; it keeps the sizes of its batches."""

    class spec:
        name = "counting"

    def __init__(self, dim: int) -> None:
        self.dim, self.batches = dim, list[int]()

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames))
        return np.stack([self.vector(int(clip[0, 0, 0, 0])) for clip in frames])

    def vector(self, level: int) -> np.ndarray:
        vector = np.random.default_rng([self.dim, level]).standard_normal(self.dim).astype(np.float32)
        return vector / np.float32(np.linalg.norm(vector))


@st.composite
def mixtures(draw: st.DrawFn) -> list[Opened | Clip | Ended]:
    """Answers of several jobs, each for one space or both, in one order that keeps each job's own."""
    left = {}
    for name in "uvw"[: draw(st.integers(1, 3))]:
        parts = draw(st.sampled_from([SPACES, SPACES[:1], SPACES[1:]]))
        owner = Job(FILE, name, tuple(Part(space) for space in parts))
        clips = [
            Clip(owner, tuple(view(level, 2 + 2 * SPACES.index(space)) for space in parts), False, number)
            for number, level in enumerate(draw(st.lists(st.integers(0, 255), max_size=12)))
        ]
        facts: Any = None
        left[name] = [Opened(owner, facts, len(clips), 0, "pyav", {}), *clips, Ended(owner, Outcome("ok"))]
    return interleaved(draw, left)


def view(level: int, px: int) -> DecodedClip:
    pixels = np.full((1, px, px, 3), level, np.uint8)
    return DecodedClip(0.0, 1.0, (level,), (0.0,), pixels, b"jpeg", level)


@given(mixtures(), st.integers(1, 9))
def test_every_clip_gets_the_vector_of_its_own_view_in_each_space_of_its_job(
    mixed: list[Opened | Clip | Ended], batch_size: int
) -> None:
    made = {space: Counting(4 + at) for at, space in enumerate(SPACES)}
    out = list(encode(iter(mixed), made, batch_size))
    for owner in {answer.job for answer in mixed}:
        given_clips = [answer for answer in mixed if isinstance(answer, Clip) and answer.job == owner]
        own = [answer for answer in out if answer.job == owner]
        assert (type(own[0]), type(own[-1])) == (Opened, Ended)
        for part in owner.parts:
            clips = [item for item in own[1:-1] if isinstance(item, EncodedClip) and item.space == part.space]
            assert [clip.number for clip in clips] == list(range(len(given_clips)))
            for clip in clips:
                assert np.array_equal(clip.vector, made[part.space].vector(clip.frame_pts[0]))
        assert len(own) == 2 + len(given_clips) * len(owner.parts)
    assert all(size <= batch_size for encoder in made.values() for size in encoder.batches)


# Whole runs


@pytest.fixture(autouse=True)
def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))


def tiles(number: int, size: tuple[int, int]) -> np.ndarray:
    made = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return np.repeat(np.repeat(made, size[1] // 6, axis=0), size[0] // 8, axis=1)


@pytest.fixture(scope="module")
def films(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films, a copy of one, a cut one, and a text."""
    folder = tmp_path_factory.mktemp("films")
    for name, n_frames in (("short.mp4", 130), ("long.mp4", 450)):
        make_video(folder / name, n_frames=n_frames, fps=5, gop=20, size=(160, 120), draw=tiles)
    shutil.copyfile(folder / "short.mp4", folder / "copy.mp4")
    (folder / "cut.mp4").write_bytes((folder / "long.mp4").read_bytes()[:-2000])
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Messages:
    """What decode processes are asked for."""
    asked: Messages = []
    make = worker_module.job_message

    def note(*arguments: Any, **options: Any) -> dict[str, Any]:
        asked.append(make(*arguments, **options))
        return asked[-1]

    monkeypatch.setattr(worker_module, "job_message", note)
    return asked


def index(folder: Path, store: Path, *names: str, **options: Any) -> dict[str, str]:
    """A run of its own; the state of each file by its name."""
    hooks = {"build": options.pop("build")} if "build" in options else {}
    chosen = IndexOptions(encoder=names or None, workers=1, **options)
    events = list(index_archive(folder, Store.create(store), chosen, **hooks))
    assert isinstance(events[-1], Done)
    return {os.path.basename(event.path): event.state for event in events if not isinstance(event, Done)}


def clips_of(store: Path, encoder: str) -> dict[tuple[Any, ...], bytes]:
    """What a space holds, whatever the ids: the vector of each clip by all that says which clip it is."""
    snapshot = Snapshot(Store.open(store))
    columns = "video_id, start_s, end_s, frame_pts::VARCHAR, frame_pts_s::VARCHAR, vector"
    rows = snapshot.rows(f"SELECT {columns} FROM {snapshot.clips(encoders.spec(encoder).space.name)}")
    found = {tuple(row[:-1]): np.asarray(row[-1], np.float32).tobytes() for row in rows}
    assert len(found) == len(rows)
    return found


def outcomes(store: Path, encoder: str) -> list[tuple[Any, ...]]:
    columns = "video_id, state, reason, first_bad_s, plan, decoder, decode_mode, n_clips"
    query = f"SELECT {columns} FROM newest WHERE space = $space ORDER BY video_id"
    return Snapshot(Store.open(store)).rows(query, {"space": encoders.spec(encoder).space.name})


def pictures(store: Path) -> dict[tuple[str, int], str]:
    rows = Snapshot(Store.open(store)).rows("SELECT video_id, frame_pts, image FROM thumbnails")
    return {(video_id, tick): hashlib.sha256(image).hexdigest() for video_id, tick, image in rows}


@pytest.fixture(scope="module")
def apart(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores of one encoder each."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(PLUGIN)
        patched.setenv("PYTHONPATH", str(PLUGIN))
        stores = {name: tmp_path_factory.mktemp("apart") / "store" for name in BOTH}
        for name, store in stores.items():
            index(films, store, name)
    return stores


@pytest.mark.slow
def test_each_space_gets_what_a_run_of_its_own_makes_of_one_decoding(
    films: Path, apart: dict[str, Path], messages: Messages, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    states = index(films, store, *BOTH)
    expected = {"copy.mp4": "indexed", "short.mp4": "linked", "long.mp4": "indexed"}
    assert states == {**expected, "cut.mp4": "failed", "text.mp4": "not_video"}
    paths = Counter(message["path_hex"] for message in messages)
    assert max(paths.values()) == 1
    assert {len(message["views"]) for message in messages} == {2}
    for name in BOTH:
        assert clips_of(store, name) == clips_of(apart[name], name)
        assert outcomes(store, name) == outcomes(apart[name], name)
    assert pictures(store) == pictures(apart["tiny"]) | pictures(apart["tiny-5"])
    held = contents(store)
    assert held.violations == []
    assert doubled_thumbnails(Snapshot(Store.open(store))) == []
    assert set(index(films, store, *BOTH).values()) == {"unchanged", "failed", "not_video"}
    assert contents(store).live == held.live


@pytest.mark.slow
def test_a_space_that_comes_later_leaves_the_first_as_it_is(
    films: Path, apart: dict[str, Path], messages: Messages, tmp_path: Path
) -> None:
    store = shutil.copytree(apart["tiny"], tmp_path / "store")
    first = contents(store)
    assert index(films, store, *BOTH)["long.mp4"] == "indexed"
    assert {len(message["views"]) for message in messages} == {1}
    after = contents(store)
    [tiny] = [name for name in after.live if name.startswith("tiny-") and name in first.live]
    assert after.live[tiny].sort_by("clip_id") == first.live[tiny].sort_by("clip_id")
    assert clips_of(store, "tiny-5") == clips_of(apart["tiny-5"], "tiny-5")
    assert pictures(store) == pictures(apart["tiny"]) | pictures(apart["tiny-5"])
    assert after.violations == []


def encoded(counts: Counter[str]) -> Callable[[EncoderSpec], VideoTextEncoder]:
    """Builds encoders that count their clips."""

    def build(spec: EncoderSpec) -> VideoTextEncoder:
        encoder = encoders.build(spec)
        plain = encoder.encode_video

        def encode_video(frames: np.ndarray) -> np.ndarray:
            counts[spec.name] += len(frames)
            return plain(frames)

        encoder.encode_video = encode_video  # type: ignore[method-assign]
        return encoder

    return build


@pytest.mark.slow
@pytest.mark.parametrize("n_commits", [3, 6])  # odd and even: the spaces have as many clips then, or not
def test_a_run_that_broke_off_goes_on_for_both(
    films: Path, apart: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_commits: int
) -> None:
    folder, store = tmp_path / "films", tmp_path / "store"
    folder.mkdir()
    shutil.copy2(films / "long.mp4", folder)
    commit, left = StoreWriter.commit, n_commits

    def refuse(writer: StoreWriter, rows: Commit) -> None:
        nonlocal left
        if left == 0:
            raise OSError("the plug is pulled")
        left -= 1
        commit(writer, rows)

    options: dict[str, Any] = {"commit_clips": 1, "batch_size": 1}
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "commit", refuse)
        with pytest.raises(OSError, match="plug"):
            index(folder, store, *BOTH, **options)
    begun = {attempt.space for attempt in read_unfinished(store)}
    assert len(begun) == 2
    counts: Counter[str] = Counter()
    assert index(folder, store, *BOTH, build=encoded(counts), **options) == {"long.mp4": "indexed"}
    assert set(counts.values()) == {9 - n_commits // 2}  # a clip that one of them lacks is decoded for both
    held = contents(store)
    assert held.violations == []
    [video_id] = held.videos
    for name in BOTH:
        own = {key: vector for key, vector in clips_of(apart[name], name).items() if key[0] == video_id}
        assert clips_of(store, name) == own
    assert doubled_thumbnails(Snapshot(Store.open(store))) == []


@pytest.mark.slow
def test_from_the_command_line(films: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    chosen = [part for name in (*BOTH, "tiny") for part in ("--encoder", name)]
    done = finished([VIDX, "index", str(films), "--store", str(store), *chosen, "--json"])
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout.splitlines()[-1])
    per_space = [len(clips_of(store, name)) for name in BOTH]
    assert account["clips"] == sum(per_space)
    assert per_space[0] == per_space[1] > 9
    runs = Snapshot(Store.open(store)).rows("SELECT run_id, encoder, state FROM runs ORDER BY encoder")
    assert [(encoder, state) for _, encoder, state in runs] == [("tiny", "done"), ("tiny-5", "done")]
    assert len({run_id for run_id, _, _ in runs}) == 1
    for name in BOTH:
        found = finished([VIDX, "search", "red", "--store", str(store), "--encoder", name])
        assert found.returncode == 0, found.stderr
    built = finished([VIDX, "index", "--store", str(store), "--rebuild-index", *chosen])
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("index g000001") == 2  # however often one is named
    assert len(list((store / "index").glob("*/CURRENT"))) == 2


def test_an_encoder_named_twice_is_one(tmp_path: Path) -> None:
    spaces = check_encoders(tmp_path / "store", IndexOptions(encoder=("tiny", "tiny-5", "tiny")))
    assert [space.encoder for space in spaces] == list(BOTH)


def test_weights_by_hand_are_of_one_encoder() -> None:
    with pytest.raises(InputError, match="weights are of one encoder"):
        IndexOptions(encoder=BOTH, weights=(Path("a.safetensors"),))
    assert IndexOptions(encoder="tiny").encoder == ("tiny",)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="encoder can't be ''"):
        IndexOptions(encoder=("tiny", ""))


@pytest.fixture
def still_film(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    """A minute of one picture, and half a minute of others."""
    folder = tmp_path / "still"
    folder.mkdir()
    make_video(folder / "a.mp4", n_frames=450, fps=5, gop=50, draw=lambda n, size: tiles(max(0, n - 300), size))
    return folder


@pytest.mark.slow
def test_still_clips_are_skipped_in_each_space(still_film: Path, tmp_path: Path) -> None:
    together: Counter[str] = Counter()
    store = tmp_path / "store"
    index(still_film, store, *BOTH, skip_still=True, build=encoded(together))
    for name in BOTH:
        alone: Counter[str] = Counter()
        index(still_film, tmp_path / name, name, skip_still=True, build=encoded(alone))
        assert together[name] == alone[name] < 9
        assert clips_of(store, name) == clips_of(tmp_path / name, name)
