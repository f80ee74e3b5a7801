"""Videos of published data sets with their classes: lists as their authors distribute them, and the files they name.

Read are the split files of HMDB51 (`CLASS_test_splitN.txt`) and UCF101 (`testlist0N.txt`), the lists of Text4Vis and
ActionCLIP (`path frames label`, split on the last two blanks), those of Kinetics (`file label`) and class folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidx.encoders._label_sets import published_names
from vidx.errors import InputError
from vidx.learn._dataset_lists import (
    NEEDED,
    SPLITS,
    WITH_SPLITS,
    Listed,
    Source,
    class_folders,
    full_rows,
    labelled,
    listed_of_k600,
    split_rows,
)
from vidx.learn._video_files import VideoFiles, check_found, files_below

DATASETS = ("hmdb51", "ucf101", "kinetics400", "kinetics600", "activitynet", "folder")
_WANTED = ("1", "2", "3", "each", "pooled", "full")
_IN_CLASS_FOLDERS = ("hmdb51", "ucf101", "kinetics400")


@dataclass(frozen=True)
class Item:
    """A video of a data set and its class."""

    name: str  # as the list has it
    path: Path | None  # None: there is no such file below the root
    label: int  # into Split.classes
    listed_frames: int | None  # how many frames the list says it has
    frames_per_s: float | None = None  # the list counts frames at this rate, not at the video's own


@dataclass(frozen=True)
class Split:
    """Videos to measure on, and all classes of the data set in the order of their numbers, videos of them or not."""

    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]


def read_splits(dataset: str, root: Path, lists: Path | None = None, wanted: str = "each") -> list[Split]:
    """Splits of one of DATASETS, with the videos below `root`; `lists` is a file or a folder, None: what is below root.

    `wanted` is a test split (1, 2, 3), `each` there is (of data sets without splits: all videos), `pooled` (the tests
    of all three, one after the other) or `full` (all videos, once). Raises InputError, naming file and line.
    """
    _check(dataset, lists, wanted)
    source = _source(dataset, root, lists)
    names = {"each": SPLITS, "pooled": SPLITS}.get(wanted, (wanted,))
    read = {name: listed for name in names if (listed := _listed(source, name)) is not None}
    if wanted == "each" and not read and (listed := _listed(source, "full")) is not None:
        read = {"full": listed}
    if not read or (wanted == "pooled" and len(read) < len(names)):
        missing = next(name for name in names if name not in read)
        what = f"split {missing}" if missing in SPLITS and dataset in WITH_SPLITS else "the videos"
        raise InputError(f"no list of {what} of {dataset} in {lists or root}", hint=f"needed: {NEEDED[dataset]}")
    splits = _found(source, read)
    if wanted != "pooled":
        return splits
    return [Split("pooled", splits[0].classes, tuple(item for split in splits for item in split.items))]


def _check(dataset: str, lists: Path | None, wanted: str) -> None:
    if dataset not in DATASETS:
        raise InputError(f"no data set {dataset!r}", hint=f"one of {', '.join(DATASETS)}")
    if wanted not in _WANTED:
        raise InputError(f"no split {wanted!r}", hint=f"one of {', '.join(_WANTED)}")
    if dataset not in WITH_SPLITS and wanted not in ("each", "full"):
        raise InputError(f"{dataset} has no test splits, so there is no {wanted!r}", hint="ask for `full`")
    if dataset == "kinetics600" and wanted in ("pooled", "full"):
        raise InputError(
            f"the splits of kinetics600 differ in their classes: {wanted!r} mixes them", hint="take `each`"
        )
    if lists is not None and dataset == "folder":
        raise InputError(f"folders of classes need no list, and {lists} is given", hint="leave the list out")
    if lists is not None and not lists.exists():
        raise InputError(f"no lists {lists}", hint="name a file or a folder of lists")


def _source(dataset: str, root: Path, lists: Path | None) -> Source:
    files = VideoFiles(root, prefix="v_" if dataset == "activitynet" else "", timed=dataset.startswith("kinetics"))
    if lists is None:
        return Source(dataset, tuple(root / name for name in files.others), None, True, files)
    if lists.is_dir():
        return Source(dataset, tuple(lists / name for name in files_below(lists)), None, False, files)
    return Source(dataset, (lists, *sorted(lists.parent.glob("*labels_split?.csv"))), lists, False, files)


def _found(source: Source, read: dict[str, Listed]) -> list[Split]:
    """The splits with the files of their videos. Raises InputError where there is not one."""
    rate = 1.0 if source.dataset == "activitynet" else None
    splits = []
    for split, (classes, rows) in read.items():
        items = [Item(row.name, source.files.find(row.name), row.label, row.frames, rate) for row in rows]
        splits.append(Split(split, classes, tuple(items)))
    items = [item for split in splits for item in split.items]
    check_found([item.name for item in items], [item.path for item in items], source.files.root)
    return splits


def _listed(source: Source, split: str) -> Listed | None:
    """Classes and videos of a test split, or of the whole data set. None: no list says which."""
    if source.dataset == "kinetics600":
        return listed_of_k600(source, split)
    if source.dataset == "folder":
        return class_folders(source) if split == "full" else None
    classes = tuple(published_names(source.dataset))
    if split != "full":
        rows = split_rows(source, split, classes)
        return None if rows is None else (classes, rows)
    if (rows := full_rows(source, classes)) is not None:
        return classes, rows
    if source.given is not None:
        return classes, labelled(source, source.given, classes)  # whatever its name, it was given as the list
    if source.dataset in _IN_CLASS_FOLDERS and source.in_root:
        return class_folders(source)
    return None
