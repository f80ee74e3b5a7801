"""An index never changes what a search finds, whatever was added, removed or damaged since it was built."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from vidx.config import SearchOptions
from vidx.errors import StoreDamaged, StoreError, StoreLocked, StoreMissing, UnknownChoice
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.verify import clip_troubles
from vidx.search import rebuild as rebuilding
from vidx.search.collection import open_collection
from vidx.search.rebuild import index_folder, is_due, keep_up, rebuild, roll_back
from vidx.search.run import search_vectors
from vidx.search.verify import index_troubles
from vidx.tests.made_store import DIM, SPACE, Archive, unit
from vidx.vectors import _generations
from vidx.vectors.ivf import IvfIndex

pytestmark = pytest.mark.slow

TIERS = ("flat", "ivf")


@pytest.fixture(autouse=True)
def _all_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cluster is scanned, so that both tiers are exact."""
    monkeypatch.setattr(IvfIndex, "widths", lambda index: [IvfIndex(index._codes, index._vectors, index._codes.nlist)])


def drifting(rng: np.random.Generator, n: int) -> np.ndarray:
    """Vectors of a video whose neighbours are alike."""
    return unit(np.cumsum(rng.standard_normal((n, DIM)) * 0.5, axis=0) + rng.standard_normal(DIM))


def grow(archive: Archive, rng: np.random.Generator, names: str) -> None:
    for name in names:
        archive.add(name, drifting(rng, int(rng.integers(1, 30))), [f"/{name}.mp4".encode()])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    made = Archive(Store.create(tmp_path_factory.mktemp("template") / "store"))
    grow(made, np.random.default_rng(0), "abcdefgh")
    return made


@pytest.fixture
def archive(template: Archive, tmp_path: Path) -> Archive:
    copied = shutil.copytree(template.store.path, tmp_path / "copy")
    return Archive(Store.open(copied), dict(template.vectors), dict(template.ids))


def agrees_with_hand(archive: Archive) -> None:
    """Every way to rank gives what a scan of all vectors gives, and the background is that of all clips."""
    rng = np.random.default_rng(9)
    everything = np.concatenate(list(archive.vectors.values())).astype(np.float64)
    snapshot = Snapshot(archive.store)
    collection = open_collection(snapshot, SPACE)
    for by in ("clip", "moment", "video"):
        query = unit(rng.standard_normal(DIM))
        ranked, _ = search_vectors(snapshot, SPACE, [query], SearchOptions(k=12, by=by))
        found = [hit for hit, _ in ranked]
        expected = archive.by_hand(query, by)[:12]
        assert [(hit.clip_ids, hit.video_id) for hit in found] == [(ids, video) for ids, video, *_ in expected]
        np.testing.assert_allclose([hit.score for hit in found], [row[2] for row in expected], atol=2e-6)
        scores = everything @ query
        assert collection.background(query) == pytest.approx((scores.mean(), scores.std()), abs=1e-6)


def used(archive: Archive) -> tuple[str | None, int, int]:
    """The generation that a search uses, the clips beside it, and those of it that are gone."""
    collection = open_collection(Snapshot(archive.store), SPACE)
    return (
        collection.generation.name if collection.generation else None,
        collection.tail_ranges.n_clips,
        len(collection.dead),
    )


@pytest.mark.parametrize("tier", TIERS)
def test_a_search_covers_all_that_is_committed_and_nothing_that_is_gone(archive: Archive, tier: str) -> None:
    rng = np.random.default_rng(1)
    agrees_with_hand(archive)
    rebuild(archive.store, SPACE, tier=tier)
    assert used(archive) == ("g000001", 0, 0)
    agrees_with_hand(archive)
    grow(archive, rng, "ijk")
    assert used(archive) == ("g000001", sum(len(archive.ids[name]) for name in "ijk"), 0)
    agrees_with_hand(archive)
    gone = len(archive.ids["b"])
    archive.forget("b", b"/b.mp4")
    assert used(archive)[2] == gone
    agrees_with_hand(archive)
    again = len(archive.ids["c"])
    archive.add("c", drifting(rng, 9), [b"/c.mp4"])  # indexed anew: other clips in the place of the old ones
    assert used(archive)[2] == gone + again
    agrees_with_hand(archive)
    rebuild(archive.store, SPACE, tier=tier)
    assert used(archive) == ("g000002", 0, 0)
    agrees_with_hand(archive)


def test_a_snapshot_from_before_sees_nothing_of_what_an_index_holds_since(archive: Archive) -> None:
    before = Snapshot(archive.store)
    grow(archive, np.random.default_rng(2), "xyz")
    rebuild(archive.store, SPACE)
    old = open_collection(before, SPACE)
    assert len(old.dead) == sum(len(archive.ids[name]) for name in "xyz")
    found, _ = search_vectors(before, SPACE, [archive.vectors["x"][0]], SearchOptions(k=1000, by="clip"))
    assert {hit.video_id for hit, _ in found} == set("abcdefgh")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("share", [0.5, 0.01, 0.0001, 0.0])
def test_a_filter_gives_as_many_as_match_and_the_same_as_a_scan(
    store: Store, tier: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the clips that are left are scored one by one or FAISS is told which they are."""
    rng = np.random.default_rng(3)
    archive = Archive(store)
    for name in "abcd":
        archive.add(name, unit(rng.standard_normal((500, DIM))), [f"/{name}.mp4".encode()])
    rebuild(store, SPACE, tier=tier)
    archive.add("tail", unit(rng.standard_normal((400, DIM))), [b"/tail.mp4"])
    ids = np.concatenate([np.array(own) for own in archive.ids.values()])
    vectors = np.concatenate(list(archive.vectors.values()))
    kept = np.sort(rng.choice(ids, round(share * len(ids)), replace=False))
    for small in (0, 10**6):
        monkeypatch.setattr("vidx.vectors._selection._SMALL_ROWS", small)
        monkeypatch.setattr("vidx.vectors._selection._SMALL_SHARE", 0)
        for query in unit(rng.standard_normal((5, DIM))):
            scores = vectors[np.isin(ids, kept)] @ query
            expected = np.sort(ids[np.isin(ids, kept)][np.argsort(-scores)][:10])
            found, _ = search_vectors(Snapshot(store), SPACE, [query], SearchOptions(k=10, by="clip"), kept)
            assert sorted(hit.clip_ids[0] for hit, _ in found) == expected.tolist()
            assert len(found) == min(10, len(kept))


def test_an_index_that_does_not_find_enough_is_not_switched_to(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(archive.store, SPACE)
    monkeypatch.setattr(IvfIndex, "widths", lambda _: [Blind()])
    built = rebuild(archive.store, SPACE, tier="ivf")
    assert built.name is None
    assert built.recall is not None
    assert built.recall < rebuilding.GATE
    assert "not switched to" in rebuilding.told(built)
    assert used(archive)[0] == "g000001"
    assert sorted(path.name for path in index_folder(archive.store, SPACE).iterdir()) == ["CURRENT", "g000001", "lock"]
    agrees_with_hand(archive)


class Blind:
    """An index that answers with the worst it has."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return -np.ones((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)


def test_two_generations_are_kept_and_the_older_can_be_gone_back_to(archive: Archive) -> None:
    for _ in range(3):
        rebuild(archive.store, SPACE)
    folder = index_folder(archive.store, SPACE)
    assert _generations.names(folder) == ["g000002", "g000003"]
    assert roll_back(archive.store, SPACE) == "g000002"
    assert used(archive)[0] == "g000002"
    assert roll_back(archive.store, SPACE) == "g000003"
    assert rebuild(archive.store, SPACE).name == "g000004"
    assert _generations.names(folder) == ["g000003", "g000004"]
    agrees_with_hand(archive)


def test_after_a_roll_back_the_generation_in_use_is_the_one_that_is_kept(archive: Archive) -> None:
    for _ in range(2):
        rebuild(archive.store, SPACE)
    roll_back(archive.store, SPACE)
    assert rebuild(archive.store, SPACE).name == "g000003"
    assert _generations.names(index_folder(archive.store, SPACE)) == ["g000001", "g000003"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("nonsense")])
def test_without_a_current_the_newest_is_used_and_that_is_told(
    archive: Archive, harm: Callable[[Path], object]
) -> None:
    rebuild(archive.store, SPACE)
    harm(index_folder(archive.store, SPACE) / "CURRENT")
    assert used(archive)[0] == "g000001"
    assert "names no generation" in open_collection(Snapshot(archive.store), SPACE).trouble
    assert any("names no generation" in trouble for trouble in index_troubles(Snapshot(archive.store), SPACE))
    agrees_with_hand(archive)


def test_there_is_nothing_to_go_back_to_at_first(archive: Archive) -> None:
    with pytest.raises(StoreError, match="no other generation"):
        roll_back(archive.store, SPACE)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped_head(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *(("index.faiss", harm) for harm in (cut, flipped_head, Path.unlink)),
        *(("meta.json", harm) for harm in (cut, flipped_head, Path.unlink)),
        *((file, cut) for file in ("vectors.npy", "clip_ids.npy", "ranges.npy", "sums.npy")),
    ],
)
def test_a_damaged_index_is_passed_over_for_the_one_before(
    archive: Archive, file: str, harm: Callable[[Path], None]
) -> None:
    rebuild(archive.store, SPACE)
    grow(archive, np.random.default_rng(5), "z")
    rebuild(archive.store, SPACE)
    harm(index_folder(archive.store, SPACE) / "g000002" / file)
    collection = open_collection(Snapshot(archive.store), SPACE)
    assert collection.generation is not None
    assert collection.generation.name == "g000001"
    assert "g000002" in collection.trouble
    agrees_with_hand(archive)
    assert any("g000002" in trouble for trouble in index_troubles(Snapshot(archive.store), SPACE))


@pytest.mark.parametrize("content", [b"", b"g000009\n", b"../../x\n", b"\xff\xfe"])
def test_without_a_generation_that_opens_everything_is_read_from_the_store(archive: Archive, content: bytes) -> None:
    rebuild(archive.store, SPACE)
    folder = index_folder(archive.store, SPACE)
    shutil.rmtree(folder / "g000001")
    (folder / "CURRENT").write_bytes(content)
    assert used(archive) == (None, sum(map(len, archive.ids.values())), 0)
    agrees_with_hand(archive)
    assert rebuild(archive.store, SPACE).name == "g000001"
    agrees_with_hand(archive)


def test_what_was_altered_out_of_sight_is_found_by_verify(archive: Archive) -> None:
    rebuild(archive.store, SPACE)
    assert list(index_troubles(Snapshot(archive.store), SPACE)) == []
    path = index_folder(archive.store, SPACE) / "g000001" / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x40
    path.write_bytes(bytes(data))
    troubles = " ".join(index_troubles(Snapshot(archive.store), SPACE))
    assert "vectors.npy is not what was built" in troubles
    assert "1 of its clips differ" in troubles
    assert rebuild(archive.store, SPACE).name == "g000002"


def test_an_index_that_finds_too_little_is_found_by_verify(store: Store) -> None:
    archive = Archive(store)
    archive.add("a", unit(np.random.default_rng(7).standard_normal((1500, DIM))), [b"/a.mp4"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuilding, "GATE", 0.0)
        patch.setattr(IvfIndex, "widths", lambda index: [IvfIndex(index._codes, index._vectors, 1)])
        rebuild(archive.store, SPACE, tier="ivf")
    [trouble] = index_troubles(Snapshot(archive.store), SPACE)
    assert "of the ten best" in trouble


def test_clips_that_are_not_what_the_tables_say_are_found_by_verify(archive: Archive) -> None:
    from deltalake import DeltaTable

    assert list(clip_troubles(Snapshot(archive.store), SPACE)) == []
    first = archive.ids["a"][0]
    DeltaTable(archive.store.path / "clips" / SPACE.name).delete(f"clip_id = {first}")
    [trouble] = clip_troubles(Snapshot(archive.store), SPACE)
    assert trouble == f"1 clips of {SPACE.name} are recorded and not there, the first with clip_id {first}"
    with pytest.raises(StoreDamaged, match="not whole"):
        rebuild(archive.store, SPACE)
    assert [path.name for path in index_folder(archive.store, SPACE).iterdir()] == ["lock"]


def test_vectors_that_can_not_be_right_are_found_by_verify(store: Store) -> None:
    archive = Archive(store)
    bad = np.eye(DIM, dtype=np.float32)[:3].copy()
    bad[0, 0], bad[1] = np.nan, 0
    archive.add("a", bad, [b"/a.mp4"])
    troubles = list(clip_troubles(Snapshot(store), SPACE))
    assert [trouble.split("vectors that ")[1].split(",")[0] for trouble in troubles] == [
        "are not finite",
        "are not of unit norm",
    ]


def test_only_one_process_builds_at_a_time(archive: Archive) -> None:
    rebuild(archive.store, SPACE)
    with FileLock(index_folder(archive.store, SPACE) / "lock"), pytest.raises(StoreLocked, match="being built"):
        rebuild(archive.store, SPACE)


def test_an_empty_space_has_nothing_to_build(store: Store) -> None:
    with pytest.raises(StoreMissing, match="no video is indexed"):
        rebuild(store, SPACE)


def test_an_index_is_built_when_enough_clips_are_beside_it(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "_FEW_CLIPS", 20)
    lines: list[str] = []
    keep_up(archive.store, SPACE, lines.append)
    assert lines[0].startswith("index g000001: ")
    assert not is_due(archive.store, SPACE)
    keep_up(archive.store, SPACE, lines.append)
    assert len(lines) == 1
    archive.add("more", drifting(np.random.default_rng(6), 60), [b"/more.mp4"])
    assert is_due(archive.store, SPACE)


def test_a_tier_that_was_named_stays(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "_FEW_CLIPS", 20)
    rebuild(archive.store, SPACE, tier="ivf")
    archive.add("more", drifting(np.random.default_rng(6), 90), [b"/more.mp4"])
    lines: list[str] = []
    keep_up(archive.store, SPACE, lines.append)
    assert ", ivf, " in lines[0]
    rebuild(archive.store, SPACE)
    archive.add("still more", drifting(np.random.default_rng(7), 90), [b"/still more.mp4"])
    keep_up(archive.store, SPACE, lines.append)
    assert ", flat, " in lines[1]


def test_a_tier_that_there_is_not_is_refused(archive: Archive) -> None:
    with pytest.raises(UnknownChoice, match="'tree'"):
        rebuild(archive.store, SPACE, tier="tree")
    assert not index_folder(archive.store, SPACE).exists()


@pytest.mark.parametrize("n", [1, 5, 16, 40])
def test_few_clips_can_be_indexed_in_every_tier(store: Store, n: int) -> None:
    made = Archive(store)
    made.add("a", drifting(np.random.default_rng(8), n), [b"/a.mp4"])
    for tier in TIERS:
        assert rebuild(store, SPACE, tier=tier).name is not None
        agrees_with_hand(made)


def test_trouble_with_an_index_stops_nobody(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "_FEW_CLIPS", 20)
    folder = index_folder(archive.store, SPACE)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    lines: list[str] = []
    keep_up(archive.store, SPACE, lines.append)
    assert lines[0].startswith("the index was not built: ")
    agrees_with_hand(archive)
