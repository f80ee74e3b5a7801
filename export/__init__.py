"""Output formats, one file each. A module has `to_text(answer) -> str` for `--format`, or `to_file(answer, path)`."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """H:MM:SS.s, as people read times in a player."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def shown(text: str) -> str:
    """Text that can't play tricks on a terminal: control characters and the like as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
