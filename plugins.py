"""One file is one choice: decoders, encoders, index tiers and export formats are found by listing their folder."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

from vidx.errors import UnknownChoice

SEAMS = ("decoders", "encoders", "vectors", "export")


def available(seam: str) -> list[str]:
    """Names of the choices of one seam, sorted; nothing is imported but the seam's own package.

    Files whose name starts with an underscore are shared parts, not choices. Third parties add choices through the
    entry-point group `vidx.<seam>`.
    """
    from importlib.metadata import entry_points  # slow to import, and not needed for built-in choices

    package = import_module(f"vidx.{seam}")
    built_in = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    return sorted(built_in | {point.name for point in entry_points(group=f"vidx.{seam}")})


def load(seam: str, name: str) -> ModuleType:
    """Import one choice of a seam. Raises UnknownChoice, naming those there are."""
    try:
        if name.isidentifier() and not name.startswith("_"):
            return import_module(f"vidx.{seam}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"vidx.{seam}.{name}":
            raise
    from importlib.metadata import entry_points

    for point in entry_points(group=f"vidx.{seam}", name=name):
        module = point.load()
        assert isinstance(module, ModuleType), f"entry point {point.value} must name a module"
        return module
    raise UnknownChoice(f"no {seam} choice called {name!r}", hint=f"choose from: {', '.join(available(seam))}")
