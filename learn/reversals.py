"""Texts told the other way round: what a video that is played backwards would show."""

from __future__ import annotations

import re

# Kind of change, and the forms it is told in. `in` and `out` are left out: `in` mostly says where.
_OPPOSITES = {
    "enter / leave": ("enter|leave", "enters|leaves", "entering|leaving"),
    "open / close": ("open|close", "opens|closes", "opening|closing"),
    "pick up / put down": ("pick up|put down", "picks up|puts down", "picking up|putting down"),
    "sit down / stand up": ("sit down|stand up", "sits down|stands up", "sitting down|standing up"),
    "up / down": ("up|down", "upwards|downwards", "upward|downward", "rises|falls", "rising|falling"),
    "left / right": ("left to right|right to left", "left|right", "leftwards|rightwards"),
    "into / out of": ("into|out of",),
    "forwards / backwards": ("forwards|backwards", "forward|backward"),
    "appear / disappear": ("appear|disappear", "appears|disappears", "appearing|disappearing"),
    "grow / shrink": ("grow|shrink", "grows|shrinks", "growing|shrinking"),
    "come together / move apart": ("come together|move apart", "comes together|moves apart"),
    "push / pull": ("push|pull", "pushes|pulls", "pushing|pulling"),
    "approach / recede": ("approach|recede", "approaches|recedes", "approaching|receding"),
    "lift / lower": ("lift|lower", "lifts|lowers", "lifting|lowering"),
    "load / unload": ("load|unload", "loads|unloads", "loading|unloading"),
    "fold / unfold": ("fold|unfold", "folds|unfolds", "folding|unfolding"),
    "turn on / turn off": ("turn on|turn off", "turns on|turns off", "turning on|turning off"),
    "clockwise / counterclockwise": ("clockwise|counterclockwise",),
}
_OTHER: dict[str, tuple[str, str]] = {}  # a form to its opposite, and the kind
for _kind, _forms in _OPPOSITES.items():
    for _one, _two in (form.split("|") for form in _forms):
        _OTHER |= {_one: (_two, _kind), _two: (_one, _kind)}
_FORM = re.compile(r"\b(" + "|".join(sorted(_OTHER, key=len, reverse=True)) + r")\b", re.IGNORECASE)


def reversed_text(text: str) -> tuple[str, frozenset[str]]:
    """The text with every change the other way round, and the kinds of change it tells; none: it stays the same."""
    kinds = frozenset(_OTHER[form.lower()][1] for form in _FORM.findall(text))
    return _FORM.sub(_turned, text), kinds


def _turned(found: re.Match[str]) -> str:
    other = _OTHER[found[0].lower()][0]
    return other.capitalize() if found[0][0].isupper() else other
