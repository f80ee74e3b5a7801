"""Whole runs of `vidx tag` over stores made of vectors: every row is what plain double precision gives by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from vidx.config import TagOptions
from vidx.errors import InputError, StoreDamaged, StoreMissing
from vidx.schema import tables
from vidx.schema.heads import Head, write_head
from vidx.schema.live import live_ranges
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.tag_tables import METADATA_KEY, files_of
from vidx.schema.writer import Commit, writing
from vidx.search import tags
from vidx.search._tag_blocks import whole_videos
from vidx.search._tag_scores import BACKGROUND
from vidx.search.calibration import Calibration
from vidx.search.tags import Tagged, tag
from vidx.tests.made_store import CLIP_S, DIM, SPACE, Archive, unit

AXES = np.eye(DIM, dtype=np.float32)
NAMES = ["climb", "sit", "cook", "drive"]
SCALE = 10.0


class Spoken:
    """An encoder for which each of NAMES lies on an axis, and all other texts on the last one."""

    spec = SimpleNamespace(name="toy", family="toy", templates=(), space=SPACE)
    logit_scale = SCALE

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([AXES[NAMES.index(text)] if text in NAMES else AXES[-1] for text in texts])


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidx.search._tag_plan.encoder_of", lambda space: Spoken())
    monkeypatch.setattr(tags, "_BLOCK_CLIPS", 7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Six videos, for reading only; one of them with overlapping clips, one at several paths."""
    archive, rng = Archive(Store.create(tmp_path_factory.mktemp("made") / "store")), np.random.default_rng(5)
    for name, n in (("a", 5), ("b", 11), ("dense c", 20), ("d", 1), ("e", 8)):
        stride_s = 2.5 if name.startswith("dense") else CLIP_S
        paths = [f"/archive/{name}/{name}.mp4".encode(), f"/archive/Z{name}.mp4".encode()]
        archive.add(name, unit(np.abs(rng.standard_normal((n, DIM)))), paths, stride_s)
    return archive


@pytest.fixture
def archive(made: Archive, tmp_path: Path) -> Archive:
    """A copy of `made` to write to."""
    return copied(made, tmp_path)


def copied(made: Archive, folder: Path) -> Archive:
    path = shutil.copytree(made.store.path, folder / "copy")
    return replace(made, store=Store.open(path), vectors=dict(made.vectors), ids=dict(made.ids))


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(NAMES))
    return str(path)


def held(store: Store, tag_set: str = "mine") -> list[dict[str, Any]]:
    [path] = files_of(store, tag_set)
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def chances(vectors: np.ndarray, mode: str = "single", apart: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of NAMES (n, 4) and of none (n,), in double precision."""
    wide = SCALE * vectors.astype(np.float64)
    own, other = np.exp(wide[:, : len(NAMES)]), np.exp(wide[:, -1:])
    if mode == "multi":
        return own / (own + len(BACKGROUND) * other), np.zeros(len(wide))
    total = own.sum(axis=1, keepdims=True) + (other if apart else 0)
    return own / total, (other / total)[:, 0] if apart else np.zeros(len(wide))


def told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("level", "video_id", "clip_id", "start_s", "end_s", "label", "rank")
    return [tuple(row[name] for name in names) for row in rows]


def by_hand(archive: Archive, mode: str = "single", apart: bool = False, top: int = 5, least: float = 0.0) -> list[Any]:
    """Rows of clips as `told` has them, and probability and score of each."""
    rows = []
    for name in sorted(archive.vectors):
        table, none = chances(archive.vectors[name], mode, apart)
        for at, (clip_id, start_s) in enumerate(zip(archive.ids[name], archive.starts_s(name), strict=True)):
            order = np.argsort(-table[at], kind="stable")
            kept = [label for label in order[:top] if table[at, label] >= max(least, none[at])]
            for rank, label in enumerate(kept or order[:1], 1):
                told = (NAMES[label], rank) if kept else (None, None)
                key = ("clip", name, clip_id, start_s, start_s + CLIP_S, *told)
                rows.append((key, table[at, label], float(archive.vectors[name][at, label])))
    return rows


def check_clips(rows: list[dict[str, Any]], expected: list[Any]) -> None:
    rows = sorted(rows, key=lambda row: (row["video_id"], row["start_s"], row["rank"] or 0))
    assert told(rows) == [key for key, _, _ in expected]
    np.testing.assert_allclose([row["probability"] for row in rows], [chance for _, chance, _ in expected], atol=1e-5)
    np.testing.assert_allclose([row["score"] for row in rows], [score for _, _, score in expected], atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "apart", "top", "least"),
    [
        ("single", False, 5, None),
        ("single", False, 1, 0.5),
        ("single", True, 3, None),
        ("multi", False, 2, None),
        ("multi", False, 4, 0.01),
    ],
)
def test_every_clip_gets_its_labels(
    archive: Archive, labels: str, tmp_path: Path, mode: str, apart: bool, top: int, least: float | None
) -> None:
    (tmp_path / "none.txt").write_text("something else\n")
    background = tmp_path / "none.txt" if apart else None
    done = tag(archive.store, TagOptions(labels=labels, mode=mode, top=top, threshold=least, background=background))
    usual = 0.5 if mode == "multi" else 0.0
    expected = by_hand(archive, mode, apart, top, usual if least is None else least)
    rows = held(archive.store)
    check_clips(rows, expected)
    assert (done.tag_set, done.n_clips, done.n_videos, done.n_rows) == ("mine", 45, 5, len(expected))
    assert done.unmatched == {"clip": sum(key[5] is None for key, _, _ in expected)}
    names = [key[5] for key, _, _ in expected if key[5] is not None]
    assert done.labels == {name: names.count(name) for name in set(names)}
    assert list(done.labels.values()) == sorted(done.labels.values(), reverse=True)
    for row in rows:
        assert row["path"] == f"/archive/Z{row['video_id']}.mp4"  # the first in the order of bytes
        assert (row["encoder"], row["weights_digest"], row["tag_set"]) == ("toy", SPACE.weights_digest, "mine")
        assert row["run_id"] == done.run_id
        assert row["threshold"] == pytest.approx(usual if least is None else least)
    assert len({row["prompts_digest"] for row in rows}) == 1
    assert len(rows[0]["prompts_digest"]) == 64


def test_levels_stand_side_by_side(archive: Archive, labels: str) -> None:
    done = tag(archive.store, TagOptions(labels=labels, levels=("video", "clip", "segment"), threshold=0.3, top=2))
    rows = held(archive.store)
    check_clips([row for row in rows if row["level"] == "clip"], by_hand(archive, top=2, least=0.3))
    stretches = []
    for name, vectors in archive.vectors.items():
        table, starts_s = chances(vectors)[0], archive.starts_s(name)
        mean = table.mean(axis=0)
        best = [label for label in np.argsort(-mean)[:2] if mean[label] >= 0.3]
        of_video = [row for row in rows if row["level"] == "video" and row["video_id"] == name]
        assert [row["label"] for row in of_video] == ([NAMES[label] for label in best] or [None])
        assert {(row["clip_id"], row["start_s"], row["end_s"]) for row in of_video} == {(None, 0, starts_s[-1] + 10)}
        np.testing.assert_allclose([row["probability"] for row in of_video], mean[best] if best else mean.max())
        for label in range(len(NAMES)):
            for seed in np.flatnonzero(table[:, label] >= 0.3):
                first = last = int(seed)
                while first > 0 and table[first - 1, label] >= 0.15:
                    first -= 1
                while last + 1 < len(table) and table[last + 1, label] >= 0.15:
                    last += 1
                stretches.append(("segment", name, None, starts_s[first], starts_s[last] + 10, NAMES[label]))
    segments = [row for row in told(rows) if row[0] == "segment"]
    assert len(segments) == len({row[:-1] for row in segments})
    assert {row[:-1] for row in segments} == set(stretches)
    assert set(done.unmatched) == {"video", "clip", "segment"}
    assert done.unmatched["segment"] == 0


@pytest.mark.slow
def test_parents_and_thresholds_of_a_table_hold(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("label,parent,threshold\nclimb,moving,0.3\nsit,,0.4\ncook,,\ndrive,moving,1\n")
    tag(archive.store, TagOptions(labels=str(path)))
    rows, least = held(archive.store), {"climb": 0.3, "sit": 0.4, "cook": 0.0, "drive": 1.0, "moving": 0.3}
    found = {(row["clip_id"], row["label"]): row for row in rows if row["label"]}
    for name, vectors in archive.vectors.items():
        table, _ = chances(vectors)
        for clip_id, chance in zip(archive.ids[name], table, strict=True):
            expected = dict(zip(NAMES, chance, strict=True)) | {"moving": chance[0] + chance[3]}
            kept = {label for label, value in expected.items() if value >= least[label]}
            assert {label for clip, label in found if clip == clip_id} == kept
            for label in kept:
                assert found[clip_id, label]["probability"] == pytest.approx(expected[label], abs=1e-5)
                assert found[clip_id, label]["threshold"] == pytest.approx(least[label])
            assert "moving" not in kept or found[clip_id, "moving"]["rank"] == 1
    assert 0 < sum(label == "moving" for _, label in found) < len(held(archive.store))


def taught(store: Store, label: str = "juggle") -> Head:
    head = Head(label, SPACE.name, "logistic", 8 * AXES[5] - AXES[0], -2.0, 0.4, 3, 9, 0)
    write_head(store, head)
    return head


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["single", "multi"])
def test_taught_labels_are_given_alone_and_beside_others(archive: Archive, labels: str, mode: str) -> None:
    head = taught(archive.store)
    tag(archive.store, TagOptions(taught=("juggle",), tag_set="alone", mode=mode))
    tag(archive.store, TagOptions(labels=labels, taught=("juggle",), top=5, mode=mode))
    for tag_set in ("alone", "mine"):
        given = {row["clip_id"]: row for row in held(archive.store, tag_set) if row["label"] == "juggle"}
        for name, vectors in archive.vectors.items():
            expected = 1 / (1 + np.exp(-(vectors.astype(np.float64) @ head.weights - 2)))
            assert {clip for clip in archive.ids[name] if clip in given} == {
                clip for clip, chance in zip(archive.ids[name], expected, strict=True) if chance >= 0.4
            }
            for clip_id, chance in zip(archive.ids[name], expected, strict=True):
                if clip_id in given:
                    assert given[clip_id]["probability"] == pytest.approx(chance, abs=1e-5)
                    assert given[clip_id]["threshold"] == pytest.approx(0.4)
    taught(archive.store, "climb")
    with pytest.raises(InputError, match="'climb' is there twice"):
        tag(archive.store, TagOptions(labels=labels, taught=("climb",)))


def test_the_file_says_how_its_rows_were_made(archive: Archive, labels: str) -> None:
    head = taught(archive.store)
    done = tag(archive.store, TagOptions(labels=labels, taught=("juggle",), templates=("{}", "someone: {}")))
    [path] = files_of(archive.store, "mine")
    facts = json.loads(pq.ParquetFile(path).metadata.metadata[METADATA_KEY])
    assert (facts["run_id"], facts["space"], facts["mode"]) == (done.run_id, SPACE.name, "single")
    assert (facts["templates"], facts["taught"]) == (["{}", "someone: {}"], {"juggle": head.digest})
    assert [name for name, _, _ in facts["labels"]] == NAMES


@pytest.mark.slow
def test_the_digest_of_prompts_follows_all_that_decides_a_probability(archive: Archive, labels: str) -> None:
    def digest(**options: Any) -> str:
        tag(archive.store, TagOptions(**{"labels": labels, **options}))
        [found] = {row["prompts_digest"] for row in held(archive.store)}
        return str(found)

    taught(archive.store)
    first = digest()
    assert digest(top=1, threshold=0.2, levels=("clip", "video")) == first
    others = [digest(mode="multi"), digest(templates=("a {}",)), digest(taught=("juggle",))]
    assert len({first, *others}) == 4


def scattered(archive: Archive, sizes: Sequence[int], seed: int = 0) -> None:
    """Videos whose clips, and their ids, come in any order and in several commits, mixed with one another."""
    rng = np.random.default_rng(seed)
    with writing(archive.store) as writer:
        writer.add_space(SPACE)
        clips, indexed, files = [], [], []
        for number, n in enumerate(sizes):
            name = f"mixed {number}"
            first, vectors = writer.reserve_clip_ids(n), unit(np.abs(rng.standard_normal((n, DIM))))
            archive.vectors[name], archive.ids[name] = vectors, (first + rng.permutation(n)).tolist()
            row = dict.fromkeys(tables.INDEXED.names) | {"video_id": name, "space": SPACE.name, "state": "ok"}
            indexed.append(row | {"first_clip_id": first, "n_clips": n})
            files.append(archive._file(name, f"/mixed/{number}.mp4".encode()))
            clips += [
                {"clip_id": archive.ids[name][at], "video_id": name, "start_s": 10.0 * at, "end_s": 10.0 * at + CLIP_S}
                | {"frame_pts": [1], "frame_pts_s": [0.0], "vector": vector}
                for at, vector in enumerate(vectors)
            ]
        order = rng.permutation(len(clips)).tolist()
        for part in range(4):
            writer.commit(Commit(clips={SPACE.name: [clips[at] for at in order[part::4]]}))
        writer.commit(Commit(indexed=indexed, files=files))


def blocks(store: Store, n_clips: int) -> Iterator[Any]:
    snapshot = Snapshot(store)
    return whole_videos(snapshot, SPACE, live_ranges(snapshot, SPACE)[0], n_clips)


@pytest.mark.parametrize("n_clips", [1, 4, 9, 10_000])
def test_blocks_hold_whole_videos_in_the_order_of_time_and_nothing_dead(store: Store, n_clips: int) -> None:
    archive, rng = Archive(store), np.random.default_rng(1)
    archive.add("again", unit(rng.standard_normal((6, DIM))), [b"/again.mp4"])
    scattered(archive, [1, 9, 4, 30, 2])
    archive.add("again", unit(rng.standard_normal((3, DIM))), [b"/again.mp4"])  # another plan: the six are dead
    archive.add("gone", unit(rng.standard_normal((5, DIM))), [b"/gone.mp4"])
    archive.forget("gone", b"/gone.mp4")
    live, video_ids = live_ranges(Snapshot(store), SPACE)
    found: dict[str, list[int]] = {}
    for block in blocks(store, n_clips):
        for video in np.unique(block.videos).tolist():
            at = np.flatnonzero(block.videos == video)
            name = video_ids[video].as_py()
            assert name not in found
            assert (np.diff(at) == 1).all()
            found[name] = block.ids[at].tolist()
            np.testing.assert_array_equal(block.vectors[at], archive.vectors[name])
            np.testing.assert_array_equal(block.times_s[at, 0], archive.starts_s(name))
        if n_clips == 10_000:
            assert len(block.ids) == live.n_clips
    assert found == archive.ids
    assert sorted(found) == ["again", *(f"mixed {n}" for n in range(5))]


def test_rows_of_scattered_and_reindexed_videos_are_right(store: Store, labels: str) -> None:
    archive = Archive(store)
    scattered(archive, [3, 12, 7])
    archive.add("mixed 1", unit(np.abs(np.random.default_rng(9).standard_normal((4, DIM)))), [b"/mixed/1.mp4"])
    tag(store, TagOptions(labels=labels, top=2))
    check_clips(held(store), by_hand(archive, top=2))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["missing", "twice", "both"])
@pytest.mark.parametrize("n_clips", [2, 100])
def test_clips_that_are_missing_or_there_twice_are_told(store: Store, labels: str, what: str, n_clips: int) -> None:
    archive = Archive(store)
    scattered(archive, [5, 3])
    clips = DeltaTable(store.path / "clips" / SPACE.name)
    one, other = archive.ids["mixed 0"][1:3]
    if what != "missing":
        copies = clips.to_pyarrow_table().filter(pc.field("clip_id") == other)
        write_deltalake(clips, copies, mode="append")
    if what != "twice":
        DeltaTable(store.path / "clips" / SPACE.name).delete(f"clip_id = {one}")
    with pytest.raises(StoreDamaged, match="not whole"):
        list(blocks(store, n_clips))
    with pytest.raises(StoreDamaged):
        tag(store, TagOptions(labels=labels))
    assert store.tag_sets() == []


def test_a_run_that_fails_half_way_leaves_the_old_rows(
    archive: Archive, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag(archive.store, TagOptions(labels=labels, top=1))
    before, path = held(archive.store), files_of(archive.store, "mine")
    calls = []

    def failing(*rest: Any) -> Any:
        calls.append(rest)
        if len(calls) == 4:
            raise InputError("no more")
        return found(*rest)

    found = tags.rows_of
    monkeypatch.setattr(tags, "rows_of", failing)
    with pytest.raises(InputError, match="no more"):
        tag(archive.store, TagOptions(labels=labels))
    assert (held(archive.store), files_of(archive.store, "mine")) == (before, path)
    assert list(path[0].parent.glob("*.parquet")) == path
    assert Snapshot(archive.store).rows("SELECT count(*) FROM runs") == [(1,)]


def test_it_runs_while_an_index_run_writes_and_says_how_far_it_is(archive: Archive, labels: str) -> None:
    heard: list[tuple[int, int]] = []
    with writing(archive.store):
        done = tag(archive.store, TagOptions(labels=labels), lambda *counts: heard.append(counts))
    assert heard[-1] == (45, 45)
    assert heard == sorted(heard)
    [row] = Snapshot(archive.store).rows("SELECT run_id, command, state, space, counts FROM runs")
    assert row[:4] == (done.run_id, "tag mine", "done", SPACE.name)
    assert json.loads(row[4]) == {"clips": 45, "videos": 5, "rows": done.n_rows, "unmatched": {"clip": 0}}


def test_what_makes_no_sense_is_refused(archive: Archive, labels: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to label with"):
        tag(archive.store, TagOptions())
    with pytest.raises(InputError, match="no label 'x' was taught"):
        tag(archive.store, TagOptions(taught=("x",)))
    with pytest.raises(InputError, match="no place for the label"):
        TagOptions(labels=labels, templates=("a video",))
    with pytest.raises(StoreMissing):
        tag(Store.create(tmp_path / "empty"), TagOptions(labels=labels))
    with pytest.raises(InputError, match="exact"):
        tag(archive.store, TagOptions(labels=labels, exact=True))
    assert archive.store.tag_sets() == []


@pytest.mark.parametrize("at_once", [("_BLOCK_NUMBERS", 1), ("_BLOCK_CLIPS", 10_000)])
def test_how_much_is_worked_on_at_once_changes_nothing(
    archive: Archive, labels: str, at_once: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, *at_once)
    tag(archive.store, TagOptions(labels=labels, top=2))
    check_clips(held(archive.store), by_hand(archive, top=2))


@pytest.mark.slow
def test_other_commands_work_on_a_store_with_tags(archive: Archive, labels: str, vidx: Any) -> None:
    tag(archive.store, TagOptions(labels=labels, top=1, levels=("clip", "video")))
    for command in ("verify", "status"):
        run = vidx(command, "--store", archive.store.path)
        assert (run.returncode, run.stderr) == (0, ""), command
    query = "SELECT level, count(*) AS n FROM tags GROUP BY level ORDER BY level"
    run = vidx("sql", query, "--store", archive.store.path, "--format", "csv")
    assert run.stdout.splitlines() == ["level,n", "clip,45", "video,5"]


def test_the_command_writes_the_very_rows_to_a_file_too(archive: Archive, labels: str, tmp_path: Path) -> None:
    from vidx.cli_tag import tag as command

    out = tmp_path / "tags.parquet"
    run = CliRunner().invoke(
        command, ["--store", str(archive.store.path), "--labels", labels, "-o", str(out), "--json"]
    )
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["n_rows"] == len(held(archive.store))
    assert out.read_bytes() == files_of(archive.store, "mine")[0].read_bytes()


# --- calibration


@pytest.fixture(scope="module")
def made_to_sample(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Sixteen videos of eight clips, for reading only: every other one shows climbing, the rest sitting, with noise."""
    archive, rng = Archive(Store.create(tmp_path_factory.mktemp("sampled") / "store")), np.random.default_rng(3)
    for number in range(16):
        shown = AXES[number % 2] * 1.5
        vectors = unit(np.abs(0.6 * rng.standard_normal((8, DIM))) + shown)
        archive.add(f"v{number}", vectors, [f"/archive/{number}/clip {number}.mp4".encode()])
    return archive


@pytest.fixture
def sampled(made_to_sample: Archive, tmp_path: Path) -> Archive:
    """A copy of `made_to_sample` to write to."""
    return copied(made_to_sample, tmp_path)


def sample(folder: Path, rows: Sequence[Sequence[object]], header: str = "path,label,start_s,end_s") -> Path:
    path = folder / "sample.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    return path


def truth_of(sampled: Archive, folder: Path) -> Path:
    """Every video shows one of two labels throughout, as absolute and as relative paths."""
    rows = [[f"/archive/{n}/clip {n}.mp4" if n % 3 else f"{n}/clip {n}.mp4", NAMES[n % 2], "", ""] for n in range(16)]
    return sample(folder, rows)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["single", "multi"])
def test_what_a_sample_teaches_is_kept_and_used_by_later_runs(
    sampled: Archive, labels: str, tmp_path: Path, mode: str
) -> None:
    store, options = sampled.store, TagOptions(labels=labels, mode=mode, top=4)
    plain = tag(store, replace(options, threshold=0.0))
    raw = {(row["clip_id"], row["label"]): row["probability"] for row in held(store)}
    assert len(raw) == 16 * 8 * 4
    assert plain.calibration is None

    done = tag(store, replace(options, calibrate=truth_of(sampled, tmp_path)))
    assert done.notes == []
    assert (done.calibration["n_clips"], done.calibration["n_videos"]) == (128, 16)
    kept = json.loads((store.path / "tags" / "mine.json").read_text())
    calibration = Calibration.from_json(kept["calibration"])
    assert calibration.labels == tuple(NAMES)
    given = held(store)
    check_calibrated(given, raw, calibration)

    again = tag(store, options)
    assert again.notes == []
    assert again.calibration == done.calibration
    assert told(held(store)) == told(given)
    assert [row["probability"] for row in held(store)] == [row["probability"] for row in given]
    check_calibrated(held(store), raw, calibration)

    bare = tag(store, replace(options, calibrated=False, threshold=0.0))
    assert (bare.calibration, bare.notes) == (None, [])
    assert {(row["clip_id"], row["label"]): row["probability"] for row in held(store)} == raw


def check_calibrated(rows: list[dict[str, Any]], raw: dict[Any, float], calibration: Calibration) -> None:
    """Every probability is the curve's of the raw one, and what reaches its threshold is there."""
    clips = sorted({clip for clip, _ in raw})
    table = calibration.apply(np.array([[raw[clip, name] for name in NAMES] for clip in clips], np.float32))
    expected = {(clip, name): table[at, n] for at, clip in enumerate(clips) for n, name in enumerate(NAMES)}
    least = dict(zip(NAMES, calibration.thresholds.astype(np.float32), strict=True))
    found = {(row["clip_id"], row["label"]): row for row in rows if row["label"]}
    assert set(found) == {key for key, chance in expected.items() if chance >= least[key[1]]}
    for key, row in found.items():
        assert row["probability"] == pytest.approx(expected[key], abs=1e-6)
        assert row["threshold"] == least[key[1]]
    assert {row["clip_id"] for row in rows} == set(clips)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"mode": "multi"}, {"templates": ("a {}",)}, {"labels": "climb\nsit"}, {"labels": "sit\nclimb\ncook\ndrive"}],
)
def test_what_was_learnt_of_other_labels_or_prompts_is_not_used(
    sampled: Archive, labels: str, tmp_path: Path, change: dict[str, Any]
) -> None:
    options = TagOptions(labels=labels)
    tag(sampled.store, replace(options, calibrate=truth_of(sampled, tmp_path)))
    kept = (sampled.store.path / "tags" / "mine.json").read_bytes()
    if "labels" in change:
        Path(labels).write_text(change["labels"])
        change = {}
    done = tag(sampled.store, replace(options, **change))
    assert done.calibration is None
    [note] = done.notes
    assert "mine" in note
    assert "not used" in note
    assert (sampled.store.path / "tags" / "mine.json").read_bytes() == kept


@pytest.mark.slow
def test_a_threshold_that_is_given_comes_before_one_that_was_learnt(sampled: Archive, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("label,threshold\nclimb,0.25\nsit,\n")
    tag(sampled.store, TagOptions(labels=str(path), calibrate=truth_of(sampled, tmp_path)))
    learnt = Calibration.from_json(json.loads((sampled.store.path / "tags" / "mine.json").read_text())["calibration"])
    least = {row["label"]: row["threshold"] for row in held(sampled.store) if row["label"]}
    assert least == {"climb": 0.25, "sit": np.float32(learnt.thresholds[1])}
    tag(sampled.store, TagOptions(labels=str(path), threshold=0.125))
    assert {row["threshold"] for row in held(sampled.store)} == {0.125}


def captured(sampled: Archive, labels: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Tagged]:
    """What calibration is given: shows and known by video, clip and label; and the finished run."""
    given: dict[str, Any] = {}

    def spied(raw: Any, shows: Any, known: Any, videos: Any, names: Any, **options: Any) -> Any:
        given.update(raw=raw, shows=shows, known=known, videos=videos, names=names)
        return fit(raw, shows, known, videos, names, **options)

    from vidx.search import _tag_sample

    fit = _tag_sample.fit
    monkeypatch.setattr(_tag_sample, "fit", spied)
    return given, tag(sampled.store, TagOptions(labels=labels, calibrate=path))


def test_a_sample_says_what_is_shown_what_is_not_and_what_is_left_open(
    sampled: Archive, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ["/archive/0/clip 0.mp4", "climb", 10, 34],  # clips 1 and 2 whole, of clip 3 four seconds
        ["/archive/0/clip 0.mp4", "sit", 0, 5],  # half of a clip is enough
        ["/archive/0/clip 0.mp4", "sit", 55, 57],
        ["/archive/0/clip 0.mp4", "sit", 57, 60],  # and so is the same half in two rows
        ["/archive/0/clip 0.mp4", "cook", 62, 66],
        ["/archive/0/clip 0.mp4", "cook", 62, 66],  # said twice, it is still less than half
        ["clip 1.mp4", " climb ", "", 30],
        ["./2/clip 2.mp4", "", "", ""],  # shows none of them
        ["3/clip 3.mp4", "juggle", "", ""],  # a label of another set
        ["nowhere.mp4", "climb", "", ""],
    ]
    given, done = captured(sampled, labels, sample(tmp_path, rows), monkeypatch)
    shows, known = given["shows"].reshape(4, 8, 4), given["known"].reshape(4, 8, 4)
    assert given["names"] == tuple(NAMES)
    assert [len(np.unique(part)) for part in given["videos"].reshape(4, 8)] == [1] * 4
    np.testing.assert_allclose(
        given["raw"], chances(np.concatenate([sampled.vectors[f"v{n}"] for n in range(4)]))[0], atol=1e-5
    )
    expected = np.zeros((4, 8, 4), bool)
    expected[0, [1, 2], 0] = expected[0, [0, 5], 1] = expected[1, :3, 0] = True
    np.testing.assert_array_equal(shows, expected)
    open_pairs = {(0, 3, 0), (0, 6, 2)}
    assert set(zip(*(part.tolist() for part in np.nonzero(~known)), strict=True)) == open_pairs
    assert len(done.notes) == 2
    assert "1 videos are not indexed: nowhere.mp4" in done.notes[0]
    assert "1 labels are not among mine: juggle" in done.notes[1]


@pytest.mark.parametrize(
    ("header", "rows", "what"),
    [
        ("path,label", [], "is empty"),
        ("path,name", [["a.mp4", "climb"]], "no column `label`"),
        ("label", [["climb"]], "no column `path`"),
        ("path,label,start_s,end_s", [["clip 0.mp4", "climb", 5, 5]], "line 2"),
        ("path,label,start_s,end_s", [["clip 0.mp4", "climb", "", ""], ["clip 1.mp4", "climb", "soon", ""]], "line 3"),
        ("path,label", [["", "climb"]], "line 2: it has no path"),
        ("path,label", [["nowhere.mp4", "climb"]], "none of its videos is indexed, as nowhere.mp4"),
        ("path,label", [["clip 0.mp4", "juggle"]], "no positive example"),
        ("path,label", [["clip 0.mp4", "climb"]], "one video"),
    ],
)
def test_a_sample_that_can_not_be_used_is_told(
    made_to_sample: Archive, labels: str, tmp_path: Path, header: str, rows: list[list[object]], what: str
) -> None:
    with pytest.raises(InputError, match=what) as raised:
        tag(made_to_sample.store, TagOptions(labels=labels, calibrate=sample(tmp_path, rows, header)))
    assert "\n" not in str(raised.value)
    assert made_to_sample.store.tag_sets() == []


@pytest.mark.slow
def test_a_path_that_is_the_end_of_several_is_refused(sampled: Archive, labels: str, tmp_path: Path) -> None:
    sampled.add("same name", sampled.vectors["v0"], [b"/elsewhere/clip 0.mp4"])
    with pytest.raises(InputError, match=r"several indexed videos end in clip 0\.mp4"):
        tag(sampled.store, TagOptions(labels=labels, calibrate=sample(tmp_path, [["clip 0.mp4", "climb", "", ""]])))


@pytest.mark.slow
def test_garbled_calibrations_are_told(sampled: Archive, labels: str, tmp_path: Path) -> None:
    tag(sampled.store, TagOptions(labels=labels, calibrate=truth_of(sampled, tmp_path)))
    path = sampled.store.path / "tags" / "mine.json"
    whole = json.loads(path.read_text())
    for text in ("{", "[]", json.dumps({**whole, "calibration": {}}), json.dumps({**whole, "calibration": None})):
        path.write_text(text)
        with pytest.raises(StoreDamaged):
            tag(sampled.store, TagOptions(labels=labels))
    del whole["calibration"]
    path.write_text(json.dumps(whole))
    with pytest.raises(StoreDamaged):
        tag(sampled.store, TagOptions(labels=labels))
