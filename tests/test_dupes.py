"""Copies planted in synthetic stores are found where they are, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.errors import StoreMissing, UnknownChoice
from vidx.schema import tables
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search._dupes_near import MOST_VIDEOS, near_videos
from vidx.search.collection import open_collection
from vidx.search.dupes import Dupes, Duplicate, duplicates
from vidx.search.rebuild import rebuild

DIM = 64  # so wide that the cosine of any two of a few hundred random vectors is below 0.7
SPACE = Space("toy", {"video": "ab"}, Preprocess(8, 8), frames=1, pooling="mean", dim=DIM)
CLIP_S = 10.0


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def scenes(n: int, seed: int) -> np.ndarray:
    """n clips that have nothing in common."""
    return unit(np.random.default_rng(seed).standard_normal((n, DIM)))


def copied(vectors: np.ndarray, seed: int = 1000) -> np.ndarray:
    """The same with a little noise; cosines of 0.98 to 0.99."""
    return unit(vectors + 0.02 * np.random.default_rng(seed).standard_normal(vectors.shape))


def stored(store: Store, videos: dict[str, np.ndarray], stride_s: float = CLIP_S, clip_s: float = CLIP_S) -> Store:
    """Commit videos of a clip every stride, in the order given; /NAME.mp4 is the path of each."""
    clips, indexed, files = [], [], []
    with writing(store) as writer:
        writer.add_space(SPACE)
        for video_id, vectors in videos.items():
            first = writer.reserve_clip_ids(len(vectors))
            clips += [
                {
                    "clip_id": first + number,
                    "video_id": video_id,
                    "start_s": number * stride_s,
                    "end_s": number * stride_s + clip_s,
                    "frame_pts": [number],
                    "frame_pts_s": [0.0],
                    "vector": vector,
                }
                for number, vector in enumerate(vectors)
            ]
            attempt: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
            attempt |= {"video_id": video_id, "space": SPACE.name, "state": "ok", "first_clip_id": first}
            indexed.append(attempt | {"n_clips": len(vectors), "indexed_at": datetime.now(UTC)})
            file: dict[str, Any] = dict.fromkeys(tables.FILES.names)
            path = f"/{video_id}.mp4"
            files.append(file | {"path": path, "path_bytes": path.encode(), "video_id": video_id, "state": "present"})
        writer.commit(Commit(clips={SPACE.name: clips}, indexed=indexed, files=files))
    return store


def found_in(store: Store, **options: Any) -> Dupes:
    snapshot = Snapshot(store)
    return duplicates(snapshot, open_collection(snapshot, SPACE), **({"least": 0.9} | options))


def found_among(videos: dict[str, np.ndarray], **options: Any) -> Dupes:
    with TemporaryDirectory() as folder:
        return found_in(stored(Store.create(Path(folder) / "store"), videos), **options)


def told(row: Duplicate) -> tuple[Any, ...]:
    """Kind and places of both sides."""
    return row.kind, *((side.video_id, side.start_s, side.end_s) for side in (row.a, row.b))


def test_a_copy_of_a_whole_video_is_told_once_from_start_to_end(store: Store) -> None:
    film = scenes(7, 1)
    found = found_in(stored(store, {"film": film, "other": scenes(9, 2), "copy": copied(film)}))
    [row] = found.rows
    assert told(row) == ("video", ("copy", 0.0, 70.0), ("film", 0.0, 70.0))
    assert (row.a.covered, row.b.covered) == (1.0, 1.0)
    assert row.similarity == pytest.approx(float((film * copied(film)).sum(axis=1).mean()), abs=1e-5)
    assert (row.a.path, row.b.path, row.a.online) == ("/copy.mp4", "/film.mp4", False)


def test_a_video_that_lies_in_a_longer_one_is_contained_in_it(store: Store) -> None:
    film = scenes(12, 1)
    for number, (part, whole) in enumerate((("a", "b"), ("z", "y"))):  # whichever comes first by name
        part_of = Store.create(store.path.with_name(f"{number}"))
        [row] = found_in(stored(part_of, {whole: film, part: copied(film[4:7])})).rows
        assert told(row) == ("contained", (part, 0.0, 30.0), (whole, 40.0, 70.0))
        assert (row.a.covered, row.b.covered) == (1.0, 0.25)


def test_two_seconds_that_are_like_ten_do_not_cover_them(store: Store) -> None:
    """A clip of a short video is as long as the video."""
    film = scenes(1, 1)
    stored(store, {"long": film})
    stored(store, {"short": film}, clip_s=2.0)
    [row] = found_in(store).rows
    assert told(row) == ("contained", ("short", 0.0, 2.0), ("long", 0.0, 10.0))
    assert row.b.covered == 0.2


def test_a_scene_that_comes_again_in_its_own_video_is_a_segment(store: Store) -> None:
    film = scenes(9, 1)
    film[6:8] = copied(film[1:3])
    [row] = found_in(stored(store, {"film": film})).rows
    assert told(row) == ("segment", ("film", 10.0, 30.0), ("film", 60.0, 80.0))


def test_a_scene_that_goes_on_does_not_repeat_itself(store: Store) -> None:
    films = {f"still {n}": copied(np.tile(scenes(1, n), (n, 1))) for n in (3, 10, 50)}
    found = found_in(stored(store, films))
    assert (found.rows, found.n_repeats) == ([], 0)


def test_a_copy_of_a_still_scene_is_found_at_the_right_offset(store: Store) -> None:
    """Every clip is near every other; those at the same place a little more."""
    still = unit(scenes(1, 1) + 0.03 * np.random.default_rng(3).standard_normal((200, DIM)))
    found = found_in(stored(store, {"still": still, "copy": unit(still + 0.005 * scenes(200, 4))}), by="segment")
    assert [told(row) for row in found.rows] == [("video", ("copy", 0.0, 2000.0), ("still", 0.0, 2000.0))]


def test_a_copy_with_a_part_cut_out_is_one_pair_of_two_segments(store: Store) -> None:
    film = scenes(20, 1)
    stored(store, {"film": film, "cut": copied(np.delete(film, [8, 9], axis=0))})
    rows = found_in(store, by="segment").rows
    assert sorted(told(row) for row in rows) == [
        ("video", ("cut", 0.0, 80.0), ("film", 0.0, 80.0)),
        ("video", ("cut", 80.0, 180.0), ("film", 100.0, 200.0)),
    ]
    [row] = found_in(store, by="video").rows
    assert told(row) == ("video", ("cut", 80.0, 180.0), ("film", 100.0, 200.0))  # the longer one
    assert (row.a.covered, row.b.covered) == (1.0, 0.9)


def test_overlapping_windows_give_one_segment(store: Store) -> None:
    film = np.repeat(scenes(10, 1), 4, axis=0)[:37]  # windows of 10 s every 2.5 s: neighbours show the same
    stored(store, {"film": film, "copy": copied(film)}, stride_s=2.5)
    assert [told(row) for row in found_in(store, by="segment").rows] == [
        ("video", ("copy", 0.0, 100.0), ("film", 0.0, 100.0))
    ]


def test_clips_that_are_near_many_videos_join_none_and_are_counted(store: Store) -> None:
    """All films fade in from black and end on the same test card."""
    black, card = scenes(2, 0)
    n_films = MOST_VIDEOS + 2
    films = {f"film {n}": np.vstack([black, scenes(3, n + 1), card]) for n in range(n_films)}
    found = found_in(stored(store, {**films, "copy": copied(films["film 3"])}), by="segment")
    assert [told(row) for row in found.rows] == [("video", ("copy", 10.0, 40.0), ("film 3", 10.0, 40.0))]
    assert found.n_hubs == 2 * (n_films + 1)
    assert len(near_videos(open_collection(Snapshot(store), SPACE), 0.9, lambda done, total: None).pairs) == 1


def test_a_few_videos_may_share_a_scene(store: Store) -> None:
    scene = scenes(1, 0)
    films = {f"film {n:02}": np.vstack([scenes(3, n + 1), scene]) for n in range(MOST_VIDEOS + 1)}
    found = found_in(stored(store, films), k=1000)
    assert (len(found.rows), found.n_hubs) == ((MOST_VIDEOS + 1) * MOST_VIDEOS // 2, 0)
    assert {row.kind for row in found.rows} == {"segment"}


def test_what_a_video_repeats_all_the_time_is_left_out_of_it_and_counted(store: Store) -> None:
    film = scenes(60, 1)
    film[::2] = film[0]
    found = found_in(stored(store, {"film": film}))
    assert (found.rows, found.n_repeats, found.n_hubs) == ([], 30, 0)


@pytest.mark.parametrize("tier", ["flat", pytest.param("ivf", marks=pytest.mark.slow)])
def test_an_index_and_clips_beside_it_give_the_same_as_none(
    store: Store, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidx.search.rebuild.GATE", 0.0)  # no clusters are to be found in scenes drawn at random
    films = {f"film {n}": scenes(20, n) for n in range(40)}
    stored(store, films)
    assert rebuild(store, SPACE, tier=tier).name is not None
    # Beside the index: a copy, a new attempt that makes clips of the index dead, and two copies of one another.
    stored(store, {"copy": copied(films["film 7"][5:]), "film 9": films["film 9"][:4]})
    stored(store, {"new": scenes(5, 99), "newer": copied(scenes(5, 99)), "of nine": copied(films["film 9"])})
    rows = sorted(told(row) for row in found_in(store).rows)
    assert rows == [
        ("contained", ("copy", 0.0, 150.0), ("film 7", 50.0, 200.0)),
        ("contained", ("film 9", 0.0, 40.0), ("of nine", 0.0, 40.0)),
        ("video", ("new", 0.0, 50.0), ("newer", 0.0, 50.0)),
    ]


@st.composite
def archives(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], set[tuple[Any, ...]]]:
    """Unrelated videos with stretches of some copied over stretches of others, and where: (names, starts, clips)."""
    lengths = draw(st.lists(st.integers(3, 12), min_size=2, max_size=6))
    videos = {f"{n}": scenes(length, 50 + n) for n, length in enumerate(lengths)}
    planted: set[tuple[Any, ...]] = set()
    for n in range(0, len(lengths) - 1, 2):  # pairs of their own, so that no stretch is copied on
        count = draw(st.integers(0, min(lengths[n : n + 2])))
        start_a = draw(st.integers(0, lengths[n] - count))
        start_b = draw(st.integers(0, lengths[n + 1] - count))
        if count:
            videos[f"{n + 1}"][start_b : start_b + count] = copied(videos[f"{n}"][start_a : start_a + count])
            shares = count / lengths[n], count / lengths[n + 1]
            n_whole = sum(share >= 0.8 for share in shares)
            sides = [(f"{n}", start_a * 10.0, (start_a + count) * 10.0)]
            sides.append((f"{n + 1}", start_b * 10.0, (start_b + count) * 10.0))
            if n_whole == 1 and shares[1] >= 0.8:
                sides.reverse()
            planted.add((("segment", "contained", "video")[n_whole], *sides))
    return videos, planted


@settings(max_examples=15, deadline=None)
@given(archive=archives(), order=st.randoms(use_true_random=False))
@pytest.mark.slow
def test_what_is_planted_is_found_and_nothing_else_in_any_order(archive: tuple[Any, Any], order: Any) -> None:
    videos, planted = archive
    names = list(videos)
    found = found_among(videos, by="segment")
    assert {told(row) for row in found.rows} == planted
    assert len(found.rows) == len(planted)
    order.shuffle(names)
    assert found_among({name: videos[name] for name in names}, by="segment") == found


def test_rows_beyond_k_are_counted_and_the_first_are_the_first_of_all(store: Store) -> None:
    films = {f"film {n}": scenes(4, n) for n in range(4)}
    copies = {f"x {n}": copied(film, n) for n, film in enumerate(films.values())}
    stored(store, films | copies)
    every = found_in(store)
    assert (every.total, len(every.rows)) == (4, 4)
    assert [row.similarity for row in every.rows] == sorted((row.similarity for row in every.rows), reverse=True)
    some = found_in(store, k=3)
    assert (some.rows, some.total) == (every.rows[:3], 4)


def test_progress_ends_with_all_clips(store: Store) -> None:
    heard: list[tuple[int, int]] = []
    found_in(stored(store, {"a": scenes(300, 1), "b": scenes(10, 2)}), tell=lambda done, of: heard.append((done, of)))
    assert heard == [(256, 310), (310, 310)]


def test_a_store_without_clips_and_an_unknown_by_are_refused(store: Store) -> None:
    with writing(store) as writer:
        writer.add_space(SPACE)
    with pytest.raises(StoreMissing, match="no video is indexed with toy yet"):
        found_in(store)
    with pytest.raises(UnknownChoice, match="'scene'"):
        found_in(store, by="scene")
