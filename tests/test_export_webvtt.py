"""Labels as WebVTT files, read by a parser of the W3C's syntax that knows nothing of how they were written."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from vidx.errors import InputError
from vidx.export import webvtt
from vidx.schema.tables import TAGS


class Cue(NamedTuple):
    identifier: str
    start_ms: int
    end_ms: int
    text: str


_STAMP = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"
_REFERENCES = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}


def read(path: Path) -> tuple[list[str], list[Cue]]:
    """The comments and cues of a file that keeps to https://www.w3.org/TR/webvtt1/#syntax, which is asserted."""
    text = path.read_bytes().decode("utf-8")
    assert "\0" not in text
    lines = re.split("\r\n|\n|\r", text)
    assert re.fullmatch(r"\ufeff?WEBVTT([ \t].*)?", lines[0])
    assert lines[1] == ""
    comments, cues = [], []
    for block in re.split("\n{2,}", "\n".join(lines[2:]).strip("\n")):
        first, *rest = block.split("\n")
        if re.match(r"NOTE([ \t]|$)", first):
            assert "-->" not in block
            comments.append(block)
            continue
        assert "-->" not in first, "a cue without an identifier"
        timing = re.fullmatch(rf"{_STAMP}[ \t]+-->[ \t]+{_STAMP}", rest[0])
        assert timing, rest[0]
        start, end = (_milliseconds(timing.groups()[at : at + 4]) for at in (0, 4))
        assert start < end
        assert not cues or cues[-1].start_ms <= start
        payload = "\n".join(rest[1:])
        assert payload
        assert not re.search(r"-->|<|&(?!(amp|lt|gt);)", payload)
        cues.append(Cue(first, start, end, re.sub("&[a-z]+;", lambda found: _REFERENCES[found[0]], payload)))
    assert len({cue.identifier for cue in cues}) == len(cues) > 0
    return comments, cues


def _milliseconds(parts: tuple[str, ...]) -> int:
    hours, minutes, seconds, rest = map(int, parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def clip(
    label: str | None, start_s: float, end_s: float, probability: float | None = 0.5, **fields: Any
) -> dict[str, Any]:
    plain = dict.fromkeys(TAGS.names) | {"video_id": "b1-0", "level": "clip", "path": "/archive/a film.mp4"}
    plain |= {"encoder": "conse", "tag_set": "kinetics400", "run_id": "run-1"}
    return plain | {"label": label, "start_s": start_s, "end_s": end_s, "probability": probability} | fields


def segment(*values: Any, **fields: Any) -> dict[str, Any]:
    return clip(*values, **{"level": "segment"} | fields)


def tags(path: Path, rows: list[dict[str, Any]], group_rows: int = 1000) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows, TAGS), path, row_group_size=group_rows)
    return path


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    folder = tmp_path / "vtt"
    n_written = webvtt.to_folder([tags(tmp_path / "tags.parquet", rows)], folder)
    assert n_written == len(list(folder.iterdir()))
    return folder


def cues_of(tmp_path: Path, rows: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [cue[1:] for cue in read(folder_of(tmp_path, rows) / "a film.vtt")[1]]


def test_a_file_looks_like_this(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [segment("a dog", 0.0, 20.0, 0.874), segment("snow & ice", 3725.5, 3730.25, 1.0)])
    assert (folder / "a film.vtt").read_text(encoding="utf-8") == (
        "WEBVTT\n\nNOTE made by vidx\nfile: /archive/a film.mp4\nencoder: conse\ntag set: kinetics400\nrun: run-1\n"
        "\n1\n00:00:00.000 --> 00:00:20.000\na dog (0.87)\n"
        "\n2\n01:02:05.500 --> 01:02:10.250\nsnow &amp; ice (1.00)\n"
    )


def test_segments_are_taken_and_not_the_clips_they_are_made_of(tmp_path: Path) -> None:
    rows = [clip("a dog", 0.0, 10.0), segment("a dog", 1.0, 9.0), clip("a cat", 0.0, 10.0)]
    rows.append(clip("a dog", 0.0, 99.0, level="video"))
    assert cues_of(tmp_path, rows) == [(1000, 9000, "a dog (0.50)")]


def test_clips_are_taken_where_a_video_has_no_segment(tmp_path: Path) -> None:
    rows = [clip("a dog", 0.0, 10.0), segment("a cat", 0.0, 10.0, path="/b.mp4", video_id="b1-1")]
    folder = folder_of(tmp_path, rows)
    assert [cue.text for cue in read(folder / "a film.vtt")[1]] == ["a dog (0.50)"]
    assert [cue.text for cue in read(folder / "b.vtt")[1]] == ["a cat (0.50)"]


def test_clips_of_one_label_that_touch_are_one_cue(tmp_path: Path) -> None:
    rows = [
        *(clip("a dog", start, start + 10.0, 0.01 * start) for start in (20.0, 10.0, 50.0)),
        *(clip("snow", start, start + 10.0, 0.3) for start in (5.0, 12.5)),  # they overlap
        clip("snow", 22.54, 30.0, 0.4),
        clip("snow", 30.06, 31.0, 0.5),
    ]
    assert cues_of(tmp_path, rows) == [
        (5000, 30000, "snow (0.40)"),
        (10000, 30000, "a dog (0.20)"),
        (30060, 31000, "snow (0.50)"),
        (50000, 60000, "a dog (0.50)"),
    ]


def test_a_short_clip_inside_a_long_one_does_not_end_its_cue(tmp_path: Path) -> None:
    rows = [clip("a dog", start, end) for start, end in ((0.0, 30.0), (5.0, 10.0), (20.0, 25.0), (30.0, 31.0))]
    assert cues_of(tmp_path, rows) == [(0, 31000, "a dog (0.50)")]


def test_segments_that_touch_stay_apart_and_one_label_is_told_once_at_a_time(tmp_path: Path) -> None:
    rows = [segment("a dog", 0.0, 10.0, 0.3), segment("a dog", 10.0, 20.0), segment("a dog", 0.0, 10.0, 0.4)]
    assert cues_of(tmp_path, rows) == [(0, 10000, "a dog (0.40)"), (10000, 20000, "a dog (0.50)")]


def test_of_cues_that_start_together_the_most_probable_is_first(tmp_path: Path) -> None:
    rows = [clip("b", 0.0, 10.0, 0.2), clip("c", 0.0, 10.0, 0.9), clip("a", 0.0, 10.0, 0.2), clip("d", 0.0, 10.0, None)]
    assert [text for *_, text in cues_of(tmp_path, rows)] == ["c (0.90)", "a (0.20)", "b (0.20)", "d"]


def test_a_video_without_a_label_gets_no_file(tmp_path: Path) -> None:
    rows = [clip("a dog", 0.0, 1.0), clip(None, 0.0, 10.0, None, video_id="b1-1", path="/none.mp4")]
    rows.append(clip("a dog", 0.0, 10.0, video_id="b1-2", path="/whole.mp4", level="video"))
    rows += [
        clip("a dog", 0.0, 1.0, video_id="b1-3", path="/x.mp4"),
        segment(None, 0.0, 1.0, video_id="b1-3", path="/x.mp4"),
    ]
    assert [path.name for path in folder_of(tmp_path, rows).iterdir()] == ["a film.vtt"]


def test_no_rows_make_no_files(tmp_path: Path) -> None:
    assert list(folder_of(tmp_path, []).iterdir()) == []


def test_a_cue_is_never_empty_and_hours_may_have_three_digits(tmp_path: Path) -> None:
    assert cues_of(tmp_path, [clip("a still", 360_000.0, 360_000.0004)]) == [
        (360_000_000, 360_000_001, "a still (0.50)")
    ]


ODD = [
    '"quoted"',
    "it's",
    "a/b",
    "x=y",
    "50%",
    "<b>bold</b>",
    "&amp;",
    "a --> b",
    "NOTE",
    "STYLE",
    "🎬 👨‍👩‍👧",
    "é" * 200,
]


@pytest.mark.parametrize("label", [*ODD, " spaces ", "00:00:00.000 --> 00:00:01.000", "WEBVTT", "1"])
def test_no_label_is_taken_for_markup_or_for_a_timing(tmp_path: Path, label: str) -> None:
    rows = [clip(label, 0.0, 10.0), clip("next", 20.0, 30.0)]
    assert [text for *_, text in cues_of(tmp_path, rows)] == [f"{label} (0.50)", "next (0.50)"]


@pytest.mark.parametrize("name", ["a --> b", "<i>&amp;", "two\n\nlines", "tab\there", "cr\r\rcr"])
def test_no_name_breaks_a_file(tmp_path: Path, name: str) -> None:
    fields = {"path": f"/odd/{name}.mp4", "encoder": name, "tag_set": name, "run_id": name}
    folder = folder_of(tmp_path, [clip("a dog", 0.0, 10.0, **fields)])
    comments, cues = read(folder / f"{name}.vtt")
    assert len(comments) == len(cues) == 1
    assert len(comments[0].split("\n")) == 5


def test_tags_of_several_runs_are_all_named(tmp_path: Path) -> None:
    rows = [
        clip("a dog", start, start + 1.0, run_id=run) for start, run in ((0.0, "run-2"), (5.0, "run-1"), (9.0, "run-2"))
    ]
    comments, _ = read(folder_of(tmp_path, rows) / "a film.vtt")
    assert re.findall("run: (.*)", comments[0]) == ["run-1", "run-2"]


def names(tmp_path: Path, *paths: str) -> dict[str, str]:
    """The name of the file of each path, whose video_id is `b1-` and its place."""
    rows = [clip(path, 0.0, 1.0, path=path, video_id=f"b1-{n}") for n, path in enumerate(paths)]
    for file in (folder := folder_of(tmp_path, rows)).iterdir():
        assert [cue.text for cue in read(file)[1]] == [re.findall("file: (.*)", read(file)[0][0])[0] + " (0.50)"]
    found = {re.findall("file: (.*)", read(file)[0][0])[0]: file.name for file in folder.iterdir()}
    shutil.rmtree(folder)
    return found


def test_a_file_is_called_as_its_video_with_another_suffix(tmp_path: Path) -> None:
    expected = {
        "/x/a.mp4": "a.vtt",
        "/b.c.MOV": "b.c.vtt",
        "/x.y/no suffix": "no suffix.vtt",
        "/née 🎬.mkv": "née 🎬.vtt",
    }
    expected |= {"/.hidden": ".hidden.vtt", "/100%.ts": "100%.vtt", '/it\'s "it".mp4': 'it\'s "it".vtt'}
    assert names(tmp_path, *expected) == expected


def test_videos_that_would_share_a_name_have_their_id_in_it_in_whatever_order(tmp_path: Path) -> None:
    paths = [
        "/2023/film.mp4",
        "/2024/film.mov",
        "/2025/FILM.mp4",
        "/u/caf\u00e9.mp4",
        "/v/cafe\u0301.mp4",
        "/other.mp4",
    ]
    found = names(tmp_path, *paths)
    assert [found[path] for path in paths] == [
        *("film.b1-0.vtt", "film.b1-1.vtt", "FILM.b1-2.vtt"),
        *("caf\u00e9.b1-3.vtt", "cafe\u0301.b1-4.vtt", "other.vtt"),
    ]
    rows = [clip("x", 0.0, 1.0, path=path, video_id=f"b1-{n}") for n, path in enumerate(paths)]
    assert {path.name for path in folder_of(tmp_path, rows[::-1]).iterdir()} == set(found.values())


def test_a_name_with_an_id_gives_way_to_a_video_of_that_name(tmp_path: Path) -> None:
    paths = ["/a/film.mp4", "/b/film.mp4", "/c/film.b1-0.mp4", "/d/Film.B1-0-2.mp4"]
    assert [names(tmp_path, *paths)[path] for path in paths] == [
        "film.b1-0-3.vtt",
        "film.b1-1.vtt",
        "film.b1-0.vtt",
        "Film.B1-0-2.vtt",
    ]


def test_long_names_fit_into_a_folder_and_stay_apart(tmp_path: Path) -> None:
    long = "é" * 126 + "xy"
    found = names(tmp_path, f"/a/{long}", f"/b/{long}z", "/c/" + "n" * 252 + ".ts")
    assert all(len(os.fsencode(name)) <= 255 for name in found.values())
    assert len(set(found.values())) == 3


def test_a_second_run_replaces_the_files_of_the_first(tmp_path: Path) -> None:
    folder_of(tmp_path, [clip("a dog", 0.0, 10.0)])
    assert cues_of(tmp_path, [clip("a cat", 0.0, 10.0)]) == [(0, 10000, "a cat (0.50)")]
    assert [path.name for path in (tmp_path / "vtt").iterdir()] == ["a film.vtt"]


@pytest.mark.parametrize("earlier", ["file", "folder", "dangling link", "pipe"])
def test_subtitles_that_are_not_of_vidx_are_never_replaced(tmp_path: Path, earlier: str) -> None:
    path = tmp_path / "vtt" / "a film.vtt"
    path.parent.mkdir()
    match earlier:
        case "file":
            path.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n")
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
    rows = [clip("a dog", 0.0, 10.0), clip("a dog", 0.0, 10.0, video_id="b1-1", path="/0.mp4")]
    with pytest.raises(InputError, match=r"a film\.vtt is there already"):
        folder_of(tmp_path, rows)
    assert [path.name for path in path.parent.iterdir()] == ["a film.vtt"]


@pytest.mark.parametrize("name", ["file", "file/below", "none/below"])
def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't write to ") as caught:
        webvtt.to_folder([tags(tmp_path / "tags.parquet", [clip("a dog", 0.0, 1.0)])], tmp_path / name)
    assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webvtt, "_VIDEOS_ROWS", 1000)
    monkeypatch.setattr(webvtt, "_BATCH_ROWS", 1000)
    peaks = []
    for n_videos in (20, 160):
        rows = [
            clip(f"label {n % 7}", 10.0 * n, 10.0 * n + 5, video_id=f"b1-{video}", path=f"/archive/{video}.mp4")
            for video in range(n_videos)
            for n in range(100)
        ]
        file = tags(tmp_path / f"{n_videos}.parquet", rows, group_rows=1000)
        usual = pa.default_memory_pool()
        pa.set_memory_pool(pool := pa.proxy_memory_pool(usual))
        try:
            assert webvtt.to_folder([file], tmp_path / str(n_videos)) == n_videos
        finally:
            pa.set_memory_pool(usual)
        peaks.append(pool.max_memory())
    assert peaks[1] < 1.5 * peaks[0]


VIDEOS = ["b1-0", "b1-1", "b1-2", "b1-3"]
ROWS = st.lists(
    st.builds(
        lambda video, level, label, start, length, probability: clip(
            label,
            start / 20,
            (start + length) / 20,
            probability,
            video_id=video,
            level=level,
            path=f"/archive/{video}.mp4",
        ),
        st.sampled_from(VIDEOS),
        st.sampled_from(["clip", "clip", "clip", "segment", "video"]),
        st.sampled_from(["a dog", "<snow>", "🎬", None]),
        st.integers(0, 60),
        st.integers(1, 10),
        st.integers(0, 100).map(lambda n: n / 100),
    ),
    max_size=60,
)


@given(rows=ROWS, n_files=st.integers(1, 3), group_rows=st.integers(1, 20), at_once=st.sampled_from([1, 7, 1000]))
def test_every_video_has_the_cues_of_its_rows_wherever_these_lie(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], n_files: int, group_rows: int, at_once: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("webvtt")
    files = [tags(tmp_path / f"{n}.parquet", rows[n::n_files], group_rows) for n in range(n_files)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webvtt, "_VIDEOS_ROWS", at_once)
        patch.setattr(webvtt, "_BATCH_ROWS", 5)
        n_written = webvtt.to_folder(files, tmp_path / "vtt")
    found = {path.stem: [cue[1:] for cue in read(path)[1]] for path in (tmp_path / "vtt").iterdir()}
    expected = {video: cues for video in VIDEOS if (cues := expected_cues([r for r in rows if r["video_id"] == video]))}
    assert found == expected
    assert n_written == len(expected)


def expected_cues(rows: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """The cues of one video, row by row."""
    level = "segment" if any(row["level"] == "segment" for row in rows) else "clip"
    cues: list[dict[str, Any]] = []
    for row in sorted(
        (row for row in rows if row["level"] == level and row["label"]), key=lambda r: (r["start_s"], r["end_s"])
    ):
        for cue in cues:
            same = (cue["start_s"], cue["end_s"]) == (row["start_s"], row["end_s"])
            touches = round(row["start_s"] - cue["end_s"], 6) <= 0.05
            if cue["label"] == row["label"] and (same if level == "segment" else touches):
                cue["end_s"] = max(cue["end_s"], row["end_s"])
                cue["probability"] = max(cue["probability"], row["probability"])
                break
        else:
            cues.append(dict(row))
    cues.sort(key=lambda cue: (cue["start_s"], -cue["probability"], cue["label"], cue["end_s"]))
    return [
        (round(cue["start_s"] * 1000), round(cue["end_s"] * 1000), f"{cue['label']} ({cue['probability']:.2f})")
        for cue in cues
    ]
