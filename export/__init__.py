"""Output formats, one file each. A module has `to_text(answer) -> str` for `--format`, or `to_file(answer, path)`."""

from __future__ import annotations

from typing import Any


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
