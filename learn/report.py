"""What was measured, as text for a terminal, Markdown, JSON and one page of HTML.

A number is shown with two decimals from 10 on and with three below, with three significant digits below 0.001, and as
a dash where there is none. Texts may come from file names and queries: what can't be seen in them is shown as escapes.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import dataclass, field
from html import escape
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from vidx.errors import InputError
from vidx.export import shown, written

if TYPE_CHECKING:
    import pyarrow as pa

_DASH = "-"
# What would mean something in GitHub's Markdown; an underscore inside a word does not.
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$#@]|(?<![^\W_])_|_(?![^\W_])")
# Nothing is to be loaded from anywhere, whatever a name of the archive holds.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""
_STYLE = """<style>
:root { color-scheme: light dark; --ink: #1d1f23; --paper: #fff; --faint: #5c636e; --line: #d5d9e0; --band: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --paper: #16181c; --faint: #9aa2ae; --line: #363b44; --band: #1f2228; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h1, h2, figcaption { overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--band); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.note, figcaption { color: var(--faint); font-size: .9rem; }
figure { margin: 2rem 0; } img { max-width: 100%; height: auto; background: #fff; }
</style>
"""


@dataclass(frozen=True)
class Table:
    """One table; None is a cell without a value."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Everything a measurement has to tell.

    `facts` say how it was measured, `figures` hold all numbers: both are values of JSON. `pictures` are PNG by file
    name, and `items` has a row for each item.
    """

    title: str
    facts: dict[str, Any]
    tables: tuple[Table, ...]
    figures: dict[str, Any]
    pictures: dict[str, bytes] = field(default_factory=dict)
    items: pa.Table | None = None


def to_terminal(report: Report) -> str:
    """Plain text: the facts, then each table in aligned columns, numbers to the right."""
    blocks = [[shown(report.title)], _aligned(_facts(report), [False, False])]
    for table in report.tables:
        header, *lines = _aligned(_rows(table), _numeric(table))
        blocks.append([shown(table.title), header, "-" * max(map(_width, [header, *lines])), *lines])
        if table.note:
            blocks[-1].append(shown(table.note))
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _aligned(rows: list[list[str]], numeric: list[bool]) -> list[str]:
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if right else cell + gap for cell, gap, right in zip(row, gaps, numeric, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns that a terminal takes for it: two for a character of Chinese, none for an accent of its own."""
    from rich.cells import cell_len

    return cell_len(text)


def to_markdown(report: Report, *, pictures: bool = True) -> str:
    """GitHub's Markdown; pictures as links to the files that `write_report` puts beside it."""
    blocks = [f"# {_marked(report.title)}"]
    if report.facts:
        blocks.append(_piped([["measured with", ""], *_facts(report)], [False, False]))
    for table in report.tables:
        blocks += [f"## {_marked(table.title)}", _piped(_rows(table), _numeric(table))]
        if table.note:
            blocks.append(_marked(table.note))
    if pictures:
        blocks += [f"![{_marked(_caption(name))}]({quote(name, safe='')})" for name in report.pictures]
    return "\n\n".join(blocks) + "\n"


def _piped(rows: list[list[str]], numeric: list[bool]) -> str:
    header, *lines = ["| " + " | ".join(map(_marked, row)) + " |" for row in rows]
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return "\n".join([header, rule, *lines])


def _marked(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", shown(text))


def to_json(report: Report) -> str:
    """One object with title, facts and figures; null for NaN and the infinities, which JSON does not know."""
    fields = {"title": report.title, "facts": report.facts, "figures": report.figures}
    text = json.dumps(_plain(fields), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    return text.encode(errors="backslashreplace").decode()  # bytes of a name that are no UTF-8: \udc80 in JSON too


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_html(report: Report) -> str:
    """One page that stands alone: pictures inside it, nothing to fetch and nothing that runs."""
    title = _escaped(report.title)
    parts = [_HEAD, f"<title>{title}</title>\n{_STYLE}</head>\n<body>\n<main>\n<h1>{title}</h1>\n"]
    if report.facts:
        lines = [
            f'<tr><th scope="row">{_escaped(name)}</th><td>{_escaped(fact)}</td></tr>' for name, fact in _facts(report)
        ]
        parts.append(_scrolled("How it was measured", lines))
    for table in report.tables:
        parts += [f"<h2>{_escaped(table.title)}</h2>\n", _scrolled(table.title, _html_rows(table))]
        if table.note:
            parts.append(f'<p class="note">{_escaped(table.note)}</p>\n')
    for name, data in report.pictures.items():
        caption, source = _escaped(_caption(name)), f"data:image/png;base64,{base64.b64encode(data).decode()}"
        parts.append(f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>\n')
    return "".join([*parts, "</main>\n</body>\n</html>\n"])


def _html_rows(table: Table) -> list[str]:
    kinds = [' class="number"' if right else "" for right in _numeric(table)]
    lines = []
    for number, row in enumerate(_rows(table)):
        tag, scope = ("td", "") if number else ("th", ' scope="col"')
        cells = (f"<{tag}{scope}{kind}>{_escaped(c)}</{tag}>" for kind, c in zip(kinds, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return lines


def _scrolled(label: str, lines: list[str]) -> str:
    """A table that scrolls by itself where a page is narrow, by keyboard too."""
    start = f'<div class="table" role="region" tabindex="0" aria-label="{_escaped(label)}">\n<table>\n'
    return start + "\n".join(lines) + "\n</table>\n</div>\n"


def _escaped(text: str) -> str:
    return escape(shown(text))


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.md, .json and .html, items.parquet where there are items, and each picture; give their paths.

    Raises InputError where the folder can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't make {folder}: {error.strerror or error}", hint="name another folder") from error
    texts = {"report.md": to_markdown(report), "report.json": to_json(report), "report.html": to_html(report)}
    contents = {name: text.encode() for name, text in texts.items()}
    if report.items is not None:
        contents["items.parquet"] = _parquet(report.items)
    contents |= report.pictures
    for name, data in contents.items():
        with written(folder / name) as out:
            out.write(data)
    return [folder / name for name in contents]


def _parquet(table: pa.Table) -> bytes:
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def _caption(picture: str) -> str:
    return Path(picture).stem.replace("_", " ")


def _facts(report: Report) -> list[list[str]]:
    return [[str(name).replace("_", " "), _fact(value)] for name, value in report.facts.items()]


def _fact(value: Any) -> str:
    """A value of JSON on one line; numbers in full, for they say how to measure it again."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _DASH if value is None else str(value)


def _rows(table: Table) -> list[list[str]]:
    """The header and the rows, as texts."""
    return [list(table.columns), *([_cell(value) for value in row] for row in table.rows)]


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers and no text."""
    columns = [[row[n] for row in table.rows if row[n] is not None] for n in range(len(table.columns))]
    return [bool(column) and not any(isinstance(value, str) for value in column) for column in columns]


def _cell(value: str | float | int | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return str(int(value))
    if value is None or math.isnan(value):
        return _DASH
    if round(abs(value), 3) >= 10:
        return f"{value:.2f}"
    return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value + 0.0:.3f}"  # no -0.000
