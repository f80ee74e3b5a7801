"""`--then`: events in order, within a time, the best chain of all."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.config import SearchOptions
from vidx.errors import InputError
from vidx.schema.records import Hit
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.run import search_vectors
from vidx.search.sequence import best_chains
from vidx.tests.made_store import DIM, SPACE, Archive, unit

AXES = np.eye(DIM, dtype=np.float32)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 7), st.integers(1, 4), st.sampled_from([5.0, 10.0, 25.0, 1000.0]), st.integers(0))
def test_the_best_chain_is_the_best_of_all_that_there_are(n: int, events: int, within_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, middles = rng.standard_normal((events, n)), np.sort(rng.integers(0, 8, n) * 5.0)
    ends, parents = best_chains(scores, middles, within_s)
    for last in range(n):
        sums = [
            sum(scores[event, clip] for event, clip in enumerate(chain))
            for chain in product(range(n), repeat=events)
            if chain[-1] == last and all(0 < middles[b] - middles[a] <= within_s for a, b in pairwise(chain))
        ]
        if not sums:
            assert ends[last] == -np.inf
            continue
        assert ends[last] == pytest.approx(max(sums))
        chain = [last]
        for parent in reversed(parents):
            chain.insert(0, int(parent[chain[0]]))
        assert sum(scores[event, clip] for event, clip in enumerate(chain)) == pytest.approx(max(sums))


def found(archive: Archive, *events: np.ndarray, **options: object) -> list[Hit]:
    chosen = SearchOptions(**{"k": 5, **options})  # type: ignore[arg-type]
    return [hit for hit, _ in search_vectors(Snapshot(archive.store), SPACE, list(events), chosen)[0]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Clips of 10 s of nothing in particular, with events 0 and 1 at certain places."""
    made, rng = Archive(Store.create(tmp_path_factory.mktemp("sequence") / "store")), np.random.default_rng(0)
    for name, events in {
        "in order": {3: 0, 5: 1},
        "the wrong way round": {3: 1, 5: 0},
        "far apart": {1: 0, 12: 1},
        "only one": {4: 0},
        "neither": {},
    }.items():
        vectors = unit(rng.standard_normal((16, DIM)) + 2 * AXES[2])
        for clip, event in events.items():
            vectors[clip] = unit(AXES[event] + 0.1 * rng.standard_normal(DIM))
        made.add(name, vectors, [f"/{name}.mp4".encode()])
    return made


def test_events_are_found_in_their_order(archive: Archive) -> None:
    first, *others = found(archive, AXES[0], AXES[1])
    assert (first.video_id, first.start_s, first.end_s, first.peak_s) == ("in order", 30.0, 60.0, 35.0)
    assert first.clip_ids == [archive.ids["in order"][3], archive.ids["in order"][5]]
    assert all(first.calibrated > 1.5 * hit.calibrated for hit in others)
    backwards = found(archive, AXES[1], AXES[0])[0]
    assert backwards.video_id == "the wrong way round"


def test_events_too_far_apart_are_no_sequence_until_more_time_is_given(archive: Archive) -> None:
    far = archive.ids["far apart"]
    assert [far[1], far[12]] not in [hit.clip_ids for hit in found(archive, AXES[0], AXES[1], k=50)]
    assert [far[1], far[12]] in [hit.clip_ids for hit in found(archive, AXES[0], AXES[1], within_s=110.0)]


def test_two_clips_that_touch_are_in_order_and_one_clip_is_not(store: Store) -> None:
    made = Archive(store)
    made.add("both at once", unit(np.stack([AXES[0] + AXES[1], AXES[2], AXES[3]])), [b"/a.mp4"])
    made.add("one after the other", AXES[[0, 1, 2]], [b"/b.mp4"])
    best = found(made, AXES[0], AXES[1], k=1)[0]
    assert best.video_id == "one after the other"
    assert (best.start_s, best.end_s) == (0.0, 20.0)


def test_chains_of_one_video_do_not_overlap_and_a_video_is_told_once_if_that_is_asked(archive: Archive) -> None:
    hits = found(archive, AXES[0], AXES[1], k=100)
    for hit in hits:
        others = [other for other in hits if other.video_id == hit.video_id and other.rank != hit.rank]
        assert all(other.end_s <= hit.start_s or hit.end_s <= other.start_s for other in others)
    assert len(hits) > 5
    assert [hit.calibrated for hit in hits] == sorted((hit.calibrated for hit in hits), reverse=True)
    videos = [hit.video_id for hit in found(archive, AXES[0], AXES[1], k=100, by="video")]
    assert len(videos) == len(set(videos)) == 5


def test_what_scores_too_low_is_left_out(archive: Archive) -> None:
    best = found(archive, AXES[0], AXES[1])[0].calibrated
    assert [hit.video_id for hit in found(archive, AXES[0], AXES[1], min_score=0.9 * best)] == ["in order"]


def test_a_sequence_is_no_single_clip(archive: Archive) -> None:
    with pytest.raises(InputError, match="no single clip"):
        found(archive, AXES[0], AXES[1], by="clip")
