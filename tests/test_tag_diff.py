"""What a new set of tags changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import dataset, parquet

from vidx.errors import InputError
from vidx.schema.tables import TAGS
from vidx.search.tag_diff import CHANGES, SCHEMA, Summary, diff, summary

LABELS = ["a dog", "it's", '"quoted"', "a/b=c", "50%", "🎬 film", "x" * 200, "Dog", "dog"]


def tag(label: str | None = "a dog", probability: float = 0.5, rank: int | None = 1, **fields: Any) -> dict[str, Any]:
    plain = dict.fromkeys(TAGS.names) | {
        "video_id": "b1-0",
        "clip_id": 7,
        "level": "clip",
        "path": "/archive/a.mp4",
        "start_s": 0.0,
        "end_s": 10.0,
        "tag_set": "kinetics400",
    }
    return plain | {"label": label, "probability": probability, "rank": None if label is None else rank} | fields


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows, TAGS), path)
    return path


def changes(
    tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], **options: Any
) -> list[dict[str, Any]]:
    files = written(tmp_path / "old.parquet", old), written(tmp_path / "new.parquet", new)
    return diff([files[0]], [files[1]], **options).read_all().to_pylist()


def test_a_row_tells_what_was_and_what_is(tmp_path: Path) -> None:
    old = [tag("a dog", 0.25, 1), tag("snow", 0.125, 2)]
    new = [tag("a dog", 0.75, 1, path="/moved/a.mp4"), tag("a cat", 0.5, 2, path="/moved/a.mp4")]
    reader = diff([written(tmp_path / "old", old)], [written(tmp_path / "new", new)])
    assert reader.schema == SCHEMA
    same = {"level": "clip", "video_id": "b1-0", "start_s": 0.0, "end_s": 10.0}
    rows = [
        ("added", "/moved/a.mp4", "a cat", None, 0.5, None, 2),
        ("changed", "/moved/a.mp4", "a dog", 0.25, 0.75, 1, 1),
        ("removed", "/moved/a.mp4", "snow", 0.125, None, 2, None),
    ]
    names = ("change", "path", "label", "old_probability", "new_probability", "old_rank", "new_rank")
    assert reader.read_all().to_pylist() == [dict(zip(names, row, strict=True)) | same for row in rows]


def test_the_same_tags_do_not_differ(tmp_path: Path) -> None:
    rows = [tag(label, 0.3, rank) for rank, label in enumerate(LABELS, 1)]
    assert changes(tmp_path, rows, rows[::-1]) == []


@pytest.mark.parametrize(("new", "is_told"), [(0.9, True), (0.89, False), (0.7, True), (0.71, False), (0.8, False)])
def test_a_probability_has_changed_from_the_least_change_on(tmp_path: Path, new: float, is_told: bool) -> None:
    """As 32-bit numbers 0.8 and 0.9 are less than 0.1 apart, which nobody who reads them would believe."""
    assert np.float32(0.9) - np.float32(0.8) < 0.1
    assert [row["change"] for row in changes(tmp_path, [tag(probability=0.8)], [tag(probability=new)])] == (
        ["changed"] if is_told else []
    )
    assert changes(tmp_path, [tag(probability=0.8)], [tag(probability=new)], least_change=0.5) == []


@pytest.mark.parametrize(("ranks", "is_told"), [((1, 2), True), ((2, 1), True), ((2, 3), False), ((1, 1), False)])
def test_the_first_label_of_a_clip_is_news(tmp_path: Path, ranks: tuple[int, int], is_told: bool) -> None:
    found = changes(tmp_path, [tag(rank=ranks[0])], [tag(rank=ranks[1])])
    assert [(row["old_rank"], row["new_rank"]) for row in found] == ([ranks] if is_told else [])


def test_a_clip_without_a_match_is_told_by_the_labels_it_lost_or_gained(tmp_path: Path) -> None:
    assert [row["change"] for row in changes(tmp_path, [tag()], [tag(None)])] == ["removed"]
    assert [row["change"] for row in changes(tmp_path, [tag(None)], [tag()])] == ["added"]
    assert changes(tmp_path, [tag(None)], [tag(None, clip_id=8)]) == []
    assert changes(tmp_path, [tag(None)], []) == []


PATHS = {"b1-0": "/Ä.mp4", "b1-1": "/🎬.mp4", "b1-2": "/a\\b.mp4"}
MOVED = {"b1-1": "/z.mp4"}
FIELDS = st.fixed_dictionaries(
    {
        "video_id": st.sampled_from(list(PATHS)),
        "level": st.sampled_from(["clip", "segment", "video"]),
        "start_s": st.sampled_from([0.0, 10.0, 10.01]),
        "end_s": st.sampled_from([10.0, 20.0]),
        "label": st.sampled_from([*LABELS, None]),
        "probability": st.integers(0, 100).map(lambda n: n / 100),
        "rank": st.integers(1, 3),
    }
)
KEY = ("video_id", "level", "start_s", "end_s", "label")
SIDES = st.lists(FIELDS, max_size=30, unique_by=lambda row: tuple(row[name] for name in KEY))


@pytest.mark.slow
@given(old=SIDES, new=SIDES, parts=st.integers(1, 3))
def test_the_difference_is_the_one_of_dictionaries(
    tmp_path_factory: pytest.TempPathFactory, old: list[dict[str, Any]], new: list[dict[str, Any]], parts: int
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    sides = {
        "old": [tag(**row, path=PATHS[row["video_id"]]) for row in old],
        "new": [tag(**row, path=MOVED.get(row["video_id"], PATHS[row["video_id"]])) for row in new],
    }
    files = {
        name: [written(folder / f"{name}{n}.parquet", rows[n::parts]) for n in range(parts)]
        for name, rows in sides.items()
    }
    found = diff(files["old"], files["new"]).read_all()
    assert found.to_pylist() == list(told(sides["old"], sides["new"]))
    counts = {change: found["change"].to_pylist().count(change) for change in CHANGES}
    assert {change: getattr(summary(found), change) for change in CHANGES} == counts


def told(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The difference by dictionaries."""
    before, after = ({tuple(row[name] for name in KEY): row for row in rows if row["label"]} for rows in (old, new))
    paths = {row["video_id"]: row["path"] for row in [*before.values(), *after.values()]}  # the new one counts
    rows = []
    for key in before.keys() | after.keys():
        was, now = before.get(key), after.get(key)
        if was and now:
            moved = abs(round(100 * now["probability"]) - round(100 * was["probability"])) >= 10
            if not moved and (was["rank"] == 1) == (now["rank"] == 1):
                continue
        row = {"change": "changed" if was and now else "added" if now else "removed"}
        row |= {name: (now or was or {})[name] for name in ("level", "video_id", "start_s", "end_s", "label")}
        row["path"] = paths[row["video_id"]]
        for name in ("probability", "rank"):
            row |= {f"old_{name}": was and was[name], f"new_{name}": now and now[name]}
        rows.append({name: _as_float32(row[name]) if "probability" in name else row[name] for name in SCHEMA.names})
    order = ("path", "start_s", "level", "label", "end_s", "video_id")
    return iter(sorted(rows, key=lambda row: [row[name] for name in order]))


def _as_float32(value: float | None) -> float | None:
    return None if value is None else float(np.float32(value))


def test_a_summary_has_the_label_that_changed_most_often_first(tmp_path: Path) -> None:
    old = [tag("snow", start_s=start) for start in (0.0, 10.0, 20.0)] + [tag("a dog", 0.2)]
    new = [tag("a dog", 0.9), tag("a cat", start_s=10.0), tag("snow", start_s=30.0)]
    files = [written(tmp_path / "old", old)], [written(tmp_path / "new", new)]
    found = summary(diff(*files))
    assert (found.added, found.removed, found.changed) == (2, 3, 1)
    labels = [(row.label, row.added, row.removed, row.changed, row.total) for row in found.labels]
    assert labels == [("snow", 1, 3, 0, 4), ("a cat", 1, 0, 0, 1), ("a dog", 0, 0, 1, 1)]
    assert summary(diff(*files).read_all()) == found
    assert summary(diff(files[0], files[0])) == Summary(0, 0, 0, [])


def test_old_tags_may_lack_columns_that_do_not_matter_and_have_others(tmp_path: Path) -> None:
    needed = ["level", "video_id", "path", "start_s", "end_s", "label", "probability", "rank"]
    rows = pa.Table.from_pylist([tag("snow")], TAGS).select(needed[::-1])
    rows = rows.set_column(2, "label", rows["label"].dictionary_encode()).append_column("mood", pa.array(["grim"]))
    parquet.write_table(rows, tmp_path / "old.parquet")
    found = diff([tmp_path / "old.parquet"], [written(tmp_path / "new.parquet", [tag("a dog")])]).read_all()
    assert found.select(["change", "label"]).to_pylist() == [
        {"change": "added", "label": "a dog"},
        {"change": "removed", "label": "snow"},
    ]


def test_files_of_one_side_may_have_different_columns(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.parquet", [tag("snow")])
    parquet.write_table(parquet.read_table(whole).drop_columns("encoder"), tmp_path / "part.parquet")
    for files in ([whole, tmp_path / "part.parquet"], [tmp_path / "part.parquet", whole]):
        assert diff(files, [whole]).read_all().num_rows == 0
        assert summary(diff(files, [written(tmp_path / "none.parquet", [])])).removed == 1


def test_no_file_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Parquet file"):
        diff([], [written(tmp_path / "new.parquet", [tag()])])


@pytest.mark.parametrize("missing", ["label", "level", "video_id", "start_s", "end_s", "probability", "rank", "path"])
def test_a_file_without_a_needed_column_is_named(tmp_path: Path, missing: str) -> None:
    good = written(tmp_path / "good.parquet", [tag()])
    parquet.write_table(parquet.read_table(good).drop_columns(missing), tmp_path / "bad.parquet")
    for sides in ([good], [good, tmp_path / "bad.parquet"]), ([tmp_path / "bad.parquet"], [good]):
        with pytest.raises(InputError, match=rf"bad\.parquet has no column '{missing}'"):
            diff(*sides)


def test_a_column_of_another_kind_is_told(tmp_path: Path) -> None:
    good = written(tmp_path / "good.parquet", [tag()])
    rows = parquet.read_table(good)
    parquet.write_table(rows.set_column(0, "video_id", pa.array([7])), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=r"bad\.parquet: its column 'video_id' is int64, not string"):
        diff([good], [tmp_path / "bad.parquet"])


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    good = written(tmp_path / "good.parquet", [tag()])
    (tmp_path / "text.parquet").write_text("video_id,label\n")
    for bad in (tmp_path / "text.parquet", tmp_path / "none.parquet", tmp_path):
        with pytest.raises(InputError) as caught:
            diff([bad], [good])
        assert str(bad) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["garbled", "cut out"])
def test_a_file_that_is_damaged_inside_is_named_when_its_rows_are_read(tmp_path: Path, damage: str) -> None:
    good = written(tmp_path / "good.parquet", [tag()])
    rows = [tag(f"label {n}", start_s=float(n)) for n in range(20_000)]
    bad = written(tmp_path / "bad.parquet", rows)
    data = bad.read_bytes()
    head, foot = data[:200], data[-20_000:]
    bad.write_bytes(head + os.urandom(len(data) - 20_200) + foot if damage == "garbled" else head + foot)
    reader = diff([good], [bad])
    with pytest.raises(InputError, match=r"can't read .*bad\.parquet"):
        reader.read_all()


ODD = ["a b", "it's", '"', "[x]", "a*", "q?", "%41", "{a,b}", "née 🎬", "back\\slash", "label=z", "~", "$HOME", "#"]


@pytest.mark.parametrize("name", ODD)
def test_names_of_files_and_folders_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for other in ("x", "ax", "qx", "A", "a", "b"):  # what a pattern or an escape would also find
        written(folder / f"{other}.parquet", [tag("wrong")])
    old = written(folder / f"{name}.parquet", [tag("right")])
    found = diff([old], [written(tmp_path / "new.parquet", [tag(None)])]).read_all()
    assert found["label"].to_pylist() == ["right"]


def test_names_may_be_relative_and_go_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    written(tmp_path / "real" / "old.parquet", [tag("snow")])
    monkeypatch.chdir(tmp_path)
    found = diff([Path("link/old.parquet")], [Path("link/../real/old.parquet")]).read_all()
    assert len(found) == 0


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    good = written(tmp_path / "good.parquet", [tag()])
    bad = tmp_path / os.fsdecode(b"caf\xe9.parquet")
    try:
        bad.write_bytes(good.read_bytes())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(InputError, match="can't read"):
        diff([bad], [good])


def test_a_partitioned_folder_is_read_with_the_labels_of_its_folders(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([tag(label) for label in [*LABELS, "1", "2019-01-01", None]], TAGS)
    by_label = dataset.partitioning(pa.schema([("label", pa.string())]), flavor="hive")
    dataset.write_dataset(rows, tmp_path / "old", format="parquet", partitioning=by_label)
    parts = sorted((tmp_path / "old").rglob("*.parquet"))
    assert len(parts) == len(LABELS) + 3
    found = diff(parts, [written(tmp_path / "new.parquet", [tag("2")])]).read_all()
    assert found["label"].to_pylist() == sorted([*LABELS, "1", "2019-01-01", "2"])
    assert set(found.filter(pa.compute.equal(found["label"], "2"))["change"].to_pylist()) == {"added"}
    only_dates = [part for part in parts if "2019" in str(part)]
    assert diff(only_dates, only_dates).read_all().num_rows == 0


def test_only_the_folders_of_the_files_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    inside = written(tmp_path / "in" / "tags.parquet", [tag()])
    outside = written(tmp_path / "outside.parquet", [tag()])
    seen: list[duckdb.DuckDBPyConnection] = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *args, **options: seen.append(connect(*args, **options)) or seen[-1])
    diff([inside], [inside])
    assert seen[0].sql(f"SELECT label FROM '{inside}'").fetchall() == [("a dog",)]
    with pytest.raises(duckdb.PermissionException):
        seen[0].sql(f"SELECT label FROM '{outside}'")
    with pytest.raises(duckdb.Error, match="locked"):
        seen[0].execute("SET enable_external_access = true")
