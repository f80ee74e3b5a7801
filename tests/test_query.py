"""What is asked, in words and by example, becomes one unit vector."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidx import encoders
from vidx.config import SearchOptions
from vidx.encoders import EncoderSpec
from vidx.errors import InputError, StoreError
from vidx.schema import tables
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.query import Asked, check_asked, check_example, encoder_of, query_vectors

SPACE = Space("toy", {"video": "ab"}, Preprocess(16, 16), frames=4, pooling="mean", dim=4)
WORDS = {"cat": [1, 0, 0, 0], "dog": [0, 1, 0, 0], "snow": [0, 0, 1, 0], "anticat": [-1, 0, 0, 0]}


class Toy:
    """Words are axes; a clip is its mean colour and its share of difference between first and last frame."""

    spec = EncoderSpec("toy", "toy", "", "", SPACE, ())

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([WORDS[text] for text in texts], np.float32)

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        self.seen.extend(frames)
        colours = frames.astype(np.float32).mean(axis=(1, 2, 3))
        moved = np.abs(frames[:, -1].astype(np.float32) - frames[:, 0]).mean(axis=(1, 2, 3))
        vectors = np.column_stack([colours + 1, moved])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    encoder = Toy()
    monkeypatch.setattr(encoders, "of_space", lambda space: encoder.spec)
    monkeypatch.setattr(encoders, "build", lambda spec: encoder)
    return encoder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that knows the space and holds nothing."""
    store = Store.create(tmp_path / "store")
    with writing(store) as opened:
        opened.add_space(SPACE)
    return store


def unit(*numbers: float) -> np.ndarray:
    vector = np.array(numbers, np.float32)
    return vector / np.linalg.norm(vector)


def asked(text: str | None = None, like: Sequence[Any] = (), unwanted: Sequence[str] = ()) -> Asked:
    return check_asked(
        [] if text is None else [text], SearchOptions(like=tuple(map(str, like)), unwanted=tuple(unwanted))
    )


def vector_of(store: Store, *parts: Any, **others: Any) -> np.ndarray:
    [vector] = query_vectors(Snapshot(store), SPACE, asked(*parts, **others))
    return vector


def test_a_text_alone_is_its_own_vector(store: Store, toy: Toy) -> None:
    assert vector_of(store, "cat").tolist() == [1, 0, 0, 0]


def test_what_is_not_wanted_takes_away_half(store: Store, toy: Toy) -> None:
    np.testing.assert_allclose(vector_of(store, "cat", unwanted=["snow"]), unit(1, 0, -0.5, 0), atol=1e-6)


def test_several_texts_are_summed(store: Store, toy: Toy) -> None:
    both = check_asked(["cat", "snow"], SearchOptions())
    [vector] = query_vectors(Snapshot(store), SPACE, both)
    np.testing.assert_allclose(vector, unit(1, 0, 1, 0), atol=1e-6)
    assert str(both) == "cat; snow"


def test_events_that_follow_have_vectors_of_their_own(store: Store, toy: Toy) -> None:
    parts = check_asked(["cat"], SearchOptions(unwanted=("snow",), then=("dog", "cat")))
    first, second, third = query_vectors(Snapshot(store), SPACE, parts)
    np.testing.assert_allclose(first, unit(1, 0, -0.5, 0), atol=1e-6)
    assert second.tolist() == encoder_of(SPACE).encode_text(["dog"])[0].tolist()
    assert third.tolist() == [1, 0, 0, 0]
    assert str(parts) == "cat; not snow; then dog; then cat"


def test_several_that_are_not_wanted_take_away_half_together(store: Store, toy: Toy) -> None:
    share = 0.5 / np.sqrt(2)
    both = vector_of(store, "cat", unwanted=["snow", "dog"])
    np.testing.assert_allclose(both, unit(1, -share, -share, 0), atol=1e-6)


def test_not_wanting_what_is_wanted_changes_nothing(store: Store, toy: Toy) -> None:
    np.testing.assert_allclose(vector_of(store, "cat", unwanted=["cat"]), unit(1, 0, 0, 0), atol=1e-6)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), (255, 0, 0)).save(path)
    return path


def test_a_picture_is_a_clip_in_which_nothing_moves(store: Store, toy: Toy, picture: Path) -> None:
    np.testing.assert_allclose(vector_of(store, None, [picture]), unit(256, 1, 1, 0), atol=1e-6)
    [frames] = toy.seen
    assert frames.shape == (4, 16, 16, 3)
    assert (frames == frames[:1]).all()


def test_words_and_examples_are_summed_before_half_is_taken_away(store: Store, toy: Toy, picture: Path) -> None:
    wanted = unit(*(unit(1, 0, 0, 0) + unit(256, 1, 1, 0)))
    np.testing.assert_allclose(vector_of(store, "cat", [picture]), wanted, atol=1e-6)
    less = unit(*(wanted - unit(0, 1, 0, 0) / 2))
    np.testing.assert_allclose(vector_of(store, "cat", [picture], ["dog"]), less, atol=1e-6)


def test_parts_that_leave_nothing_are_one_error(store: Store, toy: Toy) -> None:
    with pytest.raises(InputError, match="cancel each other out"):
        vector_of(store, "dog", unwanted=["cat", "anticat"])


def test_nothing_to_look_for_is_one_error() -> None:
    with pytest.raises(InputError, match="nothing to look for") as caught:
        asked(unwanted=["snow"])
    assert caught.value.hint == "give TEXT, or --like FILE, or a filter with --where"


@pytest.mark.parametrize("unwanted", ["", " \n"])
def test_an_empty_text_is_refused_wherever_it_stands(unwanted: str) -> None:
    with pytest.raises(InputError, match="the query is empty"):
        asked("cat", unwanted=[unwanted])


def test_an_answer_repeats_what_was_asked(picture: Path) -> None:
    assert str(asked(" a cat ")) == "a cat"
    assert str(asked("a cat", unwanted=["snow", "a dog"])) == "a cat; not snow; not a dog"
    assert str(asked(None, [picture])) == f"like {picture}"
    assert str(asked("a cat", [picture], ["snow"])) == f"a cat; like {picture}; not snow"


@pytest.mark.parametrize(
    ("given", "name", "at_s"),
    [
        ("a.mp4", "a.mp4", None),
        ("a.mp4@12.5", "a.mp4", 12.5),
        ("a.mp4@0", "a.mp4", 0.0),
        ("b@3", "b@3", None),  # a file of that very name
        ("b@3@4", "b@3", 4.0),
        ("b@3@4e-1", "b@3", 0.4),
    ],
)
def test_an_example_is_a_file_or_an_instant_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str, at_s: float | None
) -> None:
    for there in ("a.mp4", "b@3", "b"):
        (tmp_path / there).touch()
    monkeypatch.chdir(tmp_path)
    example = check_example(given)
    assert (str(example.path), example.at_s) == (name, at_s)


@pytest.mark.parametrize(
    "given",
    ["", "@", "@3", "no.mp4", "no.mp4@3", "a.mp4@", "a.mp4@-1", "a.mp4@nan", "a.mp4@inf", "a.mp4@1:30", "x" * 5000],
    ids=lambda given: given[:10],
)
def test_an_example_that_is_not_there_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--like: no file") as caught:
        check_example(given)
    assert caught.value.hint == "name a picture or a video, or VIDEO@SECONDS"


def test_a_folder_is_no_example(tmp_path: Path) -> None:
    for given in (str(tmp_path), f"{tmp_path}@3"):
        with pytest.raises(InputError, match=f"{tmp_path}.* is no file"):
            check_example(given)


def test_an_example_may_have_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(path)).touch()
    example = check_example(os.fsdecode(path + b"@2"))
    assert (os.fsencode(example.path), example.at_s) == (path, 2)
    assert str(Asked((), (example,), (), (), ())) == f"like {tmp_path}/caf\\xe9.mp4@2"


def commit_video(store: Store, path: Path, spans_s: Sequence[tuple[float, float]], **known: Any) -> list[np.ndarray]:
    """Commit a file as indexed with clips of those spans; their vectors."""
    rng = np.random.default_rng(len(spans_s))
    vectors = [unit(*rng.standard_normal(4)) for _ in spans_s]
    facts = path.stat()
    with writing(store) as opened:
        first = opened.reserve_clip_ids(len(spans_s))
        clips = [
            {"clip_id": first + n, "video_id": "v", "start_s": start_s, "end_s": end_s, "vector": vectors[n]}
            | {"frame_pts": [n], "frame_pts_s": [start_s]}
            for n, (start_s, end_s) in enumerate(spans_s)
        ]
        indexed = dict.fromkeys(tables.INDEXED.names) | {"video_id": "v", "space": SPACE.name, "state": "ok"}
        indexed |= {"first_clip_id": first, "n_clips": len(spans_s)}
        file = dict.fromkeys(tables.FILES.names) | {"path": str(path), "path_bytes": os.fsencode(path), "video_id": "v"}
        file |= {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "state": "present"}
        opened.commit(Commit(clips={SPACE.name: clips}, indexed=[indexed], files=[{**file, **known}]))
    return vectors


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """6 s: black to grey, then from black again after 5 s."""
    return make_video(tmp_path / "a.mp4", n_frames=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_s", "expected"),
    [(0, 0), (1.4, 0), (2.4, 0), (2.6, 1), (3.9, 1), (4.1, 2), (6, 2)],  # middles at 1.5, 3.5 and 4.5
)
def test_the_stored_clip_whose_middle_is_nearest_is_taken(
    store: Store, toy: Toy, video: Path, at_s: float, expected: int
) -> None:
    vectors = commit_video(store, video, [(0, 3), (1, 6), (3, 6)])
    assert vector_of(store, None, [f"{video}@{at_s}"]).tolist() == vectors[expected].tolist()
    assert toy.seen == []


def test_an_indexed_clip_needs_no_encoder(store: Store, video: Path) -> None:
    """The space is of an encoder that does not even exist."""
    [vector] = commit_video(store, video, [(0, 6)])
    assert vector_of(store, None, [f"{video}@3"]).tolist() == vector.tolist()


def test_an_indexed_file_is_known_by_a_link_and_by_a_relative_path(
    store: Store, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [vector] = commit_video(store, video, [(0, 6)])
    (video.parent / "link.mp4").symlink_to(video)
    monkeypatch.chdir(video.parent)
    for given in ("a.mp4@3", "../" + video.parent.name + "/a.mp4@3", "link.mp4@3"):
        assert vector_of(store, None, [given]).tolist() == vector.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("known", [{"size": 1}, {"mtime_ns": 1}, {"path_bytes": b"/other.mp4"}])
def test_a_file_that_changed_since_it_was_indexed_is_decoded(
    store: Store, toy: Toy, video: Path, known: dict[str, Any]
) -> None:
    commit_video(store, video, [(0, 6)], **known)
    vector_of(store, None, [f"{video}@3"])
    assert len(toy.seen) == 1


@pytest.mark.slow
def test_an_instant_between_the_stored_clips_is_decoded(store: Store, toy: Toy, video: Path) -> None:
    commit_video(store, video, [(0, 2), (4, 6)])
    vector_of(store, None, [f"{video}@3"])
    assert len(toy.seen) == 1


def grey_levels(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


@pytest.mark.slow
def test_a_video_as_a_whole_has_its_frames_spread_over_it(
    store: Store, toy: Toy, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    """Frame n is of level 5n; 4 frames of 5 s stand at 0.625, 1.875, 3.125 and 4.375 s."""
    vector_of(store, None, [make_video(tmp_path / "a.mp4", n_frames=50)])
    assert grey_levels(toy.seen[0]) == pytest.approx([30, 90, 155, 215], abs=3)


@pytest.mark.slow
def test_an_instant_of_a_video_that_is_not_indexed_is_the_clip_around_it(
    store: Store, toy: Toy, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    """One frame a second of level 5n for 40 s; the clip around 20 s is that from 15 to 25 s."""
    vector_of(store, None, [f"{make_video(tmp_path / 'a.mp4', n_frames=40, fps=1)}@20"])
    assert grey_levels(toy.seen[0]) == pytest.approx([80, 90, 105, 115], abs=6)


@pytest.mark.slow
def test_an_instant_after_the_end_is_one_error(store: Store, toy: Toy, video: Path) -> None:
    with pytest.raises(InputError, match=r"--like: .*a\.mp4: it ends at 6\.0 s, before 9 s"):
        vector_of(store, None, [f"{video}@9"])


@pytest.mark.slow
def test_a_file_that_is_neither_picture_nor_video_is_one_error(store: Store, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    for given in (tmp_path / "notes.txt", f"{tmp_path / 'notes.txt'}@1"):
        with pytest.raises(InputError, match=r"--like: .*notes\.txt: "):
            vector_of(store, None, [given])


def test_a_picture_has_no_instants(store: Store, toy: Toy, picture: Path) -> None:
    with pytest.raises(InputError, match=r"red\.png is a picture, without seconds"):
        vector_of(store, None, [f"{picture}@1"])


def test_a_space_made_with_other_weights_is_not_searched() -> None:
    ours = encoders.spec("conse").space
    other = replace(ours, weights={**ours.weights, "text": "0" * 64})
    with pytest.raises(StoreError, match=rf"other weights or settings of conse \({other.name}\)") as caught:
        encoder_of(other)
    assert ours.name in caught.value.hint
