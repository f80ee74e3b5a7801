"""`--where`: which clips a condition leaves, and what is no condition."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.config import SearchOptions
from vidx.errors import InputError
from vidx.schema import tables
from vidx.schema.condition import COLUMNS, Filters, matching_clips
from vidx.schema.records import Hit, Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.run import search_vectors

Vidx = Callable[..., subprocess.CompletedProcess[str]]
SPACE = Space("toy", {"video": "ab"}, Preprocess(8, 8), frames=1, pooling="mean", dim=8)
DAY_NS = 86_400 * 10**9
MODIFIED_2024_NS = 1_704_067_200 * 10**9  # 2024-01-01 in UTC


@dataclass(frozen=True)
class Clip:
    """A live clip and what is known of it."""

    clip_id: int
    number: int
    video: dict[str, Any]
    paths: list[str]
    state: str


@dataclass(frozen=True)
class Archive:
    store: Store
    snapshot: Snapshot = field(repr=False)  # one for all, since nothing changes
    clips: list[Clip] = field(repr=False)
    vectors: dict[int, np.ndarray] = field(repr=False)

    def matching(self, condition: str) -> list[int]:
        ids, _ = matching_clips(self.snapshot, SPACE.name, Filters(condition))
        assert len(set(ids.tolist())) == len(ids)
        return sorted(ids.tolist())

    def search(self, condition: str, k: int, by: str = "clip") -> list[Hit]:
        kept, _ = matching_clips(self.snapshot, SPACE.name, Filters(condition))
        vector = np.eye(SPACE.dim, dtype=np.float32)[0]
        return [hit for hit, _ in search_vectors(self.snapshot, SPACE, [vector], SearchOptions(k=k, by=by), kept)[0]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """12 videos of 1 to 6 clips; every third lies at two paths, every fourth is partial and lacks container facts."""
    store = Store.create(tmp_path_factory.mktemp("where") / "store")
    rng = np.random.default_rng(0)
    clips, vectors, rows = [], {}, Commit()
    with writing(store) as opened:
        opened.add_space(SPACE)
        for number in range(12):
            n_clips, video_id = number % 6 + 1, f"v{number}"
            first = opened.reserve_clip_ids(n_clips)
            video = dict.fromkeys(tables.VIDEOS.names) | {"video_id": video_id, "duration_s": 10.0 * n_clips}
            if number % 4:
                video |= {
                    "width": 320 * (number % 3 + 1),
                    "codec": ["h264", "vp9"][number % 2],
                    "has_audio": number > 5,
                }
            state = "ok" if number % 4 else "partial"
            indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names) | {"video_id": video_id, "state": state}
            indexed |= {"space": SPACE.name, "first_clip_id": first, "n_clips": n_clips}
            paths = [f"/a/{number}.mp4", f"/copies/{number}.MOV"][: 2 if number % 3 == 0 else 1]
            for path in paths:
                file = dict.fromkeys(tables.FILES.names) | {"root": path[:2], "path": path, "video_id": video_id}
                file |= {"path_bytes": path.encode(), "size": 1000 * number, "state": "present"}
                rows.files.append({**file, "mtime_ns": MODIFIED_2024_NS + number * DAY_NS})
            rows.videos.append(video)
            rows.indexed.append({**indexed, "indexed_at": datetime(2026, 1, 1 + number, tzinfo=UTC)})
            for at in range(n_clips):
                vector = rng.standard_normal(SPACE.dim).astype(np.float32)
                vectors[first + at] = vector / np.linalg.norm(vector)
                clips.append(Clip(first + at, at, video, paths, state))
                rows.clips.setdefault(SPACE.name, []).append(
                    {
                        "clip_id": first + at,
                        "video_id": video_id,
                        "start_s": 10.0 * at,
                        "end_s": 10.0 * at + 10,
                        "frame_pts": [at],
                        "frame_pts_s": [10.0 * at],
                        "vector": vectors[first + at],
                    }
                )
        opened.commit(rows)
    return Archive(store, Snapshot(store), clips, vectors)


# A condition in SQL beside the same in Python, of one clip at one path. A comparison with null does not hold.
SIMPLE = [
    ("duration_s > 30", lambda clip, path: clip.video["duration_s"] > 30),
    ("start_s >= 20", lambda clip, path: clip.number >= 2),
    ("path LIKE '%.MOV'", lambda clip, path: path.endswith(".MOV")),
    ("path = '/a/3.mp4'", lambda clip, path: path == "/a/3.mp4"),
    ("state = 'partial'", lambda clip, path: clip.state == "partial"),
    ("width IS NULL", lambda clip, path: clip.video["width"] is None),
    ("width IS NOT NULL", lambda clip, path: clip.video["width"] is not None),
    ("codec IS NOT DISTINCT FROM 'vp9'", lambda clip, path: clip.video["codec"] == "vp9"),
    ("modified_at::DATE > DATE '2024-01-05'", lambda clip, path: int(clip.video["video_id"][1:]) > 4),
    ("clip_id % 2 = 0", lambda clip, path: clip.clip_id % 2 == 0),
    ("regexp_matches(path, '[02468]\\.mp4$')", lambda clip, path: bool(re.search(r"[02468]\.mp4$", path))),
]


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, Callable[[Clip, str], bool]]:
    """SQL, and the same in Python."""
    sql, holds = draw(st.sampled_from(SIMPLE))
    for _ in range(draw(st.integers(0, 3))):
        other_sql, other = draw(st.sampled_from(SIMPLE))
        match draw(st.sampled_from(["and", "or", "not"])):
            case "and":
                sql, holds = f"({sql}) AND ({other_sql})", (lambda a, b: lambda c, p: a(c, p) and b(c, p))(holds, other)
            case "or":
                sql, holds = f"({sql}) OR ({other_sql})", (lambda a, b: lambda c, p: a(c, p) or b(c, p))(holds, other)
            case "not":
                sql, holds = f"NOT ({sql})", (lambda a: lambda c, p: not a(c, p))(holds)
    return sql, holds


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(condition=conditions())
def test_a_clip_is_left_if_the_condition_holds_for_any_path_of_its_video(
    archive: Archive, condition: tuple[str, Callable[[Clip, str], bool]]
) -> None:
    sql, holds = condition
    expected = [clip.clip_id for clip in archive.clips if any(holds(clip, path) for path in clip.paths)]
    assert archive.matching(sql) == expected


def test_every_documented_column_is_there() -> None:
    page = (Path(__file__).parents[1] / "docs/reference/commands.md").read_text()
    section = page[page.index("### Columns of `--where`") :].split("\n##")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == COLUMNS


@pytest.mark.slow
@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in ("label", "probability")])
def test_every_column_can_be_asked_for(archive: Archive, column: str) -> None:
    both = len(archive.matching(f"{column} IS NULL")) + len(archive.matching(f'"{column.upper()}" IS NOT NULL'))
    assert both >= len(archive.clips)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "n_videos"),
    [
        ("indexed_at >= '2026-01-11'", 2),
        ("indexed_at >= '2026-01-10T23:00-02:00'", 1),  # 01:00 on the 11th in UTC, at midnight of which one was indexed
        ("modified_at < '2024-01-03'", 2),
        ("size_bytes BETWEEN 1000 AND 3000", 3),
        ("lower(path) LIKE '%.mov'", 4),
        ("root = '/c'", 4),
        ("path IN ('/a/1.mp4', '/copies/3.MOV')", 2),
        ("CASE WHEN has_audio THEN true ELSE false END", 5),
        ("file_state = 'present' AND coalesce(reason, '') = ''", 12),
        ("date_part('year', indexed_at) = 2026 AND current_date > '2020-01-01'", 12),
        ("true -- and nothing else", 12),
        ("true /* ) */;", 12),
        ("try(1 % 0) IS NULL", 12),
        ("(" * 200 + "true" + ")" * 200, 12),
    ],
)
def test_conditions_as_people_write_them(archive: Archive, condition: str, n_videos: int) -> None:
    ids = set(archive.matching(condition))
    assert len({clip.video["video_id"] for clip in archive.clips if clip.clip_id in ids}) == n_videos


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("colour = 'red'", "there is no column colour"),
        ('path = "red"', "there is no column red"),
        ("files.path = 'x'", "there is no column files.path"),
        ("clip.path = 'x'", "there is no column clip.path"),
        ("rowid = 1", "there is no column rowid"),
        ("vector IS NULL", "there is no column vector"),
        ("path LIKE", "syntax error"),
        ("path = 'x", "unterminated"),
        ("true /* ", "unterminated"),
        ("1 = 1) OR (1 = 1", "syntax error"),
        ("true) AS clip WHERE (true", "syntax error"),
        ("true; SELECT 1", "one expression"),
        ("true; DROP VIEW files", "one expression"),
        ("true LIMIT 1", "one expression"),
        ("true ORDER BY 1", "one expression"),
        ("true GROUP BY clip_id", "one expression"),
        ("true HAVING true", "one expression"),
        ("true QUALIFY true", "one expression"),
        ("true UNION SELECT 1", "one expression"),
        ("true EXCEPT SELECT 1", "one expression"),
        ("true USING SAMPLE 1", "one expression"),
        ("path IN (SELECT path FROM files)", "a subquery"),
        ("EXISTS (FROM read_text('/etc/passwd'))", "a subquery"),
        ("clip_id = ANY([1, 2])", "a subquery"),
        ("row_number() OVER () = 1", "a window"),
        ("sum(clip_id) OVER () > 1", "a window"),
        ("list_filter([1], x -> x > 0) = [1]", "a lambda"),
        ("list_filter([1], lambda x: x > 0) = [1]", "a lambda"),
        ("[x FOR x IN [1]] = [1]", "a lambda"),
        ("clip_id -> 1", "a lambda"),
        ("clip_id = $1", "a parameter"),
        ("clip_id = ?", "a parameter"),
        ("#1 = 1", "a positional reference"),
        ("COLUMNS('path') = 'x'", "a star"),
        ("* IS NULL", "a star"),
        ("DEFAULT", "a default"),
        ("count(*) > 1", "can't be used here"),
        ("sum(clip_id) FILTER (true) > 1", "can't be used here"),
        ("unnest([1]) = 1", "can't be used here"),
        ("read_text('/etc/passwd') IS NULL", "can't be used here"),
        ("random() < 0.5", "the function random can't be used here"),
        ("sleep_ms(10000) IS NULL", "the function sleep_ms can't be used here"),
        ("nextval('x') = 1", "can't be used here"),
        ("error('x')", "can't be used here"),
        ("__internal_decompress_string(1) = ''", "there is no function __internal_decompress_string"),
        ("path.lower() = 'x'", "there is no function path.lower"),
        ("main.lower(path) = 'x'", "there is no function main.lower"),
        ("nope(path)", "nope does not exist"),
        ("path", "Could not convert"),
        ("duration_s > 'long'", "Could not convert string 'long'"),
        ("1 % 0 = 0", "Division by zero"),
        ("path + 1 = 2", "No function matches"),
        ("NOT " * 3000 + "true", "expression depth limit"),
        ("'\udc80' = path", "not readable text"),
    ],
    ids=lambda value: value[:30].encode("ascii", "replace").decode(),
)
def test_what_is_no_condition_is_refused_with_the_columns_there_are(
    archive: Archive, condition: str, words: str
) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        archive.matching(condition)
    if "readable" not in words:
        assert caught.value.hint == f"columns: {', '.join(COLUMNS)}"


TOKENS = ["path", "clip_id", "true", "1", "'x'", "=", "(", ")", ";", "--", "/*", "*/", ",", "SELECT", "FROM", "files"]
TOKENS += ["WHERE", "UNION", "LIMIT", "->", "$1", "?", "OVER", "IN", "NOT", "AND", "\n", '"', "'", "[", "]", "::", "."]
TOKENS += ["INTEGER", "*", "#1", "count", "lower", "random", "CASE", "WHEN", "END", "EXISTS", "VALUES", "AS", "{", "}"]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(tokens=st.lists(st.sampled_from(TOKENS), min_size=1, max_size=12))
def test_whatever_is_typed_is_a_filter_or_one_error(archive: Archive, tokens: list[str]) -> None:
    try:
        left = archive.matching(" ".join(tokens))
    except InputError as caught:
        message = str(caught)
        left = []
    else:
        message = ""
    assert "\n" not in message
    assert set(left) <= {clip.clip_id for clip in archive.clips}


@pytest.mark.slow
@pytest.mark.parametrize("by", ["clip", "moment", "video"])
def test_the_best_k_are_chosen_from_what_the_filter_leaves(archive: Archive, by: str) -> None:
    left = set(archive.matching("path LIKE '%.MOV' AND start_s < 30"))
    everything = archive.search("path LIKE '%.MOV' AND start_s < 30", 10_000, by)
    assert {clip_id for hit in everything for clip_id in hit.clip_ids} <= left
    for k in (1, 2, 3):
        assert archive.search("path LIKE '%.MOV' AND start_s < 30", k, by) == everything[:k]
    best = max(left, key=lambda clip_id: archive.vectors[clip_id][0])
    assert best in everything[0].clip_ids


def test_every_clip_that_the_filter_leaves_is_found(archive: Archive) -> None:
    hits = archive.search("duration_s >= 50", 10_000)
    assert sorted(hit.clip_ids[0] for hit in hits) == archive.matching("duration_s >= 50")
    scores = [archive.vectors[hit.clip_ids[0]][0] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_a_filter_that_holds_everywhere_changes_nothing(archive: Archive) -> None:
    vector = np.eye(SPACE.dim, dtype=np.float32)[0]
    for by in ("clip", "moment", "video"):
        plain, _ = search_vectors(Snapshot(archive.store), SPACE, [vector], SearchOptions(k=7, by=by))
        assert archive.search("true", 7, by) == [hit for hit, _ in plain]


def test_a_filter_does_not_move_what_counts_as_background(archive: Archive) -> None:
    """A moment of a video that is left whole is the same with the filter as without."""
    everything = archive.search("true", 10_000, "moment")
    of_one = archive.search("video_id = 'v5'", 10_000, "moment")
    assert [(hit.clip_ids, hit.score) for hit in of_one] == [
        (hit.clip_ids, hit.score) for hit in everything if hit.video_id == "v5"
    ]


def test_a_filter_that_leaves_nothing_gives_no_hit(archive: Archive) -> None:
    for by in ("clip", "moment", "video"):
        assert archive.search("duration_s > 1e9", 10, by) == []


def test_a_filter_of_the_command_line_is_one_line_where_it_is_wrong(vidx: Vidx, archive: Archive) -> None:
    run = vidx("search", "a cat", "--store", archive.store.path, "--where", "colour = 'red'")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"Error: --where: there is no column colour; columns: {', '.join(COLUMNS)}\n"
