"""Answers of several jobs as several decode processes give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from hypothesis import strategies as st

_Item = TypeVar("_Item")


def interleaved(draw: st.DrawFn, by_name: Mapping[str, list[_Item]]) -> list[_Item]:
    """All items in one order that keeps that of each name."""
    left = {name: list(items) for name, items in by_name.items()}
    order = []
    while left:
        name = draw(st.sampled_from(sorted(left)))
        order.append(left[name].pop(0))
        if not left[name]:
            del left[name]
    return order
