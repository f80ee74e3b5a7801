"""Search over a synthetic store equals a search by hand in NumPy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from vidx.config import SearchOptions
from vidx.errors import InputError, StoreDamaged, StoreMissing
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.writer import writing
from vidx.search.hits import peak_thumbnails
from vidx.search.query import check_text, settled_space
from vidx.search.run import search_vectors
from vidx.tests.made_store import CLIP_S, DIM, SPACE, Archive, unit


@pytest.fixture
def empty(store: Store) -> Archive:
    return Archive(store)


@pytest.fixture(scope="module", params=[0, pytest.param(1, marks=pytest.mark.slow)])
def archive_of_many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Videos of 1 to 30 clips whose vectors drift, so that neighbours are alike; some with overlapping windows."""
    rng = np.random.default_rng(request.param)
    archive = Archive(Store.create(tmp_path_factory.mktemp("retrieve") / "store"))
    for number in rng.permutation(12):
        name = f"{'dense' if number % 3 == 0 else 'plain'} {number}"
        steps = rng.standard_normal((rng.integers(1, 31), DIM))
        vectors = unit(np.cumsum(steps * 0.5, axis=0) + rng.standard_normal(DIM))
        archive.add(name, vectors, [f"/{name}.mp4".encode()], 2.5 if number % 3 == 0 else CLIP_S)
    return archive


@pytest.mark.slow
@pytest.mark.parametrize("by", ["clip", "moment", "video"])
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_hits_are_those_found_by_hand(archive_of_many: Archive, by: str, k: int) -> None:
    for vector in unit(np.random.default_rng(k).standard_normal((2, DIM))):
        hits = archive_of_many.search(vector, k, by)
        expected = archive_of_many.by_hand(vector, by)[:k]
        assert [hit.rank for hit in hits] == list(range(1, len(expected) + 1))
        assert [(hit.clip_ids, hit.video_id) for hit in hits] == [(ids, video_id) for ids, video_id, *_ in expected]
        found = [(hit.score, hit.start_s, hit.end_s) for hit in hits]
        np.testing.assert_allclose(found, [row[2:] for row in expected], atol=2e-6)


@pytest.mark.slow
def test_more_than_there_is_gives_every_clip_moment_or_video_once(archive_of_many: Archive) -> None:
    vector = unit(np.ones(DIM))
    all_ids = sorted(clip_id for ids in archive_of_many.ids.values() for clip_id in ids)
    clips = archive_of_many.search(vector, 10_000, "clip")
    assert sorted(clip_id for hit in clips for clip_id in hit.clip_ids) == all_ids
    in_moments = archive_of_many.search(vector, 10_000, "moment")
    assert sorted(clip_id for hit in in_moments for clip_id in hit.clip_ids) == all_ids
    found_videos = archive_of_many.search(vector, 10_000, "video")
    assert sorted(hit.video_id for hit in found_videos) == sorted(archive_of_many.vectors)


@pytest.mark.slow
def test_a_smaller_k_gives_the_beginning_of_a_larger_one(archive_of_many: Archive) -> None:
    vector = unit(np.random.default_rng(9).standard_normal(DIM))
    for by in ("clip", "moment", "video"):
        all_hits = archive_of_many.search(vector, 10_000, by)
        for k in (1, 2, 7):
            assert archive_of_many.search(vector, k, by) == all_hits[:k]


def test_equal_scores_are_ordered_by_clip_id(empty: Archive) -> None:
    axes = np.eye(DIM, dtype=np.float32)
    empty.add("z", axes[[0, 1, 0]], [b"/z.mp4"])
    empty.add("a", axes[[1, 0]], [b"/a.mp4"])
    empty.add("m", axes[[0]], [b"/m.mp4"])
    hits = empty.search(axes[0], 10, "clip")
    assert [hit.clip_ids for hit in hits if hit.score == 1] == sorted(hit.clip_ids for hit in hits if hit.score == 1)
    assert [hit.score for hit in hits] == [1, 1, 1, 1, 0, 0]
    assert [hit.video_id for hit in empty.search(axes[0], 10, "video")] == ["z", "a", "m"]


def test_many_moments_are_found_even_when_one_video_holds_all_the_best_clips(empty: Archive) -> None:
    """One long scene of 200 clips is one moment; the search goes on to the scenes behind it."""
    axes = np.eye(DIM, dtype=np.float32)
    empty.add("long", np.tile(axes[:1], (200, 1)), [b"/long.mp4"])
    for number in range(1, 5):
        empty.add(f"other {number}", unit(axes[[number]] + (1 - number / 10) * axes[0]), [f"/{number}.mp4".encode()])
    hits = empty.search(axes[0], 5, "moment")
    assert [hit.video_id for hit in hits] == ["long", "other 1", "other 2", "other 3", "other 4"]
    assert len(hits[0].clip_ids) == 200
    assert (hits[0].start_s, hits[0].end_s) == (0.0, 2000.0)


def test_only_the_newest_attempt_at_each_video_that_has_a_file_is_searched(empty: Archive) -> None:
    rng = np.random.default_rng(5)
    for name, n_clips, paths in (
        ("cats", 4, [b"/cats.mp4"]),
        ("dogs", 3, [b"/dogs.mp4"]),
        ("cats", 2, [b"/cats.mp4"]),
        ("gone", 5, []),
        ("birds", 3, [b"/birds.mp4"]),
        ("dogs", 6, [b"/dogs.mp4"]),
    ):
        empty.add(name, unit(rng.standard_normal((n_clips, DIM))), paths)
    del empty.vectors["gone"], empty.ids["gone"]
    for by in ("clip", "moment", "video"):
        vector = unit(rng.standard_normal(DIM))
        hits = [(hit.clip_ids, hit.video_id, hit.path) for hit in empty.search(vector, 100, by)]
        assert hits == [(ids, video_id, f"/{video_id}.mp4") for ids, video_id, *_ in empty.by_hand(vector, by)]


def test_the_peak_time_is_the_middle_of_the_best_clip(empty: Archive) -> None:
    axes = np.eye(DIM, dtype=np.float32)
    empty.add("cats", unit(np.stack([axes[0] + axes[1], axes[0] + 0.2 * axes[1], axes[0] + axes[2]])), [b"/cats.mp4"])
    empty.add("dogs", axes[5:9], [b"/dogs.mp4"])
    [hit, *_] = empty.search(axes[0], 10, "moment")
    assert (hit.start_s, hit.end_s, hit.peak_s) == (0.0, 30.0, 15.0)
    assert hit.clip_ids == empty.ids["cats"]
    assert empty.search(axes[0], 1, "clip")[0].clip_ids == [empty.ids["cats"][1]]


def test_calibrated_scores_are_standard_deviations_above_the_mean_clip(archive_of_many: Archive) -> None:
    vector = unit(np.random.default_rng(4).standard_normal(DIM))
    scores = np.concatenate(list(archive_of_many.vectors.values())).astype(np.float64) @ vector
    for hit in archive_of_many.search(vector, 50, "clip"):
        assert hit.calibrated == pytest.approx((hit.score - scores.mean()) / scores.std(), abs=2e-3)


def test_a_content_at_several_paths_is_one_hit_that_names_them_all(empty: Archive, tmp_path: Path) -> None:
    there = tmp_path / "b.mp4"
    there.write_bytes(b"video")
    paths = [os.fsencode(tmp_path / name) for name in ("c.mp4", "b.mp4", "a.mp4")]
    empty.add("cats", np.eye(DIM, dtype=np.float32)[:1], paths)
    [hit] = empty.search(np.eye(DIM, dtype=np.float32)[0], 10, "clip")
    assert hit.paths == [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    assert hit.path == str(there)  # the first that is there
    assert hit.online is True

    (tmp_path / "a.mp4").write_bytes(b"video")
    assert empty.search(np.eye(DIM, dtype=np.float32)[0], 10, "clip")[0].path == str(tmp_path / "a.mp4")


def test_a_file_that_is_gone_is_still_found_and_marked(empty: Archive, tmp_path: Path) -> None:
    empty.add("cats", np.eye(DIM, dtype=np.float32)[:1], [b"/no/such/drive/b.mp4", b"/no/such/drive/a.mp4"])
    [hit] = empty.search(np.eye(DIM, dtype=np.float32)[0], 10, "moment")
    assert hit.online is False
    assert hit.path == "/no/such/drive/a.mp4"
    assert hit.paths == ["/no/such/drive/a.mp4", "/no/such/drive/b.mp4"]


def test_a_path_that_is_no_utf8_is_looked_up_by_its_bytes(empty: Archive, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(path)).write_bytes(b"video")
    empty.add("cats", np.eye(DIM, dtype=np.float32)[:1], [path])
    [hit] = empty.search(np.eye(DIM, dtype=np.float32)[0], 10, "clip")
    assert hit.online is True
    assert hit.path == f"{tmp_path}/caf\\xe9.mp4"


@pytest.mark.parametrize("by", ["clip", "moment", "video"])
def test_the_best_clip_of_each_hit_is_named_and_its_picture_is_found(archive_of_many: Archive, by: str) -> None:
    vector = unit(np.random.default_rng(1).standard_normal(DIM))
    snapshot = Snapshot(archive_of_many.store)
    ranked, _ = search_vectors(snapshot, SPACE, [vector], SearchOptions(k=12, by=by))
    hits, peaks = [hit for hit, _ in ranked], [peak for _, peak in ranked]
    scores = {
        clip_id: float(score)
        for video_id, ids in archive_of_many.ids.items()
        for clip_id, score in zip(ids, archive_of_many.vectors[video_id] @ vector, strict=True)
    }
    assert peaks == [max(hit.clip_ids, key=lambda clip_id: scores[clip_id]) for hit in hits]
    pictures = [f"picture of {clip_id}".encode() if clip_id % 3 else None for clip_id in peaks]
    assert peak_thumbnails(snapshot, SPACE.name, peaks) == pictures


def test_a_clip_without_a_stored_picture_has_none(archive_of_many: Archive) -> None:
    ids = [clip_id for ids in archive_of_many.ids.values() for clip_id in ids][:6]
    pictures = peak_thumbnails(Snapshot(archive_of_many.store), SPACE.name, ids)
    assert [picture is None for picture in pictures] == [clip_id % 3 == 0 for clip_id in ids]
    assert None in pictures


def test_an_unknown_way_to_rank_is_refused(archive_of_many: Archive) -> None:
    with pytest.raises(InputError, match="'scene'") as caught:
        archive_of_many.search(unit(np.ones(DIM)), 1, "scene")
    assert "moment, clip, video" in caught.value.hint


def test_a_space_without_clips_says_that_nothing_is_indexed(store: Store) -> None:
    with writing(store) as writer:
        writer.add_space(SPACE)
    with pytest.raises(StoreMissing, match="no video is indexed with toy yet"):
        Archive(store).search(unit(np.ones(DIM)), 1, "clip")


def test_clips_that_are_recorded_and_not_there_are_told_and_not_passed_over(empty: Archive) -> None:
    vectors = np.eye(DIM, dtype=np.float32)
    empty.add("cats", vectors[:3], [b"/cats.mp4"])
    empty.add("dogs", vectors[3:5], [b"/dogs.mp4"])
    DeltaTable(empty.store.path / "clips" / SPACE.name).delete(f"clip_id = {empty.ids['cats'][1]}")
    with pytest.raises(StoreDamaged, match="not whole: 5 are recorded and 4 can be read"):
        empty.search(vectors[0], 1, "clip")


def test_a_video_without_any_file_is_neither_searched_nor_missed(empty: Archive) -> None:
    vectors = np.eye(DIM, dtype=np.float32)
    empty.add("gone", vectors[:3], [])
    empty.add("dogs", vectors[3:5], [b"/dogs.mp4"])
    assert {hit.video_id for hit in empty.search(vectors[0], 10, "clip")} == {"dogs"}


def test_a_store_without_a_space_has_no_settled_space(store: Store) -> None:
    with pytest.raises(StoreMissing, match="nothing is indexed yet"):
        settled_space(store, None)


def test_the_settled_space_is_the_default_one(archive_of_many: Archive) -> None:
    assert settled_space(archive_of_many.store, None) == SPACE


@pytest.mark.parametrize("text", ["", " ", "   \t\n"])
def test_a_query_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the query is empty"):
        check_text(text)


def test_white_space_around_a_query_is_left_out() -> None:
    assert check_text("  a cat\n") == "a cat"
