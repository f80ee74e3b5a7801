"""What answers look like: JSON, a table, a contact sheet."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vidx.errors import InputError
from vidx.export import clock, sheet, shown, table
from vidx.export import json as json_format
from vidx.schema.records import Answer, Hit

HIT = Hit(
    rank=1,
    score=0.3125,
    calibrated=None,
    video_id="b1-00",
    path="/archive/cat.mp4",
    paths=["/archive/cat.mp4", "/copy/cat.mp4"],
    online=True,
    start_s=61.26,
    end_s=3725.5,
    peak_s=66.26,
    clip_ids=[4, 5],
)


def answer(*hits: Hit, **fields: Any) -> Answer:
    plain = Answer(store="/store", query="a cat", space="toy-0", load_ms=1.5, took_ms=2.5, hits=list(hits))
    return replace(plain, **fields)


def test_json_is_one_object_with_the_promised_fields_in_their_order() -> None:
    text = json_format.to_text(answer(HIT, replace(HIT, rank=2), thumbnails=[b"jpeg", None]))
    assert "\n" not in text
    fields = json.loads(text)
    assert list(fields) == ["version", "store", "query", "space", "load_ms", "took_ms", "hits"]
    assert [list(hit) for hit in fields["hits"]] == [
        ["rank", "score", "calibrated", "video_id", "path", "paths", "online", "start_s", "end_s", "peak_s", "clip_ids"]
    ] * 2
    assert fields["version"] == 1
    assert fields["hits"][0] == {
        "rank": 1,
        "score": 0.3125,
        "calibrated": None,
        "video_id": "b1-00",
        "path": "/archive/cat.mp4",
        "paths": ["/archive/cat.mp4", "/copy/cat.mp4"],
        "online": True,
        "start_s": 61.26,
        "end_s": 3725.5,
        "peak_s": 66.26,
        "clip_ids": [4, 5],
    }


def test_json_without_hits_has_an_empty_list() -> None:
    assert json.loads(json_format.to_text(answer()))["hits"] == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_gives_back_any_text_on_one_line(text: str) -> None:
    written = json_format.to_text(answer(replace(HIT, path=text, paths=[text]), query=text))
    assert written.count("\n") == 0
    fields = json.loads(written)
    assert fields["query"] == fields["hits"][0]["path"] == text


def test_a_table_has_a_head_and_a_line_for_each_hit() -> None:
    other = replace(HIT, rank=2, score=-0.05, path="/b.mp4", online=False, start_s=0.0, end_s=10.0)
    assert table.to_text(answer(HIT, other)).splitlines() == [
        "  #   score        from          to  file",
        "  1   0.312   0:01:01.3   1:02:05.5  /archive/cat.mp4",
        "  2  -0.050   0:00:00.0   0:00:10.0  /b.mp4  (offline)",
    ]


@pytest.mark.parametrize("length", [10, 300, 4000])
def test_a_table_never_cuts_a_path(length: int) -> None:
    path = "/" + "ü" * length + "/end of it.mp4"
    assert table.to_text(answer(replace(HIT, path=path))).endswith("  " + path)


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("red\x1b[31m", r"red\x1b[31m"),
        ("two\nlines", r"two\nlines"),
        ("back\rover", r"back\rover"),
        ("tab\there", r"tab\there"),
        ("nul\x00", r"nul\x00"),
        ("c1 \x9b31m", r"c1 \x9b31m"),
        ("delete\x7f", r"delete\x7f"),
        ("4pm.\u202eexe", r"4pm.\u202eexe"),
        ("isolate\u2066", r"isolate\u2066"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("line\u2028separator", r"line\u2028separator"),
        ("half\udc80", r"half\udc80"),
        ("Müller 日本 😀", "Müller 日本 😀"),
    ],
)
def test_a_table_shows_names_that_play_tricks_on_a_terminal_as_escapes(name: str, escaped: str) -> None:
    [_, line] = table.to_text(answer(replace(HIT, path=f"/{name}"))).split("\n")
    assert line.endswith(f"  /{escaped}")


@given(st.text())
def test_shown_text_is_printable_and_plain_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(text).encode("utf-8", "strict").decode() == shown(text)
    if text.isprintable():
        assert shown(text) == text


@given(st.floats(0, 360_000))
def test_a_clock_reads_back_to_within_a_twentieth_of_a_second(seconds: float) -> None:
    text = clock(seconds)
    match = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d\.\d)", text)
    assert match is not None
    hours, minutes, rest = match.groups()
    assert int(hours) * 3600 + int(minutes) * 60 + float(rest) == pytest.approx(seconds, abs=0.0501)


@given(st.lists(st.floats(0, 36_000), min_size=2, max_size=2).map(sorted))
def test_a_later_time_never_has_a_smaller_clock(pair: list[float]) -> None:
    earlier, later = (clock(seconds) for seconds in pair)
    assert earlier.rjust(12) <= later.rjust(12)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00.0"), (59.94, "0:00:59.9"), (59.96, "0:01:00.0"), (3599.99, "1:00:00.0"), (90061.5, "25:01:01.5")],
)
def test_a_clock_carries_into_minutes_and_hours(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def jpeg(size: tuple[int, int], colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=95)
    return out.getvalue()


def written(folder: Path, thumbnails: list[bytes | None], **fields: Any) -> Image.Image:
    """The sheet of as many hits as there are thumbnails, as PIL reads it back."""
    path = folder / "sheet.png"
    hits = [replace(HIT, rank=number + 1) for number in range(len(thumbnails))]
    sheet.to_file(answer(*hits, thumbnails=thumbnails, **fields), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def reds(image: Image.Image) -> int:
    """How many pixels are red, as no text and no background is."""
    return sum(count for count, (r, g, b) in image.getcolors(2**24) if r > 200 and g < 60 and b < 60)


def test_a_sheet_grows_by_columns_up_to_five_and_then_by_rows(tmp_path: Path) -> None:
    sizes = {n: written(tmp_path, [None] * n).size for n in (1, 2, 5, 6, 10, 11)}
    width, height = sizes[1]
    assert {n: size[0] / width for n, size in sizes.items()} == {1: 1, 2: 2, 5: 5, 6: 5, 10: 5, 11: 5}
    row = sizes[6][1] - height
    assert row > 120  # a picture and two lines of text
    assert {n: size[1] - height for n, size in sizes.items()} == {1: 0, 2: 0, 5: 0, 6: row, 10: row, 11: 2 * row}


def test_a_sheet_without_hits_can_be_opened(tmp_path: Path) -> None:
    assert written(tmp_path, []).width > 0


@pytest.mark.parametrize("n", [1, 5, 6])
def test_every_picture_is_on_the_sheet_and_a_missing_one_leaves_an_empty_frame(tmp_path: Path, n: int) -> None:
    red = jpeg((160, 120), (255, 0, 0))
    area = 160 * 120
    assert reds(written(tmp_path, [red] * n)) == pytest.approx(n * area, rel=0.02)
    assert reds(written(tmp_path, [None, *[red] * (n - 1)])) == pytest.approx((n - 1) * area, rel=0.02)
    assert reds(written(tmp_path, [None] * n)) == 0


@pytest.mark.parametrize("size", [(160, 90), (90, 160), (640, 480), (1, 1), (640, 40)])
def test_a_picture_of_any_shape_keeps_it_and_stays_in_its_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    scale = min(1, 160 / size[0], 120 / size[1])
    expected = max(1, size[0] * scale) * max(1, size[1] * scale)
    image = written(tmp_path, [jpeg(size, (255, 0, 0))])
    assert reds(image) == pytest.approx(expected, rel=0.05, abs=1)
    # What is outside the frame is as on a sheet without the picture.
    empty = written(tmp_path, [None])
    assert image.crop((0, 0, image.width, 40)).tobytes() == empty.crop((0, 0, image.width, 40)).tobytes()


def test_a_sheet_takes_names_and_queries_of_any_length_and_script(tmp_path: Path) -> None:
    names = ["/" + "x" * 251 + ".mp4", "/日本 😀 \u202e.mp4", "/", "/two\nlines", "/half\udc80"]
    hits = [replace(HIT, rank=number, path=name) for number, name in enumerate(names, 1)]
    path = tmp_path / "sheet.png"
    sheet.to_file(answer(*hits, query="q" * 600 + "\n\x1b[31m", thumbnails=[None] * len(hits)), path)
    with Image.open(path) as image:
        assert image.size == written(tmp_path, [None] * 5).size


def test_a_sheet_that_cannot_be_written_is_one_error_with_a_way_on(tmp_path: Path) -> None:
    path = tmp_path / "no such folder" / "sheet.png"
    with pytest.raises(InputError, match="can't write") as caught:
        sheet.to_file(answer(HIT, thumbnails=[None]), path)
    assert caught.value.hint == "name another file"
