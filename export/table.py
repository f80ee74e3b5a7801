"""A plain table for people. Of an answer: rank, score, time range, path; paths come last and are never cut."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from vidx.export import clock, shown
from vidx.schema.records import Answer, Trouble

if TYPE_CHECKING:
    import pyarrow as pa

CELLS = "short"


def to_text(answer: Answer) -> str:
    """One line a hit; files on drives that are not there now are marked."""
    lines = [f"{'#':>3}  {'score':>6}  {'from':>10}  {'to':>10}  file"]
    for hit in answer.hits:
        offline = "" if hit.online else "  (offline)"
        times = f"{clock(hit.start_s):>10}  {clock(hit.end_s):>10}"
        lines.append(f"{hit.rank:>3}  {hit.score:>6.3f}  {times}  {shown(hit.path)}{offline}")
    if answer.total is not None:
        lines.append(f"{answer.total} in all; the filters leave no more")
    return "\n".join(lines)


def trouble_line(trouble: Trouble) -> str:
    """One line of `vidx status --failed`."""
    at = "" if trouble.first_bad_s is None else f" (first bad at {clock(trouble.first_bad_s)})"
    return f"{trouble.state:<7}  {shown(trouble.path)}: {shown(trouble.reason)}{at}"


def write(rows: pa.RecordBatchReader, out: BinaryIO) -> None:
    """Rows of texts under their names, numbers to the right. The first batch decides how wide a column is."""
    names = [shown(name) for name in rows.schema.names]
    layout = None
    for batch in rows:
        columns = [[_NULL if cell is None else shown(cell) for cell in column.to_pylist()] for column in batch.columns]
        if layout is None:
            layout = [_Column(name, cells) for name, cells in zip(names, columns, strict=True)]
            out.write(_line(layout, names))
        for row in zip(*columns, strict=True):
            out.write(_line(layout, row))
    if layout is None:
        out.write(("  ".join(names) + "\n").encode())


class _Column:
    """How wide a column is, and to which side it leans."""

    def __init__(self, name: str, cells: list[str]) -> None:
        self.width = max(map(_width, [name, *cells]))
        self.is_of_numbers = all(cell == _NULL or _NUMBER.fullmatch(cell) for cell in cells)

    def aligned(self, cell: str) -> str:
        blank = " " * (self.width - _width(cell))
        return blank + cell if self.is_of_numbers else cell + blank


def _line(layout: list[_Column], cells: Sequence[str]) -> bytes:
    return (
        "  ".join(column.aligned(cell) for column, cell in zip(layout, cells, strict=True)).rstrip() + "\n"
    ).encode()


def _width(text: str) -> int:
    """Cells of a terminal that a text fills."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


_NULL = "NULL"
_NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?|nan|-?inf")
