"""What can be asked beside the query itself: least scores, distinct hits, dates of recording."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import write_deltalake

from vidx.config import SearchOptions
from vidx.errors import InputError
from vidx.schema import tables
from vidx.schema.condition import Filters, matching_clips
from vidx.schema.records import Hit
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.run import search_vectors
from vidx.tests.made_store import DIM, SPACE, Archive, unit

AXES = np.eye(DIM, dtype=np.float32)


def found(archive: Archive, query: np.ndarray, **options: Any) -> list[Hit]:
    return [hit for hit, _ in search_vectors(Snapshot(archive.store), SPACE, [query], SearchOptions(**options))[0]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    made, rng = Archive(Store.create(tmp_path_factory.mktemp("ask") / "store")), np.random.default_rng(1)
    for name in "abcdef":
        made.add(name, unit(rng.standard_normal((20, DIM))), [f"/{name}.mp4".encode()])
    return made


@pytest.mark.parametrize("by", ["clip", "moment", "video"])
@pytest.mark.parametrize("least", [-1.0, 0.0, 1.0, 2.0, 9.0])
def test_no_hit_is_below_the_least_score_and_none_above_it_is_lost(archive: Archive, by: str, least: float) -> None:
    query = unit(np.random.default_rng(2).standard_normal(DIM))
    everything = found(archive, query, k=1000, by=by)
    assert found(archive, query, k=1000, by=by, min_score=least) == [
        hit for hit in everything if hit.calibrated >= least
    ]
    assert (
        found(archive, query, k=3, by=by, min_score=least) == [hit for hit in everything if hit.calibrated >= least][:3]
    )


@pytest.mark.parametrize("by", ["clip", "moment", "video"])
def test_of_hits_that_show_the_same_the_best_is_kept(store: Store, by: str) -> None:
    """A scene that is in the archive five times, each time a little different, and k distinct hits all the same."""
    made, rng = Archive(store), np.random.default_rng(3)
    scene = unit(AXES[0] + 0.5 * AXES[1])
    for number in range(5):
        others = unit(rng.standard_normal((4, DIM)) - 2 * AXES[0])
        copy = unit(scene + 0.01 * rng.standard_normal(DIM))
        made.add(f"copy {number}", np.stack([*others[:2], copy, *others[2:]]), [f"/{number}.mp4".encode()])
    made.add("another", unit(np.stack([AXES[0] - AXES[2], AXES[5]])), [b"/another.mp4"])
    plain = found(made, AXES[0], k=6, by=by)
    distinct = found(made, AXES[0], k=4, by=by, dedupe=True)
    assert distinct[0].clip_ids == plain[0].clip_ids
    assert len({hit.video_id for hit in plain[:5]}) == 5
    assert distinct[1].video_id == "another"
    assert len(distinct) == (4 if by != "video" else min(4, len({hit.video_id for hit in distinct})))


def test_nothing_is_lost_where_all_hits_differ(archive: Archive) -> None:
    query = unit(np.random.default_rng(4).standard_normal(DIM))
    assert found(archive, query, k=20, dedupe=True) == found(archive, query, k=20)


NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


def recorded(archive: Archive, name: str, created_at: str | None, modified_at: datetime) -> None:
    """Give a video of two clips (0 to 10, 10 to 20 s) and when it was recorded."""
    archive.add(name, AXES[:2], [f"/{name}.mp4".encode()])
    row = dict.fromkeys(tables.VIDEOS.names) | {"video_id": name, "created_at": created_at}
    path = f"/{name}.mp4".encode()
    file = archive._file(name, path) | {"mtime_ns": int(modified_at.timestamp()) * 10**9}
    with writing(archive.store) as writer:
        writer.commit(Commit(videos=[row], files=[file]))


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    made = Archive(Store.create(tmp_path_factory.mktemp("camera") / "store"))
    later = NOON + timedelta(days=3)
    recorded(made, "morning", "2024-05-31T08:00:00.000000Z", later)
    recorded(made, "noon", "2024-05-31T12:00:00.000000Z", later)
    recorded(made, "elsewhere", "2024-05-31T20:00:00+08:00", later)  # the same instant
    recorded(made, "no clock", "1904-01-01T00:00:00.000000Z", NOON + timedelta(hours=6))
    recorded(made, "nothing said", None, NOON - timedelta(days=1))
    recorded(made, "nonsense", "yesterday", NOON - timedelta(days=2))
    return made


@pytest.mark.parametrize(
    ("after", "before", "clips"),
    [
        (NOON, None, {"noon": 2, "elsewhere": 2, "no clock": 2}),
        (NOON + timedelta(seconds=5), NOON + timedelta(hours=1), {"noon": 1, "elsewhere": 1}),
        (None, NOON, {"morning": 2, "nothing said": 2, "nonsense": 2}),
        (NOON - timedelta(days=1), NOON + timedelta(seconds=10), {"morning": 2, "noon": 1, "elsewhere": 1}
         | {"nothing said": 2}),
        (NOON + timedelta(days=1), None, {}),
    ],
)  # fmt: skip
def test_clips_are_chosen_by_when_they_were_recorded(
    camera: Archive, after: datetime | None, before: datetime | None, clips: dict[str, int]
) -> None:
    ids, _ = matching_clips(Snapshot(camera.store), SPACE.name, Filters(None, after, before))
    assert {name: n for name, own in camera.ids.items() if (n := int(np.isin(own, ids).sum()))} == clips
    filters = Filters("start_s < 5 -- only", after, before)
    with_condition, _ = matching_clips(Snapshot(camera.store), SPACE.name, filters)
    assert set(with_condition) <= set(ids)
    assert set(with_condition) <= {own[0] for own in camera.ids.values()}


def test_a_condition_may_ask_for_the_time_of_day(camera: Archive) -> None:
    ids, _ = matching_clips(Snapshot(camera.store), SPACE.name, Filters("hour(clip_at) = 8"))
    assert sorted(ids) == camera.ids["morning"]


def tag(archive: Archive, tag_set: str, rows: list[tuple[str, float | None, float | None, str, float]]) -> None:
    """Write tags of videos as (video, start, end, label, probability)."""
    path = archive.store.path / "tags" / tag_set
    tables.create_table(path, tables.TAGS)
    names = ("video_id", "start_s", "end_s", "label", "probability")
    made = [
        dict.fromkeys(tables.TAGS.names) | dict(zip(names, row, strict=True)) | {"tag_set": tag_set} for row in rows
    ]
    write_deltalake(tables.open_table(path), tables.table(tables.TAGS, made), mode="append")


def test_a_condition_may_ask_for_tags_that_overlap_the_clip(archive: Archive, tmp_path: Path) -> None:
    archive = replace(archive, store=Store.open(shutil.copytree(archive.store.path, tmp_path / "tagged")))
    tag(archive, "older", [("a", 0.0, 10.0, "jumping", 0.5)])
    stairs = "climbing stairs"
    tag(
        archive,
        "newer",
        [("b", 15.0, 30.0, stairs, 0.9), ("b", 30.0, 40.0, stairs, 0.2), ("c", None, None, stairs, 0.95)],
    )

    def ids(condition: str, tag_set: str | None = None) -> list[int]:
        return list(matching_clips(Snapshot(archive.store), SPACE.name, Filters(condition, tag_set=tag_set))[0])

    assert ids("label = 'climbing stairs' AND probability > 0.8") == sorted([*archive.ids["b"][1:3], *archive.ids["c"]])
    assert ids("label = 'climbing stairs' AND probability < 0.8") == [archive.ids["b"][3]]
    assert ids("label = 'jumping'") == []
    assert ids("label = 'jumping'", "older") == [archive.ids["a"][0]]
    assert set(ids("label IS NULL")) == {
        clip
        for name, own in archive.ids.items()
        for clip in own
        if name != "c" and not (name == "b" and clip in own[1:4])
    }
    with pytest.raises(InputError, match="no set of tags called 'x'"):
        ids("label = 'jumping'", "x")


def test_without_tags_a_label_can_not_be_asked_for(archive: Archive) -> None:
    with pytest.raises(InputError, match="there are no tags yet"):
        matching_clips(Snapshot(archive.store), SPACE.name, Filters("Label = 'x'"))
