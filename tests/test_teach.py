"""`vidx teach`: moments in files become clips, a rule, and a file in the store."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from vidx.cli_teach import teach as command
from vidx.errors import InputError, StoreMissing
from vidx.export import csv as csv_format
from vidx.export import json as json_format
from vidx.export._hits import hit_rows
from vidx.learn.examples import Moment, _shared, read_moments
from vidx.learn.teach import check_label, teach
from vidx.schema.heads import read_head, taught
from vidx.schema.records import Answer, Hit
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.collection import open_collection
from vidx.tests.made_store import DIM, SPACE, Archive, unit

pytest.importorskip("sklearn", reason="teaching takes the extra `tags`")
GOAL = unit(np.eye(DIM, dtype=np.float32)[0])
SHOWN = (1, 2)  # which clips of a match show a goal


def match(seed: int, goals: tuple[int, ...] = SHOWN) -> np.ndarray:
    """Five clips, some of a goal, the others of anything else."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((5, DIM))
    vectors[:, 0] = 0
    vectors[list(goals)] = 6 * GOAL + 0.5 * vectors[list(goals)]
    return unit(vectors)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """match0 to match7 with goals from 10 to 30 s, other0 to other19 without."""
    made = Archive(Store.create(tmp_path_factory.mktemp("teach") / "store"))
    for n in range(8):
        made.add(f"match{n}", match(n), [f"/archive/games/match{n}.mp4".encode()])
    for n in range(20):
        made.add(f"other{n}", match(100 + n, ()), [f"/archive/other/other{n}.mp4".encode()])
    return made


@pytest.fixture
def archive(original: Archive, tmp_path: Path) -> Archive:
    """A copy of the original for a test to change."""
    store = Store.open(shutil.copytree(original.store.path, tmp_path / "store"))
    return Archive(store, dict(original.vectors), dict(original.ids))


def answer(hits: list[Hit]) -> Answer:
    return Answer("store", "a goal", SPACE.name, load_ms=0, took_ms=0, total=None, hits=hits)


def hits_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"version": 1, "hits": rows}))
    return path


def row(n: int, start_s: float = 10, end_s: float = 30, **more: Any) -> dict[str, Any]:
    return {"path": f"/archive/games/match{n}.mp4", "start_s": start_s, "end_s": end_s, **more}


def run(store: Store, *arguments: Any) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--store", str(store.path)], catch_exceptions=False)


@pytest.mark.parametrize("method", ["logistic", "prototype"])
@pytest.mark.parametrize("by", ["clip", "moment"])
def test_hits_that_a_person_marked_teach_a_label_that_finds_the_rest(
    archive: Archive, tmp_path: Path, method: str, by: str
) -> None:
    """All goals of the archive are named; those of matches that come later are told apart as they were made."""
    hits = archive.search(unit(GOAL + 0.5 * np.eye(DIM, dtype=np.float32)[3]), 60, by)
    named = [asdict(hit) for hit in hits if hit.video_id.startswith("match")]
    for hit in named:
        if hit["start_s"] < 10 or hit["end_s"] > 30:
            hit["relevant"] = False
    result = teach(archive.store, " a goal ", [hits_file(tmp_path / "hits.json", named)], method=method)
    head = read_head(archive.store, SPACE.name, "a goal")
    assert (head.digest, head.label, head.space, head.method) == (result.head.digest, "a goal", SPACE.name, method)
    assert head.n_positive == 16
    for seed in range(1000, 1010):
        assert np.flatnonzero(head.probabilities(match(seed)) >= head.threshold).tolist() == list(SHOWN)
    found = archive.search(head.direction, 16, "clip")
    assert {(hit.video_id[:5], hit.start_s) for hit in found} == {("match", 10.0), ("match", 20.0)}


def test_what_a_search_prints_teaches_the_same_as_json_and_as_csv(archive: Archive, tmp_path: Path) -> None:
    found = answer(archive.search(GOAL, 12, "moment"))
    (tmp_path / "hits.json").write_text(json_format.to_text(found))
    with open(tmp_path / "hits.csv", "wb") as file:
        csv_format.write(hit_rows(found), file)
    digests = {teach(archive.store, "a goal", [tmp_path / name]).head.digest for name in ("hits.json", "hits.csv")}
    assert len(digests) == 1


def test_a_csv_may_mark_what_is_not_and_leave_out_times(archive: Archive, tmp_path: Path) -> None:
    lines = [
        "path,start_s,end_s,relevant",
        "games/match0.mp4,10,30,true",
        "/archive/games/match1.mp4,10.0,30.0,",
        "match2.mp4,30,50,False",
        "match3.mp4,,10,0",
        "other/other0.mp4,,,0",
    ]
    path = tmp_path / "marked"
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    head = teach(archive.store, "a goal", [path], n_random=0).head
    assert (head.n_positive, head.n_negative) == (4, 2 + 1 + 5)


@pytest.mark.slow
def test_moments_are_found_again_after_a_video_was_indexed_anew(archive: Archive, tmp_path: Path) -> None:
    """With other ids; and where they are those of another video now, this one is not mixed up with it."""
    hits = archive.search(GOAL, 8, "moment")
    path = hits_file(tmp_path / "hits.json", [asdict(hit) for hit in hits])
    nots = [hits_file(tmp_path / "not.json", [{"video_id": f"other{n}"} for n in range(3)])]
    before = teach(archive.store, "a goal", [path], nots, n_random=0)
    old_ids = {clip_id for hit in hits for clip_id in hit.clip_ids}
    for n in range(8):
        archive.add(f"match{n}", archive.vectors[f"match{n}"], [f"/archive/games/match{n}.mp4".encode()])
    after = teach(archive.store, "a goal", [path], nots, n_random=0)
    assert not old_ids & set(archive.ids["match0"])
    assert after.head.digest == before.head.digest
    wrong = [asdict(hit) | {"clip_ids": archive.ids["other1"]} for hit in hits]
    assert teach(archive.store, "a goal", [hits_file(path, wrong)], nots, n_random=0).head.digest == before.head.digest


def test_a_video_whose_content_changed_is_found_by_its_path(archive: Archive, tmp_path: Path) -> None:
    rows = [row(n, video_id=f"match{n} as it was") for n in range(3)]
    result = teach(archive.store, "a goal", [hits_file(tmp_path / "hits.json", rows)])
    assert (result.head.n_positive, result.unmatched) == (6, [])


@given(
    clips=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), min_size=1, max_size=8),
    start=st.integers(0, 400),
    length=st.integers(1, 400) | st.none(),
)
def test_a_clip_matches_by_the_half_of_itself_or_of_the_moment(
    clips: list[tuple[int, int]], start: int, length: int | None
) -> None:
    """Times in tenths of a second, counted one by one."""
    end = math.inf if length is None else (start + length) / 10
    moment = Moment("file", "video", None, start / 10, end, True)
    times_s = np.array([(first / 10, (first + n) / 10) for first, n in clips])
    expected = []
    for first, n in clips:
        common = sum(start <= tenth and (length is None or tenth < start + length) for tenth in range(first, first + n))
        expected.append(2 * common >= n or (length is not None and 2 * common >= length))
    assert _shared(times_s, moment).tolist() == expected


@pytest.mark.slow
def test_paths_are_matched_as_they_are_or_as_the_only_one_that_ends_so(archive: Archive, tmp_path: Path) -> None:
    copies = [b"/archive/a/match.mp4", b"/archive/b/match.mp4"]
    archive.add("twice", match(50), copies)
    archive.add("one", match(51), [b"/archive/c/cup.mp4"])
    archive.add("two", match(52), [b"/archive/d/cup.mp4"])
    archive.add("odd", match(53), [b"/archive/\xff 'odd'.mp4"])

    def unmatched(path: str) -> list[str]:
        rows = [row(0), {"path": path, "start_s": 10, "end_s": 30}]
        result = teach(archive.store, "a goal", [hits_file(tmp_path / "hits.json", rows)], method="prototype")
        assert result.head.n_positive == (2 if result.unmatched else 4)
        return [line.rpartition(": ")[2] for line in result.unmatched]

    for path in ("match.mp4", "a/match.mp4", "./b/match.mp4", copies[1].decode(), "d/cup.mp4", "\\xff 'odd'.mp4"):
        assert unmatched(path) == []
    assert unmatched("cup.mp4") == ["2 videos have such a path"]
    for path in ("atch.mp4", "/match.mp4", "x/match.mp4", "/archive/a", "..", "match.mp4/x"):
        assert unmatched(path) == ["no such video is indexed"]


def test_forgotten_videos_and_times_beyond_the_end_match_nothing(archive: Archive, tmp_path: Path) -> None:
    rows = [row(0), row(1, 50, 60), row(2, video_id="match2"), {"video_id": "unheard of"}]
    archive.forget("match2", b"/archive/games/match2.mp4")
    result = teach(archive.store, "a goal", [path := hits_file(tmp_path / "hits.json", rows)])
    games = "/archive/games"
    assert [line.removeprefix(f"{path}, ") for line in result.unmatched] == [
        f"hit 2: {games}/match1.mp4, 50 to 60 s: the video has no clip there",
        f"hit 3: {games}/match2.mp4, 10 to 30 s: no such video is indexed",
        "hit 4: unheard of: no such video is indexed",
    ]


@pytest.mark.slow
def test_further_negatives_are_drawn_from_videos_without_a_positive(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidx.learn import teach as module

    seen: dict[str, np.ndarray] = {}
    fit = module.METHODS["logistic"]

    def noted(positives: np.ndarray, negatives: np.ndarray, **options: Any) -> Any:
        seen.update(negatives=negatives, groups=options["groups"])
        return fit(positives, negatives, **options)

    monkeypatch.setitem(module.METHODS, "logistic", noted)
    positive = hits_file(tmp_path / "hits.json", [row(n) for n in range(6)])
    negative = hits_file(tmp_path / "not.json", [{"path": "other0.mp4"}, row(0, 40, 50)])
    free = np.concatenate([*(archive.vectors[f"other{n}"] for n in range(1, 20)), *map(match, (6, 7))])
    explicit = np.concatenate([match(0)[4:], archive.vectors["other0"]])
    for n_random, expected in ((None, 105), (60, 60), (10_000, 105)):
        result = teach(archive.store, "a goal", [positive], [negative], n_random=n_random)
        assert (result.n_random, result.head.n_negative) == (expected, expected + 6)
        rows = seen["negatives"]
        assert rows[:6].tolist() == explicit.tolist()
        drawn = {tuple(vector) for vector in rows[6:].tolist()}
        assert len(drawn) == expected
        assert drawn <= {tuple(vector) for vector in free.tolist()}
        assert len(set(seen["groups"][:12])) == 6
    first, again, other = (
        teach(archive.store, "a goal", [positive], n_random=9, seed=seed).head.digest for seed in (1, 1, 2)
    )
    assert first == again != other
    few = hits_file(tmp_path / "few.json", [row(0)])
    assert teach(archive.store, "a goal", [few]).n_random == 100


def test_one_clip_can_not_be_both(archive: Archive, tmp_path: Path) -> None:
    positive = hits_file(tmp_path / "hits.json", [row(0), row(1)])
    negative = hits_file(tmp_path / "not.json", [row(2), row(1, 18, 24)])
    with pytest.raises(InputError) as raised:
        teach(archive.store, "a goal", [positive], [negative])
    assert str(raised.value) == (
        "/archive/games/match1.mp4, 20 to 30 s, is given both as positive and as negative"
        f" ({positive}, hit 2; {negative}, hit 2)"
    )
    assert taught(archive.store, SPACE.name) == []


def test_a_clip_named_twice_counts_once(archive: Archive, tmp_path: Path) -> None:
    rows = [row(0), row(0), row(0, 12, 19), row(1)]
    path = hits_file(tmp_path / "hits.json", rows)
    assert teach(archive.store, "a goal", [path, path]).head.n_positive == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither JSON nor a CSV"),
        ("\x00\x01", "neither JSON nor a CSV"),
        ("just words\n", "neither JSON nor a CSV"),
        ("start_s,end_s\n1,2\n", "neither JSON nor a CSV with a column path or video_id"),
        ("{", "no JSON with hits"),
        ("[]", "no JSON with hits"),
        ('{"hit": []}', "no JSON with hits"),
        ("[" * 100_000, "no JSON with hits"),
        ('{"hits": {}}', "hits are no list"),
        ('{"hits": [1]}', "hit 1: no object"),
        ('{"hits": [{"start_s": 1}]}', "hit 1: neither path nor video_id"),
        ('{"hits": [{"path": 1}]}', "hit 1: path is no text"),
        ('{"hits": [{"path": "a", "start_s": "x"}]}', "hit 1: start_s is 'x'"),
        ('{"hits": [{"path": "a"}, {"path": "a", "end_s": NaN}]}', "hit 2: end_s is nan"),
        ('{"hits": [{"path": "a", "end_s": true}]}', "hit 1: end_s is True"),
        ('{"hits": [{"path": "a", "end_s": [1]}]}', r"hit 1: end_s is \[1\]"),
        ('{"hits": [{"path": "a", "start_s": 5, "end_s": 5}]}', "hit 1: it ends at 5 s and starts at 5 s"),
        ('{"hits": [{"path": "a", "relevant": "perhaps"}]}', "hit 1: relevant is 'perhaps'"),
        ("path,start_s\na.mp4,1\nb.mp4,one\n", "line 3: start_s is 'one'"),
        ("path,start_s\na.mp4\n", "line 2: not as many fields"),
        ("path\na.mp4,1\n", "line 2: not as many fields"),
        ("path,relevant\na.mp4,2\n", "line 2: relevant is '2'"),
        (f"path\n{'x' * 200_000}\n", "line 1: field larger"),
        ('{"hits": []}', "nothing to learn from: the files name no moment"),
        ("path\n", "nothing to learn from: the files name no moment"),
        ('{"hits": [{"path": "gone.mp4"}]}', "nothing to learn from: .*gone.mp4: no such video is indexed"),
        ("path,relevant\nmatch0.mp4,false\n", "no example shows the label"),
    ],
)
def test_what_can_not_be_learnt_from_is_told_in_one_line(
    original: Archive, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "moments"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        teach(original.store, "a goal", [path])
    assert raised.value.hint
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or "no example" in message or "no moment" in message
    assert not (original.store.path / "heads").exists()


def test_files_that_can_not_be_read_are_told(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"path\ncaf\xe9.mp4\n")
    (tmp_path / "words.json").write_text("path\nmatch0.mp4\n")
    for name, message in (
        ("latin.csv", "is not UTF-8"),
        ("absent.csv", "No such file"),
        (".", "Is a directory"),
        ("words.json", "no JSON with hits"),
    ):
        with pytest.raises(InputError, match=message):
            read_moments(tmp_path / name)


@pytest.mark.parametrize("label", ["", "  ", "\n", "a\x1b[31m", "\udc80", "\u200b"])
def test_a_label_is_text_that_can_be_shown(label: str) -> None:
    with pytest.raises(InputError, match="is no label"):
        check_label(label)
    assert check_label(" a\n  goal ") == "a goal"
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # Persian, with a joiner that no space may replace
    assert check_label(joined) == joined
    assert check_label(" caf\u00e9 & \u72ac/\u732b ") == "caf\u00e9 & \u72ac/\u732b"


def test_without_anything_else_there_is_nothing_to_tell_it_from(store: Store, tmp_path: Path) -> None:
    path = hits_file(tmp_path / "hits.json", [{"path": "a.mp4", "start_s": 10, "end_s": 30}])
    with pytest.raises(StoreMissing):
        teach(store, "a goal", [path])
    made = Archive(store)
    made.add("a", match(1), [b"/a.mp4"])
    with pytest.raises(InputError, match="nothing that does not show the label"):
        teach(store, "a goal", [path])
    made.add("b", match(2, ()), [b"/b.mp4"])
    with pytest.raises(InputError, match="nothing that does not show the label"):
        teach(store, "a goal", [path], n_random=0)
    assert teach(store, "a goal", [path]).head.n_negative == 5
    with pytest.raises(InputError, match=r"nothing in .* was indexed with other"):
        teach(store, "a goal", [path], encoder="other")


def test_a_run_is_told_in_words_and_ends_with_how_to_use_it(archive: Archive, tmp_path: Path) -> None:
    rows = [row(n) for n in range(8)] + [row(n, 90, 99) for n in range(7)]
    result = run(archive.store, "a goal, 'late'", "--from", hits_file(tmp_path / "hits.json", rows), "--random", 90)
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert [line.rpartition(": ")[2] for line in lines[:6]] == ["the video has no clip there"] * 5 + [
        "and 2 more that match no clip"
    ]
    assert lines[6] == (
        f"a goal, 'late': taught in {SPACE.name} by 16 positive and 90 negative clips,"
        " 90 of them random clips of other videos"
    )
    assert lines[7].startswith("threshold 0.")
    assert "out of fold F1 1.00, precision 1.00, recall 1.00" in lines[7]
    name = """'a goal, '"'"'late'"'"''"""
    assert lines[8:] == [f"use it: `vidx search --taught {name}` and `vidx tag --taught {name}`"]


def test_with_json_it_is_one_object_and_what_could_not_be_measured_is_null(archive: Archive, tmp_path: Path) -> None:
    path = hits_file(tmp_path / "hits.json", [row(0), row(1), row(2, 70, 80)])
    result = run(archive.store, "\u72ac", "--from", path, "--json", "--method", "prototype")
    fields = json.loads(result.stdout)
    head = read_head(archive.store, SPACE.name, "\u72ac")
    [unmatched] = fields.pop("unmatched")
    assert result.stderr.splitlines() == [unmatched]
    [file] = (archive.store.path / "heads" / SPACE.name).glob("*.json")
    assert fields == {
        **{"label": "\u72ac", "space": SPACE.name, "method": "prototype", "threshold": 0.5},
        **{"n_positive": 4, "n_negative": 100, "n_random": 100, "f1": None, "precision": None, "recall": None},
        **{"digest": head.digest, "file": str(file)},
    }
    told = run(archive.store, "\u72ac", "--from", path).stderr.splitlines()
    assert told[-2] == "threshold 0.500; too few videos with examples to measure it"


@pytest.mark.slow
def test_the_index_may_hold_the_clips(archive: Archive, tmp_path: Path) -> None:
    """Vectors come from the collection, whether an index covers them or not."""
    from vidx.search.rebuild import rebuild

    path = hits_file(tmp_path / "hits.json", [row(n) for n in range(6)])
    before = teach(archive.store, "a goal", [path]).head.digest
    rebuild(archive.store, SPACE)
    assert open_collection(Snapshot(archive.store), SPACE).generation is not None
    assert teach(archive.store, "a goal", [path]).head.digest == before


@pytest.mark.slow
def test_the_command_teaches_and_tells_errors_in_one_line(
    archive: Archive, tmp_path: Path, vidx: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([("path", "start_s", "end_s"), *((f"match{n}.mp4", 10, 30) for n in range(8))])
    path = tmp_path / "goals.csv"
    path.write_text(out.getvalue())
    finished = vidx("teach", "a goal", "--from", path, "--store", archive.store.path, "--json")
    assert finished.returncode == 0, finished.stderr
    fields = json.loads(finished.stdout)
    assert (fields["n_positive"], fields["n_random"], fields["f1"]) == (16, 100, 1.0)
    assert read_head(archive.store, SPACE.name, "a goal").digest == fields["digest"]
    for arguments in (
        ("a goal", "--from", tmp_path / "absent.json"),
        ("", "--from", path),
        ("a goal",),
        ("a goal", "--from", path, "--random", "-1"),
        ("a goal", "--from", path, "--method", "guess"),
        ("a goal", "--from", path, "--not-from", path),
    ):
        failed = vidx("teach", *arguments, "--store", archive.store.path)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert failed.stderr.startswith("Error: ")
        assert len(failed.stderr.splitlines()) == 1
