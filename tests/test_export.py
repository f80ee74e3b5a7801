"""What answers and tables look like: JSON, CSV, Parquet, a table, a contact sheet."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet as arrow_parquet

from vidx.errors import InputError, UnknownChoice
from vidx.export import clock, parquet, sheet, shown, table, written
from vidx.export import csv as csv_format
from vidx.export import json as json_format
from vidx.export._choice import choose
from vidx.export._hits import hit_rows
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
    plain = Answer("/store", "a cat", "toy-0", load_ms=1.5, took_ms=2.5, total=None, hits=list(hits))
    return replace(plain, **fields)


def test_json_is_one_object_with_the_promised_fields_in_their_order() -> None:
    text = json_format.to_text(answer(HIT, replace(HIT, rank=2), thumbnails=[b"jpeg", None]))
    assert "\n" not in text
    fields = json.loads(text)
    assert list(fields) == ["version", "store", "query", "space", "load_ms", "took_ms", "total", "hits"]
    assert fields["total"] is None
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


def test_a_table_says_how_many_there_are_where_a_filter_leaves_fewer_than_asked_for() -> None:
    assert table.to_text(answer(HIT, total=1)).splitlines()[2:] == ["1 in all; the filters leave no more"]


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


def written_sheet(folder: Path, thumbnails: list[bytes | None], **fields: Any) -> Image.Image:
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
    sizes = {n: written_sheet(tmp_path, [None] * n).size for n in (1, 2, 5, 6, 10, 11)}
    width, height = sizes[1]
    assert {n: size[0] / width for n, size in sizes.items()} == {1: 1, 2: 2, 5: 5, 6: 5, 10: 5, 11: 5}
    row = sizes[6][1] - height
    assert row > 120  # a picture and two lines of text
    assert {n: size[1] - height for n, size in sizes.items()} == {1: 0, 2: 0, 5: 0, 6: row, 10: row, 11: 2 * row}


def test_a_sheet_without_hits_can_be_opened(tmp_path: Path) -> None:
    assert written_sheet(tmp_path, []).width > 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 5, 6])
def test_every_picture_is_on_the_sheet_and_a_missing_one_leaves_an_empty_frame(tmp_path: Path, n: int) -> None:
    red = jpeg((160, 120), (255, 0, 0))
    area = 160 * 120
    assert reds(written_sheet(tmp_path, [red] * n)) == pytest.approx(n * area, rel=0.02)
    assert reds(written_sheet(tmp_path, [None, *[red] * (n - 1)])) == pytest.approx((n - 1) * area, rel=0.02)
    assert reds(written_sheet(tmp_path, [None] * n)) == 0


@pytest.mark.parametrize("size", [(160, 90), (90, 160), (640, 480), (1, 1), (640, 40)])
def test_a_picture_of_any_shape_keeps_it_and_stays_in_its_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    scale = min(1, 160 / size[0], 120 / size[1])
    expected = max(1, size[0] * scale) * max(1, size[1] * scale)
    image = written_sheet(tmp_path, [jpeg(size, (255, 0, 0))])
    assert reds(image) == pytest.approx(expected, rel=0.05, abs=1)
    # What is outside the frame is as on a sheet without the picture.
    empty = written_sheet(tmp_path, [None])
    assert image.crop((0, 0, image.width, 40)).tobytes() == empty.crop((0, 0, image.width, 40)).tobytes()


def test_a_sheet_takes_names_and_queries_of_any_length_and_script(tmp_path: Path) -> None:
    names = ["/" + "x" * 251 + ".mp4", "/日本 😀 \u202e.mp4", "/", "/two\nlines", "/half\udc80"]
    hits = [replace(HIT, rank=number, path=name) for number, name in enumerate(names, 1)]
    path = tmp_path / "sheet.png"
    sheet.to_file(answer(*hits, query="q" * 600 + "\n\x1b[31m", thumbnails=[None] * len(hits)), path)
    with Image.open(path) as image:
        assert image.size == written_sheet(tmp_path, [None] * 5).size


def test_a_sheet_that_cannot_be_written_is_one_error_with_a_way_on(tmp_path: Path) -> None:
    path = tmp_path / "no such folder" / "sheet.png"
    with pytest.raises(InputError, match="can't write") as caught:
        sheet.to_file(answer(HIT, thumbnails=[None]), path)
    assert caught.value.hint == "name another file"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
HITS = st.builds(
    Hit,
    rank=st.integers(1, 10_000),
    score=st.floats(-1, 1),
    calibrated=st.none() | st.floats(0, 1),
    video_id=TEXTS,
    path=TEXTS,
    paths=st.lists(TEXTS, min_size=1),
    online=st.booleans(),
    start_s=st.floats(0, 1e6),
    end_s=st.floats(0, 1e6),
    peak_s=st.floats(0, 1e6),
    clip_ids=st.lists(st.integers(0, 2**62)),
)
COLUMNS = [field.name for field in fields_of(Hit)]


def bytes_of(module: Any, rows: pa.RecordBatchReader) -> bytes:
    out = io.BytesIO()
    module.write(rows, out)
    return out.getvalue()


@pytest.mark.slow
@settings(deadline=None)  # the first example loads libraries
@given(st.lists(HITS, max_size=5))
def test_hits_as_a_table_are_the_hits(hits: list[Hit]) -> None:
    rows = hit_rows(answer(*hits)).read_all()
    assert rows.schema.names == COLUMNS
    assert [Hit(**row) for row in rows.to_pylist()] == hits


@pytest.mark.slow
@settings(deadline=None)  # the first example loads libraries
@given(st.lists(HITS, max_size=5))
def test_hits_come_back_from_parquet(hits: list[Hit]) -> None:
    stored = arrow_parquet.read_table(io.BytesIO(bytes_of(parquet, hit_rows(answer(*hits)))))
    assert stored.schema.names == COLUMNS
    assert [Hit(**row) for row in stored.to_pylist()] == hits


@pytest.mark.slow
@settings(deadline=None)  # the first example loads libraries
@given(st.lists(HITS, max_size=5))
def test_hits_come_back_from_csv(hits: list[Hit]) -> None:
    head, *lines = csv.reader(io.StringIO(bytes_of(csv_format, hit_rows(answer(*hits))).decode(), newline=""))
    assert head == COLUMNS
    back = []
    for line in lines:
        cells = dict(zip(COLUMNS, line, strict=True))
        typed = {name: json.loads(cells[name]) for name in COLUMNS if name not in ("calibrated", "video_id", "path")}
        calibrated = float(cells["calibrated"]) if cells["calibrated"] else None
        back.append(Hit(**{**cells, **typed, "calibrated": calibrated}))
    assert back == hits


def test_csv_of_hits_to_the_letter() -> None:
    assert bytes_of(csv_format, hit_rows(answer(HIT))).decode() == (
        "rank,score,calibrated,video_id,path,paths,online,start_s,end_s,peak_s,clip_ids\r\n"
        '1,0.3125,,b1-00,/archive/cat.mp4,"[""/archive/cat.mp4"", ""/copy/cat.mp4""]",true,'
        '61.26,3725.5,66.26,"[4, 5]"\r\n'
    )


@pytest.mark.slow
def test_a_hit_of_a_million_clips_is_one_row() -> None:
    [row] = hit_rows(answer(replace(HIT, clip_ids=list(range(10**6))))).read_all().to_pylist()
    assert len(row["clip_ids"]) == 10**6


def test_hits_become_a_table_without_pandas() -> None:
    code = """
import sys
from vidx.export import csv, parquet
from vidx.export._hits import hit_rows
from vidx.schema.records import Answer, Hit
hit = Hit(1, 0.5, None, "v", "/a", ["/a"], True, 0.0, 1.0, 0.5, [1])
for hits in ([], [hit]):
    for module in (csv, parquet):
        with open("/dev/null", "wb") as out:
            module.write(hit_rows(Answer("", "", "", 0, 0, None, hits)), out)
print("pandas" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")


def text_rows(**columns: list[str | None]) -> pa.RecordBatchReader:
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()}).to_reader()


@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=5))
def test_any_text_comes_back_from_csv_and_null_is_empty(rows: list[tuple[str, str | None]]) -> None:
    written_rows = bytes_of(csv_format, text_rows(a=[a for a, _ in rows], b=[b for _, b in rows])).decode()
    assert [*csv.reader(io.StringIO(written_rows, newline=""))][1:] == [[a, b or ""] for a, b in rows]
    assert written_rows.count(",\r\n") >= sum(b is None for _, b in rows)


def test_numbers_that_json_does_not_know_become_null() -> None:
    rows = text_rows(a=["NaN", '{"b":[1,-Infinity]}', '"NaN is a word"', None])
    lines = bytes_of(json_format, rows).decode().splitlines()
    assert [json.loads(line)["a"] for line in lines] == [None, {"b": [1, None]}, "NaN is a word", None]


def test_a_name_that_plays_tricks_is_escaped_in_the_head_of_a_table() -> None:
    assert bytes_of(table, text_rows(**{"a\x1b[31m": ["1"]})).decode().splitlines()[0].strip() == r"a\x1b[31m"


def test_a_table_without_rows_is_its_head() -> None:
    assert bytes_of(table, text_rows(a=[], bb=[])) == b"a  bb\n"


def test_later_rows_of_a_table_may_be_wider_than_the_first_batch() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    batches = [pa.record_batch([[a], ["x"]], schema=schema) for a in ("1", "long")]
    rows = pa.RecordBatchReader.from_batches(schema, batches)
    assert bytes_of(table, rows).decode().splitlines() == ["a  b", "1  x", "long  x"]


def test_a_file_that_is_written_gets_its_name_at_the_end(tmp_path: Path) -> None:
    with written(tmp_path / "a.txt") as out:
        out.write(b"whole")
        assert not (tmp_path / "a.txt").exists()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"whole"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("late"), ZeroDivisionError()])
def test_nothing_is_left_of_a_file_whose_writing_failed(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_bytes(b"old")

    def write_half() -> None:
        with written(tmp_path / "a.txt") as out:
            out.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"old"}


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/a.txt")
    with written(tmp_path / "link") as out:
        out.write(b"whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "a.txt").read_bytes() == b"whole"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        with written(tmp_path / "pipe") as out:
            out.write(b"through")
        assert reader.communicate()[0] == b"through"
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_is_one_error() -> None:
    with (
        pytest.raises(InputError, match="can't write /dev/full: No space left") as caught,
        written(Path("/dev/full")) as out,
    ):
        out.write(b"x" * 100_000)
    assert caught.value.hint == "name another file"


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [
        (None, None, "table"),
        (None, "a.csv", "csv"),
        (None, "a.PARQUET", "parquet"),
        (None, "a.txt", "table"),
        (None, "a", "table"),
        (None, "a.sheet", "table"),
        ("json", "a.csv", "json"),
        ("csv", None, "csv"),
    ],
)
def test_a_format_is_chosen_by_name_else_by_the_end_of_the_file(
    tmp_path: Path, name: str | None, out: str | None, expected: str
) -> None:
    chosen = choose(name, tmp_path / out if out else None, "to_text", "write", terminal=True)
    assert chosen.__name__ == f"vidx.export.{expected}"


def test_an_unknown_format_names_those_that_can_do_what_is_needed() -> None:
    with pytest.raises(UnknownChoice, match="no --format called 'sheet'") as caught:
        choose("sheet", None, "write", terminal=False)
    assert caught.value.hint == "choose from: csv, json, parquet, table"


def test_parquet_is_not_for_a_terminal() -> None:
    with pytest.raises(InputError, match="--format parquet is not for a terminal"):
        choose("parquet", None, "write", terminal=True)
    assert choose("parquet", None, "write", terminal=False) is parquet


@pytest.mark.parametrize("out", ["", "nope/a.csv"])
def test_a_file_that_has_no_place_is_refused_before_any_work(tmp_path: Path, out: str) -> None:
    with pytest.raises(InputError, match="can't write") as caught:
        choose("csv", tmp_path / out, "write", terminal=False)
    assert caught.value.hint == "-o takes a file in a folder that exists"
