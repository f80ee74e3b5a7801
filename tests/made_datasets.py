"""Small data sets of rendered clips, in the folders, file names and split files of the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from vidx.encoders._label_sets import published_names

HMDB51_CLASSES = ("brush_hair", "cartwheel", "catch", "chew", "clap")
UCF101_CLASSES = ("ApplyEyeMakeup", "ApplyLipstick", "Archery", "HandstandPushups", "JumpRope")
_SIZE, _SQUARE = (64, 48), 14


def make_hmdb51(root: Path, classes: Sequence[str] = HMDB51_CLASSES, per_class: int = 8) -> dict[str, int]:
    """Clips and three splits like HMDB51's; how many frames each `class/file` has.

    Tests of neighbouring splits share a video, and some videos are in neither part of a split (0).
    """
    frames = {}
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for number, name in enumerate(classes):
        titles = ("Brushing_my_hair_-_December_2008", "Me_&_you;#1!_(part_2)")
        files = [f"{titles[n % 2]}_{name}_u_nm_np1_ba_goo_{n}.avi" for n in range(per_class)]
        for n, file in enumerate(files):
            frames[f"{name}/{file}"] = _render(root / name / file, number, n)
        for split in (1, 2, 3):
            first = 2 * (split - 1)
            uses = {(first + n) % per_class: 2 for n in range(min(3, per_class))}
            uses.setdefault((first - 1) % per_class, 0)
            lines = [f"{file} {uses.get(n, 1)} \n" for n, file in enumerate(files)]  # they do end in a blank
            (lists / f"{name}_test_split{split}.txt").write_text("".join(lines), encoding="utf-8")
    return frames


def make_ucf101(root: Path, classes: Sequence[str] = UCF101_CLASSES, per_class: int = 8) -> dict[str, int]:
    """Clips and three splits like UCF101's, whose tests are groups 1 to 7, 8 to 14, 15 to 21; frames as make_hmdb51."""
    frames: dict[str, int] = {}
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    names = published_names("ucf101")
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\r\n" for n, name in enumerate(names, 1)), encoding="utf-8")
    groups: dict[str, int] = {}
    for number, name in enumerate(classes):
        for n in range(per_class):
            group, shown = 1 + 7 * (n // 2 % 4), name.replace("Handstand", "HandStand")
            path = f"{name}/v_{shown}_g{group:02}_c{1 + n % 2 + 2 * (n // 8):02}.avi"
            frames[path], groups[path] = _render(root / path, number, n), group
    for split in (1, 2, 3):
        tests = [path for path, group in groups.items() if (group - 1) // 7 == split - 1]
        rest = [f"{path} {names.index(path.split('/')[0]) + 1}" for path in groups if path not in tests]
        (lists / f"testlist0{split}.txt").write_text("".join(f"{path}\r\n" for path in tests), encoding="utf-8")
        (lists / f"trainlist0{split}.txt").write_text("".join(f"{line}\r\n" for line in rest), encoding="utf-8")
    return frames


def make_text4vis_lists(folder: Path, dataset: str, tests: Sequence[Sequence[str]], frames: dict[str, int]) -> None:
    """Lists of Text4Vis for a made hmdb51 or ucf101: the test of each split, and all videos of `frames`."""
    names = [name.replace(" ", "_") for name in published_names(dataset)]
    folder.mkdir(parents=True)
    files = {f"val_rgb_split_{n}.txt": test for n, test in enumerate(tests, 1)}
    files[f"{dataset.rstrip('01235')}_full_for_zeroshot.txt"] = list(frames)
    for file, paths in files.items():
        lines = [f"{path[:-4]} {frames[path]} {names.index(path.split('/')[0])}\n" for path in paths]
        (folder / file).write_text("".join(lines), encoding="utf-8")


def _render(path: Path, label: int, number: int) -> int:
    """A square that moves: its colour and direction tell the class, start and length the clip. Gives the frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_frames = 3 + (7 * number + 11 * label) % 38
    rng = np.random.default_rng([label, number])
    colour = np.random.default_rng(label).integers(80, 256, 3)
    angle = 2 * np.pi * label / 5
    start = rng.uniform(0, (_SIZE[0] - _SQUARE, _SIZE[1] - _SQUARE))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)  # as the originals are
        stream.width, stream.height, stream.pix_fmt = *_SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in range(n_frames):
            left, top = (start + 2 * frame * np.array([np.cos(angle), np.sin(angle)])).astype(int)
            left, top = left % (_SIZE[0] - _SQUARE), top % (_SIZE[1] - _SQUARE)
            picture = np.full((_SIZE[1], _SIZE[0], 3), 30, np.uint8)
            picture[top : top + _SQUARE, left : left + _SQUARE] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return n_frames
