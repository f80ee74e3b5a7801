"""Videos to train classifiers on: parts that share no group, shots of a class, frames in any order, random views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vidx.errors import InputError
from vidx.indexer.frames import Look
from vidx.indexer.sampling import Sampling
from vidx.schema.records import Preprocess
from vidx.train.augment import View, random_clip, random_crop
from vidx.train.footage import LabelledVideo, Parts, Reader, group_of, in_batches, read_parts, shuffled

CLASSES = ("Archery", "Bowling", "Diving")
GROUPS, CLIPS = 25, 4


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Class folders with files named as those of UCF101; to split them nothing has to be in them."""
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for group in range(1, GROUPS + 1):
            for clip in range(1, CLIPS + 1):
                (tmp_path / name / f"v_{name}_g{group:02}_c{clip:02}.avi").touch()
    return tmp_path


def write_lists(folder: Path, n_test_groups: int = 7) -> None:
    """trainlist01 and testlist01 as published: the first groups are the test."""
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.avi"))]
    tests = [path for path in paths if int(group_of(Path(path))[1:]) <= n_test_groups]
    (folder / "testlist01.txt").write_text("".join(f"{path}\n" for path in tests))
    numbers = {"Archery": 3, "Bowling": 16, "Diving": 26}
    lines = [f"{path} {numbers[path.split('/')[0]]}\n" for path in paths if path not in tests]
    (folder / "trainlist01.txt").write_text("".join(lines))


def groups(videos: tuple[LabelledVideo, ...]) -> set[tuple[int, str]]:
    return {(video.label, video.group) for video in videos}


def everything(parts: Parts) -> list[Path]:
    return [video.path for part in (parts.training, parts.validation, parts.test) for video in part]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_parts_and_every_video_is_in_one(ucf: Path, seed: int) -> None:
    parts = read_parts(ucf, seed=seed)
    training, validation, test = (groups(part) for part in (parts.training, parts.validation, parts.test))
    assert not training & validation
    assert not training & test
    assert not validation & test
    # All classes have the groups g01 to g25, so that none of these names is in two parts either.
    assert not {name for _, name in training} & {name for _, name in validation | test}
    assert sorted(everything(parts)) == sorted(ucf.glob("*/*.avi"))
    assert (len(test), len(validation), len(training)) == (3 * 5, 3 * 2, 3 * 18)
    assert all(parts.classes[video.label] == video.path.parent.name for video in parts.training)


def test_a_split_hangs_on_its_seed_alone(ucf: Path) -> None:
    assert read_parts(ucf, seed=3) == read_parts(ucf, seed=3)
    assert groups(read_parts(ucf, seed=3).test) != groups(read_parts(ucf, seed=4).test)
    before = groups(read_parts(ucf, seed=3).test)
    for path in (ucf / "Diving").iterdir():
        path.unlink()
    assert groups(read_parts(ucf, seed=3).test) == {(label, name) for label, name in before if label < 2}


def test_files_of_other_names_are_groups_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.mp4").touch()
    parts = read_parts(tmp_path)
    counts = [Counter(video.label for video in part) for part in (parts.training, parts.validation, parts.test)]
    assert counts == [{0: 7, 1: 7}, {0: 1, 1: 1}, {0: 2, 1: 2}]


def test_published_lists_say_which_videos_are_the_test(ucf: Path) -> None:
    write_lists(ucf)
    parts = read_parts(ucf)
    assert parts.classes == CLASSES  # of the 101 those there are, numbered anew
    assert {name for _, name in groups(parts.test)} == {f"g{number:02}" for number in range(1, 8)}
    assert len(parts.test) == 3 * 7 * CLIPS
    assert not groups(parts.training) & groups(parts.validation)
    assert not groups(parts.test) & (groups(parts.training) | groups(parts.validation))
    assert sorted(everything(parts)) == sorted(ucf.glob("*/*.avi"))
    with pytest.raises(InputError, match="no list of split 2"):
        read_parts(ucf, split="2")


@pytest.mark.parametrize("shots", [1, 8])
@pytest.mark.parametrize("published", [False, True])
def test_k_shots_are_k_training_videos_of_each_class(ucf: Path, shots: int, published: bool) -> None:
    if published:
        write_lists(ucf)
    few, all_of_them = read_parts(ucf, shots=shots, seed=2), read_parts(ucf, seed=2)
    assert Counter(video.label for video in few.training) == {0: shots, 1: shots, 2: shots}
    assert set(few.training) <= set(all_of_them.training)
    assert (few.validation, few.test) == (all_of_them.validation, all_of_them.test)
    assert few == read_parts(ucf, shots=shots, seed=2)
    assert few.training != read_parts(ucf, shots=shots, seed=5).training


def test_what_is_too_little_to_split_is_told(ucf: Path) -> None:
    with pytest.raises(InputError, match="'Archery' has 72 videos to train on, not 100"):
        read_parts(ucf, shots=100)
    (ucf / "Eating").mkdir()
    for group in (1, 2):
        (ucf / "Eating" / f"v_Eating_g{group:02}_c01.avi").touch()
    with pytest.raises(InputError, match="'Eating' has too few videos"):
        read_parts(ucf)
    with pytest.raises(InputError, match="no folder"):
        read_parts(ucf / "nothing")


def test_an_epoch_has_each_item_once_in_an_order_of_its_own() -> None:
    epochs = [[shuffled(10, 7, 10 * epoch + place) for place in range(10)] for epoch in range(2)]
    assert [epoch for series in epochs for epoch, _ in series] == [0] * 10 + [1] * 10
    orders = [[item for _, item in series] for series in epochs]
    assert [sorted(order) for order in orders] == [list(range(10))] * 2
    assert orders[0] != orders[1]


@pytest.mark.slow  # decodes in processes of its own
def test_a_reader_gives_each_position_its_video_whatever_is_kept(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    levels = [20, 90, 160, 230]
    videos = []
    for number, level in enumerate(levels):
        path = tmp_path / f"{number}.mp4"
        make_video(path, n_frames=6, draw=lambda _, size, level=level: np.full((size[1], size[0], 3), level, np.uint8))
        videos.append(LabelledVideo(path, number, path.name))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos.append(LabelledVideo(tmp_path / "broken.mp4", 4, "broken.mp4"))
    look = Look(Sampling("starts", 2), Preprocess(16, 16))
    for most_bytes in (0, 2 * 2 * 16 * 16 * 3, 10**6):  # nothing, two videos, all
        reader = Reader(videos, look, lambda at: shuffled(len(videos), 1, at)[1], most_bytes)
        asked = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 12, 13, 14]
        for position in asked:
            looked, number = reader.at(position), shuffled(len(videos), 1, position)[1]
            if number == 4:
                assert looked.views == ()
            else:
                assert looked.views[0].mean() == pytest.approx(levels[number], abs=3), (most_bytes, position)
        assert list(reader.failed) == [tmp_path / "broken.mp4"]
        reader.close()
    in_order = Reader(videos, look, lambda at: at if at < len(videos) else None)
    for _ in range(2):  # the second time from memory
        batches = list(in_batches(in_order, videos, 3))
        assert [[video.label for video in of_videos] for _, of_videos in batches] == [[0, 1, 2], [3]]
        assert [pictures.shape for pictures, _ in batches] == [(3, 2, 16, 16, 3), (1, 2, 16, 16, 3)]
    in_order.close()


def test_a_random_clip_goes_on_without_a_jump() -> None:
    indices = np.array([[0, 4, 8, 12, 16, 20], [10, 14, 18, 22, 1, 5]])  # the second begins the video again
    stretches = indices[..., None]
    random = np.random.default_rng(0)
    seen = {tuple(random_clip(stretches, indices, 4, random)[:, 0].tolist()) for _ in range(200)}
    assert seen == {(0, 4, 8, 12), (4, 8, 12, 16), (8, 12, 16, 20), (10, 14, 18, 22)}
    short = np.array([[0, 4, 0, 4, 0, 4]])  # of a video shorter than a clip
    assert random_clip(short[..., None], short, 4, random)[:, 0].tolist() == [0, 4, 0, 4]


@pytest.mark.parametrize("shape", [16 / 9, 1.0, 3 / 4])
def test_a_random_crop_gives_squeezed_pictures_their_shape_back(shape: float) -> None:
    """A slope of grey along each side: a crop of 224 shows 224/320 to 224/256 of the short side, less of the long."""
    side = 256
    slope = np.linspace(0, 255, side).astype(np.uint8)
    pictures = np.stack([np.tile(slope, (side, 1)), np.tile(slope[:, None], (1, side)), np.zeros((side, side))], -1)
    random = np.random.default_rng(1)
    starts = []
    for _ in range(50):
        crop = random_crop(pictures.astype(np.uint8)[None], shape, 224, random)
        assert crop.shape == (1, 224, 224, 3)
        assert crop.dtype == np.uint8
        across = (int(crop[0, 0, -1, 0]) - int(crop[0, 0, 0, 0])) / 255
        down = (int(crop[0, -1, 0, 1]) - int(crop[0, 0, 0, 1])) / 255
        assert across * max(1, shape) == pytest.approx(down * max(1, 1 / shape), abs=0.03)
        assert 224 / 320 - 0.03 < max(across, down) < 224 / 256 + 0.03
        starts.append(int(crop[0, 0, 0, 0]))
    assert np.ptp(starts) > 20


def test_clips_are_as_far_apart_as_the_view_says() -> None:
    view = View(16, 4 / 30, 224, filter="squash-bilinear", crops=True, mirrors=True)
    assert view.look.sampling == Sampling("strided", 16, 1, frames_per_s=30.0)
    assert view.training_look.preprocess.crop_px == 256
    plain = View(8, 15 / 25, 224, filter="bilinear", crops=False, mirrors=False)
    assert 4 / plain.look.sampling.frames_per_s == pytest.approx(0.6)
    assert plain.training_look.preprocess == plain.look.preprocess == Preprocess(224, 224, "bilinear")


def test_a_file_in_the_place_of_the_folder_of_classes_is_told(tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("")
    with pytest.raises(InputError, match="clips is a file") as caught:
        read_parts(tmp_path / "clips")
    assert "for each class" in caught.value.hint
