"""What passes a filter is listed without a query, the most probable first, and hits can be given a label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.config import SearchOptions
from vidx.errors import InputError
from vidx.schema import tables
from vidx.schema.heads import Head, write_head
from vidx.schema.records import Answer
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.tag_tables import NUMBERED, tagging
from vidx.search._tag_scores import BACKGROUND
from vidx.search.collection import Collection, open_collection
from vidx.search.listing import listed
from vidx.search.run import search
from vidx.tests.made_store import CLIP_S, DIM, SPACE, Archive, unit

AXES = np.eye(DIM, dtype=np.float32)
SCALE = 10.0
Asked = dict[int, float]  # how probable a clip is


class Spoken:
    """An encoder for which "climbing" lies on the first axis, and all other texts on the last one."""

    spec = SimpleNamespace(name="toy", family="toy", templates=(), space=SPACE)
    logit_scale = SCALE

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([AXES[0 if text == "climbing" else -1] for text in texts])


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("query", "tag_hits", "run"):
        monkeypatch.setattr(f"vidx.search.{module}.encoder_of", lambda space: Spoken())


def filled(store: Store) -> Archive:
    """Four videos; one of them has overlapping clips, and one was indexed again."""
    archive, rng = Archive(store), np.random.default_rng(2)
    archive.add("d", unit(rng.standard_normal((3, DIM))), [b"/d.mp4"])
    for name, n in (("a", 6), ("dense b", 9), ("c", 1), ("d", 5)):
        stride_s = 2.5 if name.startswith("dense") else CLIP_S
        vectors = unit(np.abs(rng.standard_normal((n, DIM))))
        archive.add(name, vectors, [f"/{name}.mp4".encode()], stride_s)
    return archive


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """For reading only."""
    return filled(Store.create(tmp_path_factory.mktemp("listing") / "store"))


@pytest.fixture
def archive(store: Store) -> Archive:
    return filled(store)


def by_clip(archive: Archive) -> dict[int, np.ndarray]:
    """The vector of every live clip."""
    parts = ((ids, archive.vectors[name]) for name, ids in archive.ids.items())
    return {clip: vector for ids, vectors in parts for clip, vector in zip(ids, vectors, strict=True)}


Listed = list[tuple[str, float, float, float, list[int]]]  # video, probability, start, end, clips


def by_hand(archive: Archive, probable: Asked, by: str) -> Listed:
    """Every clip or stretch that passes, best first, ties by the id of the best clip."""
    spans = []
    for name, ids in archive.ids.items():
        starts_s, runs = archive.starts_s(name), []
        for at, clip_id in enumerate(ids):
            if clip_id not in probable:
                continue
            if by != "clip" and runs and starts_s[at] <= starts_s[runs[-1][-1]] + CLIP_S + 0.05:
                runs[-1].append(at)
            else:
                runs.append([at])
        for run in runs:
            peak = min(run, key=lambda at: (-probable[ids[at]], at))
            span = (name, probable[ids[peak]], starts_s[run[0]], starts_s[run[-1]] + CLIP_S, [ids[at] for at in run])
            spans.append((-probable[ids[peak]], ids[peak], span))
    spans.sort(key=lambda each: each[:2])
    found, seen = [], set()
    for *_, span in spans:
        if by != "video" or span[0] not in seen:
            found.append(span)
        seen.add(span[0])
    return found


def told(answer: Answer) -> Listed:
    return [(hit.video_id, hit.score, hit.start_s, hit.end_s, hit.clip_ids) for hit in answer.hits]


@pytest.fixture(scope="module")
def collection(made: Archive) -> Collection:
    return open_collection(Snapshot(made.store), SPACE)


@given(st.data(), st.sampled_from(["clip", "moment", "video"]), st.integers(1, 30))
def test_any_clips_are_listed_by_how_probable_they_are(
    made: Archive, collection: Collection, data: st.DataObject, by: str, k: int
) -> None:
    every = sorted(clip for ids in made.ids.values() for clip in ids)
    chance = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    probable = data.draw(st.dictionaries(st.sampled_from(every), chance, max_size=len(every)))
    kept = np.array(sorted(probable), np.int64)
    spans = listed(collection, kept, np.array([probable[clip] for clip in kept], np.float32), k=k, by=by)
    found = [
        (collection.video_id(span.live_range), span.score, span.start_s, span.end_s, list(span.clip_ids))
        for span in spans
    ]
    assert found == by_hand(made, probable, by)[:k]
    for span in spans:
        assert span.peak in span.clip_ids
        assert probable[span.peak] == span.score == max(probable[clip] for clip in span.clip_ids)
        assert span.start_s < span.peak_s < span.end_s


def put(archive: Archive, tag_set: str, given: dict[str, Asked]) -> None:
    """Write tags of clips, by label."""
    rows = []
    for label, probable in given.items():
        for name, ids in archive.ids.items():
            for clip_id, start_s in zip(ids, archive.starts_s(name), strict=True):
                if clip_id in probable:
                    row = dict.fromkeys(tables.TAGS.names) | {"video_id": name, "clip_id": clip_id, "level": "clip"}
                    times = {"start_s": float(start_s), "end_s": float(start_s + CLIP_S), "tag_set": tag_set}
                    rows.append(row | times | {"label": label, "probability": probable[clip_id], "rank": 1})
    with tagging(archive.store) as writer:
        writer.replace(tag_set, "r1", tables.table(tables.TAGS, rows).cast(NUMBERED).to_batches(), {})


def of_plain(archive: Archive, seed: int) -> Asked:
    """Probabilities, no two the same, of some clips of the videos whose clips do not overlap."""
    rng = np.random.default_rng(seed)
    plain = [clip for name, ids in archive.ids.items() if "dense" not in name for clip in ids]
    return {clip: round(0.2 + 0.03 * n, 2) for n, clip in enumerate(rng.permutation(plain).tolist()) if n % 4}


@pytest.mark.parametrize("by", ["clip", "moment", "video"])
def test_a_label_lists_its_moments_the_most_probable_first(archive: Archive, by: str) -> None:
    climbing = of_plain(archive, 1)
    put(archive, "mine", {"climbing": climbing, "sitting": of_plain(archive, 2)})
    answer = search(archive.store, [], SearchOptions(where="label = 'climbing'", by=by, k=1000))
    expected = by_hand(archive, climbing, by)
    assert told(answer) == [(name, pytest.approx(chance), *rest) for name, chance, *rest in expected]
    assert [hit.rank for hit in answer.hits] == list(range(1, len(expected) + 1))
    assert answer.total == len(expected)
    assert (answer.query, answer.notes) == ("label = 'climbing'", [])
    sure = {clip: chance for clip, chance in climbing.items() if chance > 0.5}
    answer = search(archive.store, [], SearchOptions(where="label = 'climbing' AND probability > 0.5", by=by, k=2))
    assert told(answer) == [
        (name, pytest.approx(chance), *rest) for name, chance, *rest in by_hand(archive, sure, by)[:2]
    ]


def test_of_two_labels_that_pass_the_more_probable_one_counts(archive: Archive) -> None:
    [a, b, *_] = archive.ids["a"]
    put(archive, "mine", {"climbing": {a: 0.3, b: 0.4}, "sitting": {a: 0.9, b: 0.1}})
    answer = search(archive.store, [], SearchOptions(where="label IN ('climbing', 'sitting')", by="clip"))
    assert told(answer) == [("a", pytest.approx(0.9), 0, 10, [a]), ("a", pytest.approx(0.4), 10, 20, [b])]


@pytest.mark.slow
def test_a_set_is_chosen_by_name_else_it_is_the_one_written_to_last(archive: Archive) -> None:
    [a, b, *_] = archive.ids["a"]
    put(archive, "one", {"climbing": {a: 0.3}})
    put(archive, "two", {"climbing": {b: 0.4}})
    where = "label = 'climbing'"
    assert [hit.clip_ids for hit in search(archive.store, [], SearchOptions(where=where)).hits] == [[b]]
    assert [hit.clip_ids for hit in search(archive.store, [], SearchOptions(where=where, tag_set="one")).hits] == [[a]]
    with pytest.raises(InputError, match="--tag-set is of --where"):
        search(archive.store, ["climbing"], SearchOptions(tag_set="one"))


def test_a_filter_without_labels_lists_in_the_order_of_indexing(archive: Archive) -> None:
    answer = search(archive.store, [], SearchOptions(where="video_id IN ('c', 'd')", by="clip"))
    assert [hit.clip_ids for hit in answer.hits] == [[clip] for name in "cd" for clip in archive.ids[name]]
    assert {hit.score for hit in answer.hits} == {0}
    answer = search(archive.store, [], SearchOptions(where="end_s > 1e9"))
    assert (answer.hits, answer.total) == ([], 0)


def test_with_a_text_a_label_only_filters(archive: Archive) -> None:
    climbing = of_plain(archive, 3)
    put(archive, "mine", {"climbing": climbing})
    answer = search(archive.store, ["climbing"], SearchOptions(where="label = 'climbing'", by="clip", k=100))
    of_clip = by_clip(archive)
    best_first = sorted(climbing, key=lambda clip: -of_clip[clip][0])
    assert [hit.clip_ids for hit in answer.hits] == [[clip] for clip in best_first]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unwanted": ("people",)},
        {"then": ("sitting",)},
        {"where": "true", "unwanted": ("people",)},
        {"where": "true", "then": ("sitting",)},
        {"where": "true", "dedupe": True},
        {"where": "true", "rerank": 5},
        {"where": "true", "min_score": 1.0},
        {"tag_set": "mine", "tag": "climbing"},
    ],
)
def test_nothing_asked_or_nothing_to_rank_by_is_still_an_error(made: Archive, options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as raised:
        search(made.store, [], SearchOptions(**options))
    assert raised.value.hint


# --- hits that get a label


def tagged(store: Store, label: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        Snapshot(store).arrow("SELECT * FROM tags WHERE tag_set = 'searches' AND label = $label", {"label": label})
    ).to_pylist()
    return found


def chance(vector: np.ndarray) -> float:
    """That of "climbing" against a background, in double precision."""
    own, other = np.exp(SCALE * vector.astype(np.float64)[[0, -1]])
    return float(own / (own + len(BACKGROUND) * other))


@pytest.mark.parametrize(("by", "level"), [("clip", "clip"), ("moment", "segment"), ("video", "segment")])
@pytest.mark.parametrize("texts", [["climbing"], []])
def test_hits_of_a_text_get_its_label_and_its_probability(
    archive: Archive, by: str, level: str, texts: list[str]
) -> None:
    answer = search(archive.store, texts, SearchOptions(tag="climbing", by=by, k=7))
    rows = tagged(archive.store, "climbing")
    assert len(rows) == len(answer.hits)
    assert answer.query == "climbing"
    assert [note for note in answer.notes if "climbing" in note and str(len(rows)) in note]
    of_clip = by_clip(archive)
    for hit, row in zip(answer.hits, rows, strict=True):
        assert (row["video_id"], row["path"]) == (hit.video_id, hit.path)
        assert (row["start_s"], row["end_s"]) == (hit.start_s, hit.end_s)
        best = max(hit.clip_ids, key=lambda clip: of_clip[clip][0])
        assert (row["level"], row["clip_id"]) == (level, best if by == "clip" else None)
        assert row["score"] == pytest.approx(hit.score, abs=1e-6)
        assert row["probability"] == pytest.approx(chance(of_clip[best]), abs=1e-5)
        assert (row["tag_set"], row["encoder"], row["rank"], row["threshold"]) == ("searches", "toy", 1, None)


@pytest.mark.slow
def test_a_label_given_again_replaces_its_rows_and_no_others(archive: Archive) -> None:
    search(archive.store, ["climbing"], SearchOptions(tag="up", k=5))
    search(archive.store, ["climbing"], SearchOptions(tag="other", k=3, by="clip"))
    search(archive.store, ["climbing"], SearchOptions(tag="  up ", k=2))
    assert (len(tagged(archive.store, "up")), len(tagged(archive.store, "other"))) == (2, 3)


@pytest.mark.slow
def test_labels_of_searches_can_be_asked_for_and_do_not_hide_other_sets(archive: Archive) -> None:
    [a, *_] = archive.ids["a"]
    search(archive.store, ["climbing"], SearchOptions(tag="up", k=3, by="clip"))
    assert len(search(archive.store, [], SearchOptions(where="label = 'up'", by="video")).hits) > 0
    put(archive, "mine", {"climbing": {a: 0.3}})
    search(archive.store, ["climbing"], SearchOptions(tag="up", k=3, by="clip"))
    assert [hit.clip_ids for hit in search(archive.store, [], SearchOptions(where="label = 'climbing'")).hits] == [[a]]
    assert search(archive.store, [], SearchOptions(where="label = 'up'", tag_set="searches")).hits


def test_hits_of_a_listing_keep_the_probability_they_were_listed_by(archive: Archive) -> None:
    climbing = of_plain(archive, 4)
    put(archive, "mine", {"climbing": climbing})
    search(archive.store, [], SearchOptions(where="label = 'climbing'", by="clip", tag="sure", k=100))
    rows = tagged(archive.store, "sure")
    assert {row["clip_id"]: pytest.approx(row["probability"]) for row in rows} == climbing
    search(archive.store, [], SearchOptions(where="video_id = 'c'", tag="plain"))
    assert [row["probability"] for row in tagged(archive.store, "plain")] == [None]


@pytest.mark.slow
def test_hits_of_a_taught_label_get_its_probability(archive: Archive) -> None:
    head = Head("juggle", SPACE.name, "logistic", 8 * AXES[5] - AXES[0], -2.0, 0.4, 3, 9, 0)
    write_head(archive.store, head)
    answer = search(archive.store, [], SearchOptions(taught=("juggle",), by="clip", k=100, tag="juggling"))
    expected = {
        clip: 1 / (1 + np.exp(-(vector.astype(np.float64) @ head.weights - 2)))
        for clip, vector in by_clip(archive).items()
    }
    rows = tagged(archive.store, "juggling")
    assert {row["clip_id"]: pytest.approx(row["probability"], abs=1e-5) for row in rows} == expected
    assert [hit.clip_ids[0] for hit in answer.hits] == sorted(expected, key=lambda clip: -expected[clip])


@pytest.mark.slow
def test_no_hits_make_a_label_without_rows(archive: Archive) -> None:
    answer = search(archive.store, ["climbing"], SearchOptions(where="end_s > 1e9", tag="up"))
    assert (answer.hits, tagged(archive.store, "up")) == ([], [])
    search(archive.store, ["climbing"], SearchOptions(k=2, tag="up"))
    assert len(tagged(archive.store, "up")) == 2


@pytest.mark.parametrize("label", ["", "  ", "bell \x07", "two\nlines"])
def test_what_is_no_label_is_refused_and_nothing_is_written(made: Archive, label: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no label"):
        search(made.store, ["climbing"], SearchOptions(tag=label))
    assert made.store.tag_sets() == []


@pytest.mark.slow
def test_the_command_lists_moments_of_a_label_without_its_encoder(archive: Archive, vidx: Any) -> None:
    climbing = of_plain(archive, 6)
    put(archive, "mine", {"climbing": climbing})
    run = vidx("search", "--where", "label = 'climbing'", "--store", archive.store.path, "--format", "json", "-k", 3)
    assert run.returncode == 0, run.stderr
    found = [(hit["video_id"], hit["score"], hit["clip_ids"]) for hit in json.loads(run.stdout)["hits"]]
    expected = by_hand(archive, climbing, "moment")[:3]
    assert found == [(name, pytest.approx(chance), ids) for name, chance, *_, ids in expected]
    run = vidx("search", "--store", archive.store.path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Error: nothing to look for")
