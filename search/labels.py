"""Sets of labels for `vidx tag`: published ones, or a user's file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidx.encoders._label_sets import LABEL_SETS, as_words, names_as_words
from vidx.errors import InputError
from vidx.schema.files import read_text
from vidx.schema.records import can_be_shown

_SYNONYMS = "|"  # between those of one label
_LABEL_COLUMNS = ("label", "name")
_COLUMNS = {*_LABEL_COLUMNS, "synonyms", "parent", "threshold", "id"}
_MOST = 5000


@dataclass(frozen=True)
class Label:
    """What a clip may be said to show. `texts` are what it is looked for by: the name, and other words for it."""

    name: str
    texts: tuple[str, ...]
    parent: str | None = None
    threshold: float | None = None  # least probability, where the file of labels gives one


@dataclass(frozen=True)
class LabelSet:
    """Labels in a fixed order; `published` is which of LABEL_SETS they are, None for a user's."""

    name: str
    labels: tuple[Label, ...]
    published: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def parents(self) -> tuple[str, ...]:
        """Each parent once, in the order in which they come."""
        return tuple(dict.fromkeys(label.parent for label in self.labels if label.parent is not None))


def read_labels(given: str) -> LabelSet:
    """One of LABEL_SETS by name, else a file: a label on each line, or a .csv with a header.

    Columns of a .csv: `label` (or `name`), and, if wanted, `synonyms` (with | between them), `parent`, `threshold`.
    Raises InputError, naming file and line.
    """
    if given in LABEL_SETS and not Path(given).is_file():
        return LabelSet(given, tuple(Label(name, (name,)) for name in names_as_words(given)), published=given)
    path = Path(given)
    if not path.is_file():
        raise InputError(
            f"no labels {given!r}", hint=f"name a file, or one of {', '.join(LABEL_SETS)}: `--labels {LABEL_SETS[0]}`"
        )
    by_line = list(_from_csv(path) if path.suffix.lower() == ".csv" else _from_lines(path))
    _check(path, by_line)
    return LabelSet(set_name(path.stem), tuple(label for _, label in by_line))


def read_texts(path: Path) -> tuple[str, ...]:
    """Texts of a file, one on each line. Raises InputError."""
    texts = tuple(label.texts[0] for _, label in _from_lines(path))
    if not texts:
        raise InputError(f"{path} is empty", hint="write one text a line")
    return texts


def set_name(text: str) -> str:
    """A name for a set of tags, which becomes a folder. Raises InputError where nothing is left of it."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:80]
    if not safe:
        raise InputError(f"{text!r} gives no name for a set of tags", hint="name one with --set")
    return safe


def digest_of(fields: object) -> str:
    """sha256 in hex of the canonical JSON of what decides probabilities: texts, templates, scale and the like."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _from_lines(path: Path) -> Iterable[tuple[int, Label]]:
    """Each label and the number of its line."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if name := " ".join(line.split()):
            yield number, Label(name, (as_words(name),))


def _from_csv(path: Path) -> Iterable[tuple[int, Label]]:
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = list(rows.fieldnames or ())
        named = next((column for column in _LABEL_COLUMNS if column in columns), None)
        if named is None:
            raise _wrong(path, "it has no column `label`")
        if len(set(columns)) < len(columns):
            raise _wrong(path, f"a column is there twice: {', '.join(columns)}")
        if strange := [column for column in columns if column not in _COLUMNS]:
            raise _wrong(path, f"column {strange[0]!r} is not known; known are {', '.join(sorted(_COLUMNS))}")
        for row in rows:
            if None in row:
                raise _wrong(path, f"line {rows.line_num} has more cells than the header")
            cells = {column: " ".join((cell or "").split()) for column, cell in row.items()}
            if not (name := cells[named]):
                raise _wrong(path, f"line {rows.line_num} has no label")
            others = (text.strip() for text in cells.get("synonyms", "").split(_SYNONYMS))
            texts = tuple(dict.fromkeys([as_words(name), *filter(None, others)]))
            label = Label(name, texts, cells.get("parent") or None, _threshold(path, rows.line_num, cells))
            yield rows.line_num, label
    except csv.Error as error:
        raise _wrong(path, f"line {rows.reader.line_num}: {error}") from error


def _threshold(path: Path, line: int, cells: dict[str, str]) -> float | None:
    if not (given := cells.get("threshold", "")):
        return None
    try:
        threshold = float(given)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise _wrong(path, f"line {line}: a threshold is a probability from 0 to 1, not {given!r}")
    return threshold


def _check(path: Path, by_line: Sequence[tuple[int, Label]]) -> None:
    """Raises InputError for what could not be told apart, or shown, afterwards."""
    if not 1 <= len(by_line) <= _MOST:
        raise _wrong(path, f"it has {len(by_line)} labels, and 1 to {_MOST} can be given")
    names = {label.name for _, label in by_line}
    seen: set[str] = set()
    for line, label in by_line:
        what = None
        if strange := next((text for text in (label.name, label.parent or "") if not can_be_shown(text)), None):
            what = f"{strange!r} can't be printed"
        elif not all(label.texts):
            what = f"{label.name!r} says nothing"
        elif label.name in seen:
            what = f"label {label.name!r} is there twice"
        elif label.parent in names:
            what = f"{label.parent!r} is a label and a parent"
        if what is not None:
            raise _wrong(path, f"line {line}: {what}")
        seen.add(label.name)


def _wrong(path: Path, what: str) -> InputError:
    return InputError(f"labels in {path}: {what}", hint="one label a line, or a .csv with the column `label`")
