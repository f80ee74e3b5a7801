"""The lists of videos that published data sets are distributed with: one reader for each form they have."""

from __future__ import annotations

import csv
import io
import posixpath
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vidx.encoders._label_sets import published_names
from vidx.errors import InputError
from vidx.learn._video_files import VideoFiles, labelled_lines, lines_of, matching
from vidx.schema.files import read_text

SPLITS = ("1", "2", "3")
WITH_SPLITS = ("hmdb51", "ucf101", "kinetics600")
_CLASS_ABOVE_FILE = ("hmdb51", "ucf101")  # whose lists have the class as the last folder of a path
_OWN_CLASSES = "take `--dataset folder` for folders of other classes"

NEEDED = {
    "hmdb51": "CLASS_test_split1.txt, val_rgb_split_1.txt or hmdb_full_for_zeroshot.txt",
    "ucf101": "testlist01.txt (for all videos, trainlist01.txt too), val_rgb_split_1.txt or ucf_full_for_zeroshot.txt",
    "kinetics400": "kinetics_video_val_se320.txt",
    "kinetics600": "test_split1_exist.txt with labels_split1.csv, and so on to 3",
    "folder": "a folder for each class, with its videos in it",
    "activitynet": "anet_full_for_zeroshot.txt or anet_val_video_fps1.txt",
}

# How the names of lists end; what a group matches is the split.
_HMDB_CLASS = r"(.+)_test_split([123])\.txt"
_UCF_TEST, _UCF_TRAIN, _UCF_INDEX = r"testlist0?([123])\.txt", r"trainlist0?([123])\.txt", r"classInd\.txt"
_SPLIT_LIST = r"val_rgb_split_?([123])\.txt"
_K600_LISTS = r"test_split([123])_exist\.txt", r"labels_split([123])\.csv"
_FULL = r"full_for_zeroshot\.txt"
_VAL, _TRAIN = r"val_video_fps1\.txt", r"train_video_fps1\.txt"
# All of one entry make the whole data set; the first that is there counts.
_FULL_LISTS: dict[str, list[tuple[str, ...]]] = {
    "hmdb51": [(_FULL,)],
    "ucf101": [(_FULL,)],
    "kinetics400": [(r"kinetics_video_val.*\.txt",), (r"kinetics_rgb_val.*\.txt",)],
    "activitynet": [(_FULL,), (_VAL, _TRAIN), (_VAL,)],
}


class Row(NamedTuple):
    """A video of a list: its name there, its class, and how many frames the list says it has."""

    name: str
    label: int
    frames: int | None = None


Listed = tuple[tuple[str, ...], list[Row]]  # classes and videos


class Source(NamedTuple):
    """What is read: lists of a data set, one file of them where the user named one, and the videos."""

    dataset: str
    lists: tuple[Path, ...]
    given: Path | None
    in_root: bool  # nobody said where the lists are
    files: VideoFiles


def class_folders(source: Source) -> Listed | None:
    """The videos of a folder for each class, called as the data set or, for `folder`, as anyone calls it."""
    inside = [path for path in source.files.paths if "/" in path]
    folders = tuple(sorted({path.partition("/")[0] for path in inside}))
    if source.dataset == "folder":
        classes, number = folders, {folder: label for label, folder in enumerate(folders)}
    else:
        classes = tuple(published_names(source.dataset))
        number = {folder: _number(source, classes, folder, str(source.files.root)) for folder in folders}
    rows = [Row(path, number[path.partition("/")[0]]) for path in inside]
    return (classes, sorted(rows, key=lambda row: row.label)) if rows else None


def listed_of_k600(source: Source, split: str) -> Listed | None:
    """A zero-shot split: a file of videos, and one of the classes that are only its own."""
    tests, names = (matching(source.dataset, source.lists, ending) for ending in _K600_LISTS)
    if split not in tests:
        return None
    if split not in names:
        raise InputError(f"{tests[split]}: its classes are missing", hint=f"needed: {NEEDED[source.dataset]}")
    known = {_key(name) for name in published_names("kinetics600")}
    classes: list[str] = []
    rows = csv.reader(io.StringIO(read_text(names[split]), newline=""))
    for row in rows:
        where = f"{names[split]}, line {rows.line_num}"
        if not row or row == ["id", "name"]:
            continue
        if len(row) != 2 or row[0] != str(len(classes)):
            raise InputError(f"{where}: not number {len(classes)} and its class", hint="mend the line")
        if _key(row[1]) not in known:
            raise InputError(f"{where}: kinetics600 has no class {row[1]!r}", hint=_OWN_CLASSES)
        classes.append(row[1])
    return tuple(classes), labelled(source, tests[split], tuple(classes))


def split_rows(source: Source, split: str, classes: tuple[str, ...]) -> list[Row] | None:
    """The videos of a test split. None: no list says which."""
    if source.dataset == "hmdb51" and (rows := _hmdb_rows(source, split, classes, "2")):
        return rows
    if source.dataset == "ucf101" and (path := matching(source.dataset, source.lists, _UCF_TEST).get(split)):
        return _ucf_rows(source, path, classes)
    path = matching(source.dataset, source.lists, _SPLIT_LIST).get(split) if source.dataset in WITH_SPLITS else None
    return labelled(source, path, classes) if path else None


def full_rows(source: Source, classes: tuple[str, ...]) -> list[Row] | None:
    """All videos: of a split's training, test and unused ones, or of the lists made for it."""
    for split in SPLITS if source.dataset == "hmdb51" else ():
        if rows := _hmdb_rows(source, split, classes, "012"):
            return rows
    for split in SPLITS if source.dataset == "ucf101" else ():
        parts = [matching(source.dataset, source.lists, ending).get(split) for ending in (_UCF_TRAIN, _UCF_TEST)]
        if all(parts):
            return [row for path in parts if path for row in _ucf_rows(source, path, classes)]
    for endings in _FULL_LISTS[source.dataset]:
        paths = [path for ending in endings if (path := matching(source.dataset, source.lists, ending).get(""))]
        if len(paths) == len(endings):
            rows_of = {row.name: row for path in paths for row in labelled(source, path, classes)}
            return list(rows_of.values())
    return None


def _hmdb_rows(source: Source, split: str, classes: tuple[str, ...], uses: str) -> list[Row]:
    """Videos of HMDB51's own files, one for each class; of which use: 0 none, 1 training, 2 test."""
    rows = []
    for key, path in matching(source.dataset, source.lists, _HMDB_CLASS).items():
        folder, _, of = key.rpartition("/")
        if of != split:
            continue
        label = _number(source, classes, folder, str(path))
        for where, line in lines_of(path):
            name, _, use = line.rpartition(" ")
            if not name or use not in ("0", "1", "2"):
                raise InputError(f"{where}: not a file and 0, 1 or 2", hint="mend the line")
            if use in uses:
                rows.append(Row(f"{folder}/{name.strip()}", label))
    return sorted(rows, key=lambda row: row.label)


def _ucf_rows(source: Source, path: Path, classes: tuple[str, ...]) -> list[Row]:
    """Videos of UCF101's own files: `Class/file`, and for training the number of the class, from 1."""
    for index in matching(source.dataset, source.lists, _UCF_INDEX).values():
        for where, line in lines_of(index):
            number, _, name = line.partition(" ")
            _ucf_label(source, classes, where, name, number)
    rows = []
    for where, line in lines_of(path):
        name, _, number = line.partition(" ")
        folder, _, file = name.rpartition("/")
        if not folder or not file:
            raise InputError(f"{where}: not CLASS/FILE", hint="mend the line")
        rows.append(Row(name, _ucf_label(source, classes, where, folder, number)))
    return rows


def _ucf_label(source: Source, classes: tuple[str, ...], where: str, name: str, number: str) -> int:
    label = _number(source, classes, name, where)
    if number and number.strip() != str(label + 1):
        raise InputError(
            f"{where}: {name} is class {label + 1} of {source.dataset}, not {number}", hint="mend the line"
        )
    return label


def labelled(source: Source, path: Path, classes: tuple[str, ...]) -> list[Row]:
    """Videos of a list that numbers classes, which have to be those of the folders where a data set has them."""
    rows = []
    for where, name, label, frames in labelled_lines(path):
        if label >= len(classes):
            raise InputError(f"{where}: {source.dataset} has no class of number {label}", hint=_OWN_CLASSES)
        folder = posixpath.basename(posixpath.dirname(name))
        if source.dataset in _CLASS_ABOVE_FILE and folder:
            known = _number(source, classes, folder, where)
            if known != label:
                raise InputError(f"{where}: {folder} is class {known} of {source.dataset}, not {label}", hint="mend it")
        rows.append(Row(name, label, frames))
    return rows


def _number(source: Source, classes: tuple[str, ...], name: str, where: str) -> int:
    """The number of a class whose name may have underscores for blanks, and other capitals. Raises InputError."""
    if (number := _numbers(classes).get(_key(name))) is None:
        raise InputError(f"{where}: {source.dataset} has no class {name!r}", hint=_OWN_CLASSES)
    return number


@cache
def _numbers(classes: tuple[str, ...]) -> dict[str, int]:
    return {_key(name): number for number, name in enumerate(classes)}


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
