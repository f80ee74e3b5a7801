"""Which output format a command's results take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import ModuleType

from vidx.errors import InputError, UnknownChoice
from vidx.plugins import available, load

_FORMATS = ("to_text", "write", "to_timeline")


def choose(name: str | None, out: Path | None, *abilities: str, terminal: bool) -> ModuleType:
    """The format of that name that has one of the functions; without a name, as `out` ends, else `table`.

    Raises UnknownChoice, naming those there are; InputError for a file that has no place, and where `terminal` says
    that the output would go to people and is not for them.
    """
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InputError(f"can't write {out}", hint="-o takes a file in a folder that exists")
    chosen = _find(name or (out.suffix[1:].lower() if out is not None else "table"), abilities)
    if chosen is None:
        known = [other for other in available("export") if _find(other, abilities)]
        if name is not None:
            raise UnknownChoice(f"no --format called {name!r}", hint=f"choose from: {', '.join(known)}")
        if out is not None and _find(out.suffix[1:].lower(), _FORMATS):
            raise InputError(f"this command can't write {out.suffix}", hint=f"choose from: {', '.join(known)}")
    if out is None and terminal and getattr(chosen, "BINARY", False):
        raise InputError(f"--format {name} is not for a terminal", hint="name a file with -o FILE")
    return chosen or load("export", "table")


def _find(name: str, abilities: tuple[str, ...]) -> ModuleType | None:
    with suppress(UnknownChoice):
        module = load("export", name)
        return module if any(hasattr(module, ability) for ability in abilities) else None
    return None
