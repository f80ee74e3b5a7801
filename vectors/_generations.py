"""Generations of a space's index: folders of files that are mapped into memory, one of them CURRENT.

A generation is made of committed clips alone and can be deleted at any time. It is built aside, gets its name when it
is whole, and CURRENT is switched to it last; the one before is kept to go back to.

    index/<space>/CURRENT           name of the generation in use
    index/<space>/g000002/          meta.json, index.faiss, clip_ids.npy, vectors.npy, times.npy, ranges.npy, sums.npy
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidx.errors import StoreDamaged
from vidx.plugins import load
from vidx.schema.files import write_atomically
from vidx.schema.live import Clips, Ranges
from vidx.vectors import Index

FORMAT = 1
_HEAD_BYTES = 4096  # of each file are compared when it is opened
_ARRAYS = ("clip_ids", "vectors", "times", "ranges", "sums")
_NAME = re.compile(r"g\d{6,}")


@dataclass(frozen=True)
class Generation:
    """One that is open: `clips` are mapped; `sums` float64 (dim + 1, dim) are those of vectors and their products."""

    name: str
    meta: dict[str, Any]
    ranges: Ranges
    clips: Clips
    sums: np.ndarray
    index: Index


def names(folder: Path) -> list[str]:
    """Generations that are whole, oldest first."""
    return sorted(entry.name for entry in folder.glob("g*") if _NAME.fullmatch(entry.name))


def current_name(folder: Path) -> str | None:
    """The generation that CURRENT names, if there is one."""
    try:
        name = (folder / "CURRENT").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return name if _NAME.fullmatch(name) else None


def open_current(folder: Path) -> tuple[Generation | None, str]:
    """The generation in use, else the newest other one that opens, else None; and what was wrong, in words."""
    first, known = current_name(folder), names(folder)
    if first is None and not known:
        return None, ""
    trouble = "" if first is not None else f"CURRENT of {folder} names no generation"
    for name in [*([first] if first else []), *(other for other in reversed(known) if other != first)]:
        try:
            return open_generation(folder / name), trouble
        except StoreDamaged as error:
            trouble = trouble or str(error)
    # A build may have switched and removed between the two looks.
    return (None, trouble) if current_name(folder) == first else open_current(folder)


def open_generation(folder: Path) -> Generation:
    """Map a generation into memory, after a look at its sizes and heads. Raises StoreDamaged."""
    try:
        meta = _read_meta(folder)
        for name, facts in meta["files"].items():
            if _head_facts(folder / name) != (facts["size_bytes"], facts["head_sha256"]):
                raise ValueError(f"{name} is not what was built")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        clips = Clips(arrays["clip_ids"], arrays["times"], arrays["vectors"])
        index = load("vectors", meta["tier"]).opened(folder / "index.faiss", clips.vectors, meta["settings"])
        ranges = Ranges(np.array(arrays["ranges"][:, 0]), np.array(arrays["ranges"][:, 1]))
        return Generation(folder.name, meta, ranges, clips, np.array(arrays["sums"]), index)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreDamaged(
            f"generation {folder.name} of the index can't be used ({reason})",
            hint="run `vidx index --rebuild-index`",
        ) from error


def altered_files(folder: Path) -> list[str]:
    """Files of a generation that are not, to the last byte, what was built. Raises OSError, ValueError, KeyError."""
    meta = _read_meta(folder)
    return [name for name, facts in meta["files"].items() if _sha256(folder / name) != facts["sha256"]]


def new_arrays(folder: Path, ranges: Ranges, dim: int) -> Clips:
    """Arrays of a generation to fill, mapped to files in the folder it is built in."""
    np.save(folder / "ranges.npy", np.stack([ranges.firsts, ranges.counts], axis=1))
    n, lib = ranges.n_clips, np.lib.format
    return Clips(
        lib.open_memmap(folder / "clip_ids.npy", "w+", np.int64, (n,)),
        lib.open_memmap(folder / "times.npy", "w+", np.float64, (n, 2)),
        lib.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, dim)),
    )


def finish(folder: Path, parent: Path, index: Index, sums: np.ndarray, meta: dict[str, Any]) -> str:
    """Write what is left of a generation, give it its name, and switch to it. Raises OSError."""
    np.save(folder / "sums.npy", sums)
    index.save(folder / "index.faiss")
    files = {}
    for path in sorted(folder.iterdir()):
        size, head = _head_facts(path)
        files[path.name] = {"size_bytes": size, "head_sha256": head, "sha256": _sha256(path)}
    full = {"format": FORMAT, **meta, "settings": index.settings, "files": files}
    write_atomically(folder / "meta.json", json.dumps(full | {"sha256": _digest(full)}, indent=1).encode())
    last = max((int(name[1:]) for name in names(parent)), default=0)
    name = f"g{last + 1:06d}"
    folder.rename(parent / name)
    try:
        switch(parent, name)
    except OSError:
        shutil.rmtree(parent / name, ignore_errors=True)
        raise
    return name


def switch(parent: Path, name: str) -> None:
    """Make a generation the one in use, and remove all but it and the one that was."""
    others = [other for other in names(parent) if other != name]
    before = current_name(parent)
    write_atomically(parent / "CURRENT", f"{name}\n".encode())
    kept = before if before in others else others[-1] if others else None
    for old in others:
        if old != kept:
            shutil.rmtree(parent / old, ignore_errors=True)


def _read_meta(folder: Path) -> dict[str, Any]:
    """Raises OSError, ValueError, KeyError, TypeError."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if meta.pop("sha256", None) != _digest(meta):
        raise ValueError("meta.json is not what was written")
    if meta["format"] != FORMAT:
        raise ValueError(f"it is of format {meta['format']}")
    return meta


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _head_facts(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        return path.stat().st_size, hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
