"""Which files below a root are wanted: the patterns of `--include` and `--exclude`, which are those of .gitignore.

The rules are in gitignore(5). They are written out here because a walk has to judge folders before it opens them, in
names of any bytes; pathspec 1.1 judges files alone ("*", "!*/" shuts every folder). A `?` is one character, not a byte.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vidx.errors import InputError

_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": re.escape(string.punctuation),
    "space": r" \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


@dataclass(frozen=True)
class _Pattern:
    rule: re.Pattern[str]
    selects: bool  # False: a pattern with `!`, which takes back what those before it select
    of_name: bool  # of the last part of a path, wherever it lies; else of the whole path
    of_folder: bool


class Patterns:
    """A list of patterns, of which the last that fits a path decides. Raises InputError for one that is none."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._patterns = [pattern for text in texts if (pattern := _parsed(text)) is not None]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def select(self, path: str, *, is_folder: bool) -> bool:
        """Whether a path without a leading slash is selected, or a folder above it, which then decides."""
        ends = [place for place, character in enumerate(path) if character == "/"]
        return any(self._fit(path[:end], True) for end in ends) or self._fit(path, is_folder)

    def _fit(self, path: str, is_folder: bool) -> bool:
        name = path[path.rfind("/") + 1 :]
        for pattern in reversed(self._patterns):
            if (is_folder or not pattern.of_folder) and pattern.rule.fullmatch(name if pattern.of_name else path):
                return pattern.selects
        return False


class Selection:
    """What of a root is wanted: what `include` selects (all if it is empty) without what `exclude` selects.

    Patterns count from `base`, a folder above the root or the root itself (None). Raises InputError.
    """

    def __init__(self, root: Path, include: Iterable[str], exclude: Iterable[str], base: Path | None = None) -> None:
        self._include, self._exclude = Patterns(include), Patterns(exclude)
        if base is not None and not root.is_relative_to(base):
            raise InputError(f"patterns can't count from {base}", hint=f"name {root} or a folder above it")
        above = os.fspath(root.relative_to(base or root))
        self._above = "" if above == "." else f"{above}/"
        self._skip = len(os.fsencode(root).rstrip(b"/")) + 1

    def leaves_out(self, path: bytes, *, is_folder: bool = False) -> bool:
        """Whether an absolute path below the root is not wanted; of a folder, whether nothing in it is."""
        below = self._above + os.fsdecode(path[self._skip :])
        if self._exclude and self._exclude.select(below, is_folder=is_folder):
            return True
        return bool(self._include) and not is_folder and not self._include.select(below, is_folder=False)


def _parsed(text: str) -> _Pattern | None:
    """None for what is no pattern to gitignore either: a blank, a comment. Raises InputError."""
    glob = re.sub(r"(?<!\\)((?:\\\\)*) +\Z", r"\1", text)  # a blank at the end counts only behind a backslash
    if not glob or glob.startswith("#"):
        return None
    selects = not glob.startswith("!")
    glob = glob.removeprefix("!")
    of_folder = glob.endswith("/")
    glob = glob.removesuffix("/")
    if not glob:
        raise InputError(f"{text!r} is no pattern", hint="give one as in .gitignore, such as '*.lrf' or 'proxies/'")
    of_name = "/" not in glob
    try:
        rule = re.compile(_translated(glob.removeprefix("/")), re.DOTALL)
    except _Unfinished as error:
        raise InputError(
            f"{text!r} is no pattern: {error}", hint="a backslash before a character takes it as such"
        ) from None
    return _Pattern(rule, selects, of_name, of_folder)


class _Unfinished(Exception):
    """What a pattern begins and does not end."""


def _translated(glob: str) -> str:
    """The regular expression of a pattern. Raises _Unfinished."""
    out, at = [], 0
    while at < len(glob):
        stars = len(glob[at:]) - len(glob[at:].lstrip("*"))
        end = at + max(stars, 1)
        if stars > 1 and glob[end : end + 1] in ("", "/") and (at == 0 or glob[at - 1] == "/"):
            out.append(".*" if end == len(glob) else "(?:.*/)?")
            end += 1
        elif stars:
            out.append("[^/]*")
        elif glob[at] == "?":
            out.append("[^/]")
        elif glob[at] == "[":
            rule, end = _bracket(glob, at)
            out.append(rule)
        elif glob[at] == "\\":
            if end == len(glob):
                raise _Unfinished("it ends with a backslash")
            out.append(re.escape(glob[end]))
            end += 1
        else:
            out.append(re.escape(glob[at]))
        at = end
    return "".join(out)


def _bracket(glob: str, start: int) -> tuple[str, int]:
    """The rule for one of several characters, whose `[` is at `start`, and where it ends. Raises _Unfinished."""
    parts, at = [], start + 1
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    first = at
    while at == first or glob[at : at + 1] != "]":
        if named := re.compile(r"\[:([^]]*):\]").match(glob, at):
            if named[1] not in _CLASSES:
                raise _Unfinished(f"there are no characters [:{named[1]}:]")
            parts.append(_CLASSES[named[1]])
            at = named.end()
            continue
        low, at = _member(glob, at)
        high = low
        if glob[at : at + 1] == "-" and glob[at + 1 : at + 2] not in ("", "]"):
            high, at = _member(glob, at + 1)
        if low <= high:  # the other way round there is nothing between them
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
    inside = "".join(parts)
    if negated:
        return f"[^/{inside}]", at + 1
    return (f"(?!/)[{inside}]" if inside else "(?!)"), at + 1


def _member(glob: str, at: int) -> tuple[str, int]:
    """A character between brackets, which a backslash may stand before, and what comes behind it."""
    at += glob[at : at + 1] == "\\"
    if at >= len(glob):
        raise _Unfinished("it has [ without ]")
    return glob[at], at + 1
