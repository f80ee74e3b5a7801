"""Output formats, one file each. What a module can do it has a function for:

- `to_text(answer) -> str` makes a text of an answer, for `vidx search --format`.
- `write(rows, out)` writes any table, a pyarrow.RecordBatchReader, to an open binary file: for `vidx sql --format`, and
  for `vidx search --format` where there is no `to_text`. Beside it may stand `CELLS`, which says what `vidx sql` is to
  make of the columns (`vidx.schema.sql.select`), and `BINARY`, true for what is not for a terminal.
- `to_timeline(answer, media, options) -> bytes` makes a file for editors or players of an answer, its `media_of` (the
  files behind it) and `TimelineOptions`, both of `vidx.export._media`: for `vidx search --format`.
- `cut(answer, media, folder, copy=, handles_s=) -> list[CutResult]` makes a file of each hit, for `vidx search --cut`.
- `to_folder(files, folder) -> int` makes files of the rows of a set of tags, and tells how many: for `vidx tag`.
- `to_file(answer, path)` makes a file of another kind, which is no `--format`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vidx.errors import InputError


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that gets its name when it is whole; nothing is left of it when the body fails.

    Raises InputError where it can't be written.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe, or /dev/stdout
            with open(path, "wb") as out:
                yield out
            return
        target = Path(os.path.realpath(path))
        aside = target.with_name(f".vidx-{secrets.token_hex(8)}")
        try:
            with open(aside, "xb") as out:
                yield out
            os.replace(aside, target)
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}", hint="name another file") from error


def clock(seconds: float) -> str:
    """H:MM:SS.s, as people read times in a player."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def shown(text: str) -> str:
    """Text that can't play tricks on a terminal: control characters and the like as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(facts: dict[str, Any]) -> str:
    """Names and values in two columns; what a value holds of its own stands on its line, deeper things are left out."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items() if not isinstance(part, dict))
        lines.append(f"{name.replace('_', ' '):<14} {shown(str(value))}")
    return "\n".join(lines)
