"""Labelled videos to train classifiers on: splits that share no group, K shots of a class, and their frames.

Clips of UCF101 are called `v_CLASS_gNN_cMM.avi`: those of a group are cut from one film, so a group that is in two
parts would be learned by heart in one and found again in the other. Of files called otherwise each is its own group.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidx.errors import InputError
from vidx.indexer.frames import Look, Looked, looked_at
from vidx.learn._video_files import files_below
from vidx.learn.datasets import Item, read_splits

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of the groups of a class
MOST_BYTES = 4 * 2**30  # of decoded frames that are kept for the next epoch

_GROUP = re.compile(r"_(g\d+)_c\d+\.\w+$")
_PUBLISHED = re.compile(r"(^|/)testlist0?[123]\.txt$", re.IGNORECASE)


@dataclass(frozen=True)
class LabelledVideo:
    """A video file, its class by number, and which others it may not be parted from."""

    path: Path
    label: int
    group: str


@dataclass(frozen=True)
class Parts:
    """Videos to learn from, to choose the best weights by, and to measure on; labels count in `classes`."""

    classes: tuple[str, ...]
    training: tuple[LabelledVideo, ...]
    validation: tuple[LabelledVideo, ...]
    test: tuple[LabelledVideo, ...]

    def digest(self, root: Path) -> str:
        """A sha256 of which videos below `root` are in which part."""
        told = hashlib.sha256()
        for part in (self.training, self.validation, self.test):
            told.update(
                "\n".join([*(str(video.path.relative_to(root)) for video in part), "\n"]).encode("utf-8", "replace")
            )
        return told.hexdigest()


def read_parts(
    root: Path, *, lists: Path | None = None, split: str = "1", shots: int | None = None, seed: int = 0
) -> Parts:
    """The videos in the class folders below `root`, in three parts, and of the first `shots` of a class if given.

    Where there are lists of UCF101 (`testlist01.txt`, `trainlist01.txt`) in `lists` or below `root`, the test is that
    of `split`, and classes without videos are left out; else it is TEST_SHARE of the groups of each class. Validation
    is VALIDATION_SHARE of the groups that are left. Raises InputError, also for a class of too few groups.
    """
    if root.is_file():
        raise InputError(f"{root} is a file", hint="name a folder with a folder of videos for each class")
    classes, rest, test = _published(root, lists, split) if _has_lists(lists or root) else _folders(root, seed)
    training, validation = _parted(rest, VALIDATION_SHARE, classes, seed)
    if shots is not None:
        training = _some(training, shots, classes, seed)
    return Parts(classes, tuple(training), tuple(validation), tuple(test))


def _has_lists(folder: Path) -> bool:
    if folder.is_file():
        raise InputError(f"{folder} is a file", hint="name the folder of testlist01.txt and trainlist01.txt")
    return any(map(_PUBLISHED.search, files_below(folder)))


_Listed = tuple[tuple[str, ...], list[LabelledVideo], list[LabelledVideo]]  # classes, training and validation, test


def _published(root: Path, lists: Path | None, split: str) -> _Listed:
    [every] = read_splits("ucf101", root, lists, "full")
    [tested] = read_splits("ucf101", root, lists, split)
    there = sorted({item.label for item in every.items if item.path is not None})
    numbers = {label: number for number, label in enumerate(there)}
    names = {item.name for item in tested.items}
    rest = [item for item in every.items if item.name not in names]
    return tuple(every.classes[label] for label in there), _videos(rest, numbers), _videos(tested.items, numbers)


def _folders(root: Path, seed: int) -> _Listed:
    [every] = read_splits("folder", root, wanted="full")
    videos = _videos(every.items, {label: label for label in range(len(every.classes))})
    return every.classes, *_parted(videos, TEST_SHARE, every.classes, seed)


def _videos(items: Sequence[Item], numbers: dict[int, int]) -> list[LabelledVideo]:
    return [
        LabelledVideo(item.path, numbers[item.label], group_of(item.path)) for item in items if item.path is not None
    ]


def group_of(path: Path) -> str:
    """`g07` of `v_Archery_g07_c02.avi`, else the name of the file."""
    found = _GROUP.search(path.name)
    return found[1] if found else path.name


def _parted(
    videos: Sequence[LabelledVideo], share: float, classes: Sequence[str], seed: int
) -> tuple[list[LabelledVideo], list[LabelledVideo]]:
    """Those that stay and those of a share of the groups of each class, at least one, in the order given.

    Classes whose groups have the same names part with the same ones.
    """
    groups: dict[int, set[str]] = {label: set() for label in range(len(classes))}
    for video in videos:
        groups[video.label].add(video.group)
    apart = set()
    for label, names in groups.items():
        n_apart = max(1, round(share * len(names)))
        if len(names) <= n_apart:
            raise InputError(
                f"class {classes[label]!r} has too few videos for training, validation and test",
                hint="each part needs one of another film; add videos or take the class out",
            )
        drawn = sorted(names, key=lambda name: _drawn(seed, share, name))
        apart |= {(label, name) for name in drawn[:n_apart]}
    stay = [video for video in videos if (video.label, video.group) not in apart]
    return stay, [video for video in videos if (video.label, video.group) in apart]


def _some(videos: Sequence[LabelledVideo], shots: int, classes: Sequence[str], seed: int) -> list[LabelledVideo]:
    """So many videos of each class. Raises InputError."""
    of_class = defaultdict(list)
    for video in videos:
        of_class[video.label].append(video)
    for label, there in of_class.items():
        if len(there) < shots:
            raise InputError(
                f"class {classes[label]!r} has {len(there)} videos to train on, not {shots}", hint="take fewer --shots"
            )
    return [
        video
        for there in of_class.values()
        for video in sorted(there, key=lambda video: _drawn(seed, "shots", video.path.name))[:shots]
    ]


def _drawn(*what: object) -> str:
    """Orders names at random, each by itself: what else is there changes nothing."""
    return hashlib.sha256(" ".join(map(str, what)).encode("utf-8", "replace")).hexdigest()


def shuffled(n: int, seed: int, position: int) -> tuple[int, int]:
    """The epoch that a position in an endless series of n items is in, and the item: each once in an epoch."""
    epoch, place = divmod(position, n)
    return epoch, int(np.random.default_rng([seed, epoch]).permutation(n)[place])


class Reader:
    """Frames of videos in a known order, decoded ahead of need; the first ones are kept, as many as memory may hold.

    `order` gives the number of the video at each position, None behind the last one. Positions may be asked for in any
    order; quick are those that `after` gives, the next one where it is not given.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        look: Look,
        order: Callable[[int], int | None],
        most_bytes: int = MOST_BYTES,
        after: Callable[[int], int] = lambda position: position + 1,
    ) -> None:
        self._videos, self._look, self._order, self._after = videos, look, order, after
        self._left_bytes = most_bytes
        self._held: dict[int, Looked] = {}
        self._coming: deque[int] = deque()  # positions that were asked for and not yet taken
        self._stream: Iterator[Looked] = iter(())
        self._lock, self._is_closed = threading.Lock(), False
        self.failed: dict[Path, str] = {}

    def at(self, position: int) -> Looked:
        """The video at a position; one that can't be decoded has no views, and a line in `failed`."""
        with self._lock:
            if self._is_closed:
                raise ValueError("closed")
            return self._at(position)

    def _at(self, position: int) -> Looked:
        number = self._order(position)
        if number is None:
            raise IndexError(position)
        if not self._coming or self._coming[0] != position:
            if number in self._held:
                return self._held[number]
            self._coming.clear()
            self._stream = looked_at(self._asked(position))  # which ends the processes of the one before
        looked = next(self._stream)
        self._coming.popleft()
        if looked.reason is not None:
            self.failed[self._videos[number].path] = looked.reason
        n_bytes = sum(view.nbytes for view in looked.views)
        if number not in self._held and n_bytes <= self._left_bytes:
            self._held[number] = looked
            self._left_bytes -= n_bytes
        return looked

    def _asked(self, first: int) -> Iterator[tuple[Path, tuple[Look]]]:
        n_held = 0  # one after the other; where it is all of them, nothing is left to decode
        position = first
        while (number := self._order(position)) is not None and n_held <= 2 * len(self._videos):
            n_held = n_held + 1 if number in self._held else 0
            if not n_held:
                self._coming.append(position)
                yield self._videos[number].path, (self._look,)
            position = self._after(position)

    def close(self) -> None:
        """End the processes that decode; a batch that is made ahead when training is broken off comes to nothing."""
        with self._lock:
            self._is_closed, self._stream = True, iter(())


def in_batches(
    reader: Reader, videos: Sequence[LabelledVideo], size: int
) -> Iterator[tuple[np.ndarray, list[LabelledVideo]]]:
    """Clips uint8 (B, T, side, side, 3) and their videos, those left out that can't be decoded, B at most `size`."""
    for first in range(0, len(videos), size):
        looked = [(reader.at(at), videos[at]) for at in range(first, min(first + size, len(videos)))]
        if of_videos := [video for seen, video in looked if seen.views]:
            yield np.concatenate([seen.views[0] for seen, _ in looked if seen.views]), of_videos
