"""Reports of measurements: what each format says, hostile names in them, their files and their pictures."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from pyarrow import parquet
from rich.cells import cell_len

from vidx.errors import InputError
from vidx.export import shown
from vidx.learn._pictures import _curves, class_bars_png, confusion_png, curves_png, lines_png, sheet_png
from vidx.learn.report import Report, Table, to_html, to_json, to_markdown, to_terminal, write_report

HOSTILE = [
    '<script>alert("x")</script>',
    "a|b\\|c\nd\re",
    "\x1b[31mred\x07",
    "\u202egnihtyna",
    "bytes\udcff",
    "שלום 日本語 🙂",
    "$x^2$ *bold* _low_ `code` [link](http://example.com) &amp; ~~gone~~",
    '" onmouseover="x',
    "http://example.com/a.png",
]
names = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12), st.text("\\|`*_<>&[]$\n", max_size=12))
cells = st.one_of(names, st.integers(-(10**9), 10**9), st.floats(), st.none())


def png(level: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("L", (2, 2), level).save(out, "PNG")
    return out.getvalue()


def report(text: str = "walking", **more: object) -> Report:
    """A report with `text` wherever a text may come from a user."""
    table = Table(text, ("class", text, "n"), ((text, 0.25, 3), ("other", None, 12)), note=text)
    facts = {"encoder": text, "prompts": [text, "a film of {}"], "temperature": 0.01, "store": {"clips": 7}}
    return Report(text, facts, (table,), {"top1": 0.25, text: [float("nan"), 1]}, **more)


class Page(HTMLParser):
    """What a page holds: tags with their attributes, the texts of table cells, all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def of_markdown(text: str) -> list[list[str]]:
    """The rows of all tables in a text, as a parser of GitHub's tables reads them; no cell holds anything but text."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    rows: list[list[str]] = []
    for token, following in itertools.pairwise(parser.parse(text)):
        if token.type == "tr_open":
            rows.append([])
        if token.type in {"td_open", "th_open"}:
            assert {child.type for child in following.children} <= {"text", "text_special"}
            rows[-1].append("".join(child.content for child in following.children))
    return rows


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (float("inf"), "inf"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (0.76543, "0.765"),
        (9.9994, "9.999"),
        (9.9996, "10.00"),
        (-76.547, "-76.55"),
        (0.001, "0.001"),
        (0.00012345, "0.000123"),
        (np.float32(12.5), "12.50"),
        (np.int64(12), "12"),
        (0, "0"),
        (123456, "123456"),
        ("0.5", "0.5"),
    ],
)
def test_a_number_is_shown_by_one_rule(value: object, text: str) -> None:
    made = Report("", {}, (Table("", ("x",), ((value,),)),), {})
    assert to_terminal(made).splitlines()[-1] == text
    assert of_markdown(to_markdown(made)) == [["x"], [text]]
    assert Page(to_html(made)).rows == [["x"], [text]]


def test_the_terminal_shows_facts_and_aligned_tables() -> None:
    table = Table("By class", ("class", "top-1", "n"), (("walk", 0.5, 10), ("日本", None, 7)), note="two of them")
    made = Report("Evaluation", {"frames_a_clip": 8, "exact": True, "prompts": ["a", "b"]}, (table,), {})
    assert to_terminal(made) == (
        "Evaluation\n\n"
        "frames a clip  8\n"
        "exact          yes\n"
        "prompts        a, b\n\n"
        "By class\n"
        "class  top-1   n\n"
        "----------------\n"
        "walk   0.500  10\n"
        "日本       -   7\n"
        "two of them\n"
    )


@given(st.lists(st.tuples(names, st.floats(-1e6, 1e6)), min_size=1, max_size=5))
def test_no_name_moves_a_column_of_the_terminal(rows: list[tuple[str, float]]) -> None:
    text = to_terminal(Report("t", {}, (Table("by class", ("class", "x"), tuple(rows)),), {}))
    assert text.replace("\n", "").isprintable()
    lines = text.splitlines()[3:]
    assert len(lines) == 2 + len(rows)
    assert len({cell_len(line) for line in lines}) == 1  # all end where the numbers end


@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_cells_of_markdown_come_back_whole(rows: list[tuple]) -> None:
    made = Report("t", {}, (Table("by class", ("a|b", "c"), tuple(rows)),), {})
    assert of_markdown(to_markdown(made)) == [[cell.strip(" ") for cell in row] for row in Page(to_html(made)).rows]


def test_names_mean_nothing_to_markdown() -> None:
    text = to_markdown(report(HOSTILE[6] + HOSTILE[0]))
    assert not re.search(r"(?<!\\)[*`<>\[\]&~$]", text.replace(r"](", ""))
    assert r" \_low\_ " in text
    assert to_markdown(report("open_clip")).startswith("# open_clip\n")


def test_pictures_are_linked_beside_the_markdown_or_left_out() -> None:
    made = report(pictures={"by class.png": png()})
    assert "![by class](by%20class.png)" in to_markdown(made)
    assert "![" not in to_markdown(made, pictures=False)


def test_json_is_one_object_without_nan() -> None:
    figures = {
        "a": float("nan"),
        "b": [float("inf"), np.float32(0.5)],
        "c": {"d": np.array([1.0, np.nan])},
        "e": (1, None),
    }
    text = to_json(Report("t", {"frames": np.int64(8)}, (), figures))
    assert json.loads(text, parse_constant=pytest.fail) == {
        "title": "t",
        "facts": {"frames": 8},
        "figures": {"a": None, "b": [None, 0.5], "c": {"d": [1.0, None]}, "e": [1, None]},
    }


@given(st.one_of(names, st.text(st.characters(categories=["Cs", "Cc", "Lo"]), max_size=4)))
def test_json_keeps_every_name(name: str) -> None:
    read = json.loads(to_json(report(name)).encode())
    encoded = json.loads(json.dumps(name))  # two halves of a pair are one character in JSON
    assert (read["title"], read["facts"]["encoder"]) == (encoded, encoded)


@given(names.filter(bool))
def test_a_page_holds_names_as_text_only(name: str) -> None:
    page = Page(to_html(report(name, pictures={"confusion_1.png": png()})))
    plain = Page(to_html(report(pictures={"confusion_1.png": png()})))
    assert [(tag, sorted(attributes)) for tag, attributes in page.tags] == [
        (tag, sorted(attributes)) for tag, attributes in plain.tags
    ]
    texts = [[shown(name) if cell == "walking" else cell for cell in row] for row in plain.rows]
    texts[1][1] = f"{shown(name)}, a film of {{}}"
    assert page.rows == texts
    assert page.text.count(shown(name)) >= 8


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_stands_alone_and_runs_nothing(name: str) -> None:
    html = to_html(report(name, pictures={"a.png": png(7), "b_c.png": png(9)}))
    tags = Page(html).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "a", "svg"}
    sources = [attributes["src"] for _, attributes in tags if "src" in attributes]
    start = "data:image/png;base64,"
    assert [base64.b64decode(source.removeprefix(start), validate=True) for source in sources] == [png(7), png(9)]
    assert all(source.startswith(start) for source in sources)
    for _, attributes in tags:
        assert not {key for key in attributes if key.startswith("on") or key in {"href", "srcset", "style", "action"}}
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    html.encode()


def test_a_page_is_made_for_phones_dark_rooms_and_screen_readers() -> None:
    html = to_html(report(pictures={"per_class.png": png()}))
    tags = Page(html).tags
    assert ("html", {"lang": "en"}) in tags
    assert [attributes["alt"] for tag, attributes in tags if tag == "img"] == ["per class"]
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    assert "prefers-color-scheme: dark" in html
    assert "overflow-x: auto" in html
    assert "<title>walking</title>" in html
    wrapped = [before[0] for before, (tag, _) in itertools.pairwise(tags) if tag == "table"]
    assert wrapped == ["div", "div"]


def test_every_file_of_a_report_is_written(tmp_path: Path) -> None:
    items = pa.table({"path": ["/a.mp4", "日本.mp4"], "rank": [0, 3]})
    made = report(pictures={"confusion.png": png(), "a b.png": png(5)}, items=items)
    folder = tmp_path / "of" / "today"
    paths = write_report(made, folder)
    expected = ["report.md", "report.json", "report.html", "items.parquet", "confusion.png", "a b.png"]
    assert paths == [folder / name for name in expected]
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)
    texts = [path.read_text(encoding="utf-8") for path in paths[:3]]
    assert texts == [to_markdown(made), to_json(made), to_html(made)]
    assert parquet.read_table(paths[3]).equals(items)
    assert [path.read_bytes() for path in paths[4:]] == [png(), png(5)]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_report(made, folder)] == before


@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_of_any_name_can_be_written_and_has_no_items(name: str, tmp_path: Path) -> None:
    paths = write_report(report(name), tmp_path)
    assert [path.name for path in paths] == ["report.md", "report.json", "report.html"]


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(InputError, match=re.escape(f"can't make {folder}: ")) as caught:
            write_report(report(), folder)
        assert caught.value.hint == "name another folder"


def test_a_file_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").symlink_to(tmp_path / "nowhere" / "report.json")
    with pytest.raises(InputError, match=r"report\.json"):
        write_report(report(), tmp_path)


def test_importing_reports_loads_nothing_heavy() -> None:
    heavy = {"matplotlib", "pyarrow", "torch", "rich"}
    modules = "vidx.learn.report, vidx.learn._pictures, vidx.learn.metrics"
    code = f"import sys, {modules}; sys.exit(str({heavy} & set(sys.modules) or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert not {"Software", "date", "Creation Time"} & set(image.info)
        return image.convert("RGB")


@pytest.fixture
def plot() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")


def _matrix(n: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(n)
    return rng.poisson(0.2, (n, n)) + np.diag(rng.integers(1, 9, n)), [f"class {number}" for number in range(n)]


LOG = "".join(
    json.dumps({"step": step, "seconds": 1.5, "loss/a": loss, "loss/b": 0.25, "accuracy": accuracy}) + "\n"
    for step, loss, accuracy in [(4, 2.0, 0.25), (8, 1.5, 0.5), (10, 0.75, 1.0)]
)
DRAWN: list[Callable[[], bytes]] = [
    lambda: confusion_png(*_matrix(5)),
    lambda: class_bars_png(["a", "b"], [0.5, 0.25], "top-1"),
    lambda: lines_png({"a": (np.arange(3), np.arange(3.0))}, "title", "x", "y"),
    lambda: curves_png({"run": [LOG]}),
    lambda: sheet_png([("walk", np.zeros((3, 30, 40, 3), np.uint8))], "title"),
]


@pytest.mark.usefixtures("plot")
@pytest.mark.parametrize("draw", DRAWN, ids=["confusion", "bars", "lines", "curves", "sheet"])
def test_a_picture_drawn_twice_has_the_same_bytes(draw: Callable[[], bytes]) -> None:
    opened(draw())
    assert draw() == draw()


@pytest.mark.usefixtures("plot")
@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn() -> None:
    odd = [*HOSTILE, r"$\frac{ _^ 100 %", "_hidden", "", "long " * 100]
    n = len(odd)
    plain = [f"c{number}" for number in range(n)]
    pictures = [
        (
            confusion_png(np.eye(n), names),
            class_bars_png(names, np.ones(n), names[-1]),
            lines_png({name: (np.arange(2), np.arange(2)) for name in names}, names[0], names[1], names[-4]),
            curves_png({name: [LOG] for name in names}),
            sheet_png([(name, np.zeros((1, 9, 9, 3), np.uint8)) for name in names], names[-1]),
        )
        for names in (odd, plain)
    ]
    for drawn, other in zip(*pictures, strict=True):
        assert opened(drawn).tobytes() != opened(other).tobytes()


BLUE = (8, 48, 107)  # the darkest of the colours, a share of 1


@pytest.mark.usefixtures("plot")
def test_confusion_is_drawn_as_shares_of_the_classes_that_occur() -> None:
    counts, classes = np.zeros((4, 4), int), ["a", "b", "c", "d"]
    counts[0, 0], counts[2, 0] = 1, 50
    drawn = confusion_png(counts, classes)
    assert drawn == confusion_png(counts[np.ix_([0, 2], [0, 2])] * 3, ["a", "c"])
    dark = (np.abs(np.asarray(opened(drawn)).astype(int) - BLUE).max(axis=-1) < 3)[:, :500]
    across, down = np.flatnonzero(dark.sum(axis=0) > 50), np.flatnonzero(dark.sum(axis=1) > 50)
    assert len(down) > 1.9 * len(across) > 200  # both rows of the left column


@pytest.mark.usefixtures("plot")
@pytest.mark.slow
def test_confusion_of_many_classes_stays_within_bounds() -> None:
    widths = [opened(confusion_png(*_matrix(n))).width for n in (2, 20, 400)]
    assert widths == sorted(set(widths))
    assert widths[-1] <= 1600
    counts, classes = _matrix(61)
    assert confusion_png(counts, classes) == confusion_png(counts, ["x"] * 61)  # too many for names
    assert confusion_png(counts[:60, :60], classes[:60]) != confusion_png(counts[:60, :60], ["x"] * 60)


@pytest.mark.usefixtures("plot")
def test_bars_are_sorted_by_value() -> None:
    values = [0.2, 0.9, 0.5]
    drawn = class_bars_png(["a", "b", "c"], values, "top-1")
    assert drawn == class_bars_png(["b", "c", "a"], [0.9, 0.5, 0.2], "top-1")
    blue = (np.abs(np.asarray(opened(drawn)).astype(int) - (31, 119, 180)).max(axis=-1) < 3).sum(axis=1)
    lengths = [length for n, length in enumerate(blue) if length and length != blue[n - 1]]
    assert np.array(lengths) / max(lengths) == pytest.approx(np.array([0.9, 0.5, 0.2]) / 0.9, abs=0.02)


@pytest.mark.usefixtures("plot")
@pytest.mark.slow
def test_bars_grow_with_the_classes_up_to_a_bound() -> None:
    heights = [opened(class_bars_png(["x"] * n, np.ones(n), "")).height for n in (1, 50, 401, 3000)]
    assert heights[0] < heights[1] < heights[2] == heights[3] <= 5000


@pytest.mark.usefixtures("plot")
def test_lines_have_gaps_where_there_is_no_number() -> None:
    x, y = np.arange(4), np.array([0.1, 0.2, 0.3, 0.4])
    whole, gap = (lines_png({"a": (x, values)}, "", "x", "y") for values in (y, np.where(x == 2, np.nan, y)))
    blue = [(np.abs(np.asarray(opened(d)).astype(int) - (31, 119, 180)).max(axis=-1) < 3).sum() for d in (whole, gap)]
    assert 0 < blue[1] < 0.7 * blue[0]


@pytest.mark.usefixtures("plot")
def test_curves_are_the_losses_and_accuracies_of_logs_one_behind_the_other() -> None:
    figure = _curves({"one": [LOG], "two": [LOG, LOG.splitlines()[0]]})
    assert opened(curves_png({"one": [LOG]})).size == (1000, 400)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss in training", "accuracy on validation videos"]
    for axes, expected in zip(figure.axes, ([2.25, 1.75, 1.0, 2.25], [0.25, 0.5, 1.0, 0.25]), strict=True):
        one, two, end_of_part = (line.get_xydata().tolist() for line in axes.lines)
        assert two == [[step, value] for step, value in zip([4, 8, 10, 14], expected, strict=True)]
        assert one == two[:3]
        assert [x for x, _ in end_of_part] == [10, 10]
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_a_sheet_shows_eight_frames_evenly_from_first_to_last() -> None:
    frames = np.zeros((29, 240, 320, 3), np.uint8) + np.arange(29, dtype=np.uint8)[:, None, None, None] * 8 + 20
    small = np.full((2, 30, 40, 3), (255, 0, 0), np.uint8)
    pixels = np.asarray(opened(sheet_png([("walk", frames), ("run", small)], "")))
    line = pixels[6 + 20 + 6 + 20 + 60]  # margin, title, margin, caption, half a frame
    assert [tuple(line[6 + 166 * n + 80]) for n in range(8)] == [(20 + 32 * n,) * 3 for n in range(8)]
    red = (pixels == (255, 0, 0)).all(axis=-1)
    assert red.sum() == 2 * 30 * 40  # smaller ones are not enlarged
    assert pixels.shape[1] == 8 * 160 + 7 * 6 + 2 * 6


def test_frames_of_a_sheet_are_small_and_captions_fit() -> None:
    frames = np.full((1, 100, 4000, 3), 255, np.uint8)
    image = opened(sheet_png([("y" * 3000, frames)], "W" * 3000))
    assert image.width == 640 + 12
    assert image.crop((image.width - 4, 0, image.width, image.height)).getcolors() == [(4 * image.height, (24, 24, 26))]


@pytest.mark.usefixtures("plot")
@pytest.mark.parametrize(
    "draw",
    [
        lambda: confusion_png(np.zeros((2, 2)), ["a", "b"]),
        lambda: confusion_png(np.ones((2, 2)), ["a"]),
        lambda: class_bars_png([], [], ""),
        lambda: class_bars_png(["a"], [1, 2], ""),
        lambda: class_bars_png(["a"], [np.nan], ""),
        lambda: lines_png({}, "", "", ""),
        lambda: lines_png({"a": (np.zeros(2), np.zeros(3))}, "", "", ""),
        lambda: lines_png({"a": (np.zeros(0), np.zeros(0))}, "", "", ""),
        lambda: curves_png({}),
        lambda: curves_png({"a": []}),
        lambda: sheet_png([], ""),
        lambda: sheet_png([("a", np.zeros((0, 2, 2, 3), np.uint8))], ""),
        lambda: sheet_png([("a", np.zeros((1, 2, 2, 3)))], ""),
        lambda: sheet_png([("a", np.zeros((2, 2, 3), np.uint8))], ""),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        draw()


@pytest.mark.parametrize("draw", DRAWN[:3], ids=["confusion", "bars", "lines"])
def test_without_matplotlib_it_is_said_what_to_install(
    draw: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pictures need matplotlib") as caught:
        draw()
    assert caught.value.hint == "run `pip install 'vidx[plot]'`"
