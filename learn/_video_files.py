"""What lists of videos and pairs share: the text of a list, and the file below a root that a name in it means."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vidx.errors import InputError
from vidx.schema.files import read_text

_VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".ogv", ".gif")
)
# How files and folders of lists name the data set they are of.
_SHORT_NAMES = {
    "hmdb51": ("hmdb",),
    "ucf101": ("ucf",),
    "kinetics400": ("k400", "kinetics400", "kinetics_400", "kinetics_video", "kinetics_rgb"),
    "kinetics600": ("k600", "kinetics600", "kinetics_600"),
    "activitynet": ("anet", "activitynet"),
}
_TIMES = re.compile(r"_\d{6}_\d{6}$")  # from and to which second of its source a video of Kinetics is


class VideoFiles:
    """The video files below a folder, which is walked once: hidden ones left out, links to folders not followed.

    `prefix` is what names of files may have before the name in a list. `timed`: names may end in the times of Kinetics
    (`_000055_000065`) in the list alone, or in the files alone. Raises InputError where the root is no folder.
    """

    def __init__(self, root: Path, *, prefix: str = "", timed: bool = False) -> None:
        if not root.is_dir():
            raise InputError(f"no folder {root}", hint="name the folder that holds the videos")
        self.root = root
        self._prefix, self._timed = prefix, timed
        every = list(files_below(root))
        self.paths = [path for path in every if posixpath.splitext(path)[1].lower() in _VIDEO_SUFFIXES]
        self.others = [path for path in every if posixpath.splitext(path)[1].lower() not in _VIDEO_SUFFIXES]
        self._by_key: dict[tuple[str, str], list[str]] = {}
        for path in self.paths:
            stem = _without_suffix(path)
            name = posixpath.basename(stem)
            keys = [("path", path), ("stem", stem), ("name", name)]
            if timed:
                keys.append(("source", _TIMES.sub("", name)))
            for key in _in_any_case(keys):
                self._by_key.setdefault(key, []).append(path)
        self._name_of: dict[str, str] = {}

    def find(self, name: str) -> Path | None:
        """The file that a list calls `name`, a relative path or file name with or without its extension; None: none is.

        The closest fit counts: of the whole path, then of the path without extension, then of the file name; letters'
        case last. Raises InputError where two files fit as well, or one file fits two names.
        """
        for key in self._keys(name):
            if not (fitting := self._by_key.get(key)):
                continue
            if len(fitting) > 1 and len({os.path.realpath(self.root / path) for path in fitting}) > 1:
                raise InputError(
                    f"{name!r} may be {self.root / fitting[0]} or {self.root / fitting[1]}",
                    hint="move one of them out of the folder, or give the list whole paths",
                )
            if (other := self._name_of.setdefault(fitting[0], name)) != name:
                raise InputError(
                    f"{other!r} and {name!r} are two videos, and both could be {self.root / fitting[0]} alone",
                    hint="lay the files out as the list names them",
                )
            return self.root / fitting[0]
        return None

    def _keys(self, name: str) -> list[tuple[str, str]]:
        """What to look for, the closest fit first."""
        path = posixpath.normpath(name)
        stem = _without_suffix(path)
        base = posixpath.basename(stem)
        keys = [("path", path), ("stem", stem), ("name", base)]
        if self._prefix:
            keys.append(("name", self._prefix + base))
        if self._timed:
            source = _TIMES.sub("", base)
            keys.append(("source", base) if source == base else ("name", source))
        return _in_any_case(keys)


def files_below(root: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative to it with `/` between parts, in a stable order; none hidden."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(root).as_posix()
        for name in sorted(names):
            if not name.startswith("."):
                yield name if relative == "." else f"{relative}/{name}"


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not blank, stripped, after where it is (`FILE, line N`). Raises InputError."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line := line.strip():
            yield f"{path}, line {number}", line


def matching(dataset: str, lists: Sequence[Path], ending: str) -> dict[str, Path]:
    """Lists whose names end so, by what its groups match; those of another data set's name never, of its own first.

    Raises InputError where two are as good.
    """
    best: dict[str, tuple[bool, Path]] = {}
    for path in lists:
        found = re.search(f"{ending}$", path.name, re.IGNORECASE)
        owners = _owners(path)
        if found is None or (owners and dataset not in owners):
            continue
        key, owned = "/".join(found.groups()), dataset in owners
        before = best.get(key)
        if before is not None and before[0] == owned:
            raise InputError(
                f"both {before[1]} and {path} may be meant", hint="name the folder or file of lists to take"
            )
        if before is None or owned:
            best[key] = (owned, path)
    return {key: path for key, (_, path) in best.items()}


def _owners(path: Path) -> list[str]:
    """Which data sets a list is of by its name, else by that of its folder."""
    for name in (path.name.lower(), path.parent.name.lower()):
        if owners := [dataset for dataset, shorts in _SHORT_NAMES.items() if any(short in name for short in shorts)]:
            return owners
    return []


def labelled_lines(path: Path) -> Iterator[tuple[str, str, int, int | None]]:
    """Where a line is, its video, label and frames, of a list of `path frames label` or, as line 1 says, `path label`.

    Raises InputError, naming the line.
    """
    counted = None
    for where, line in lines_of(path):
        *before, label = line.rsplit(" ", 2)
        frames = int(before[1]) if len(before) == 2 and before[1].isdecimal() else None
        counted = frames is not None if counted is None else counted
        name = before[0] if before and counted else " ".join(before)
        if not name or not label.isdecimal() or counted != (frames is not None):
            form = "a path, a number of frames and a label" if counted else "a path and a label"
            raise InputError(f"{where}: not {form}", hint="mend the line")
        yield where, name, int(label), frames


def check_found(names: Sequence[str], paths: Sequence[Path | None], root: Path) -> None:
    """Raises InputError where there are no names, or none of the files."""
    if not names:
        raise InputError(f"the list names no video of {root}", hint="name another list")
    if not any(paths):
        raise InputError(
            f"none of the {len(names)} videos of the list is below {root}",
            hint=f"name the folder that holds them; one is called {names[0]}",
        )


def _in_any_case(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return keys + [(f"{kind} in any case", key.lower()) for kind, key in keys]


def _without_suffix(path: str) -> str:
    stem, suffix = posixpath.splitext(path)
    return stem if suffix.lower() in _VIDEO_SUFFIXES else path
