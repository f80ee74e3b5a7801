"""Lists of published data sets: which videos, classes and files they name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.encoders._label_sets import published_names
from vidx.errors import InputError
from vidx.learn._video_files import VideoFiles
from vidx.learn.datasets import Split, read_splits
from vidx.tests.made_datasets import make_hmdb51, make_text4vis_lists, make_ucf101

LISTS = Path(__file__).parents[2] / "shared" / "lists"
PUBLISHED = [
    ("hmdb51", "hmdb51_hmdb_full_for_zeroshot.txt", "full", 6766),
    *[("hmdb51", f"hmdb51_val_rgb_split_{n}.txt", str(n), 1530) for n in (1, 2, 3)],
    ("ucf101", "ucf101_ucf_full_for_zeroshot.txt", "full", 13320),
    *[("ucf101", f"ucf101_val_rgb_split_{n}.txt", str(n), size) for n, size in ((1, 3783), (2, 3734), (3, 3696))],
    ("kinetics400", "k400_kinetics_video_val_se320.txt", "full", 19796),
    ("kinetics600", "k600_test_split1_exist.txt", "1", 14119),
    ("activitynet", "anet_anet_val_video_fps1.txt", "full", 4926),
]


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def names_of(split: Split) -> list[str]:
    return [item.name for item in split.items]


@pytest.mark.skipif(not LISTS.is_dir(), reason="the published lists are not beside this repository")
@pytest.mark.parametrize(("dataset", "file", "wanted", "size"), PUBLISHED)
def test_a_published_list_is_read_whole(dataset: str, file: str, wanted: str, size: int, tmp_path: Path) -> None:
    lines = (LISTS / f"text4vis_{file}").read_bytes().decode().splitlines()
    fields = [line.split(" ") for line in lines if line]
    for name in {field[0] for field in fields}:
        touch(tmp_path, name if name.endswith(".mp4") else f"{name}.avi")
    (split,) = read_splits(dataset, tmp_path, LISTS, wanted)
    assert len(split.items) == size == len(fields)
    assert names_of(split) == [field[0] for field in fields]
    assert [item.label for item in split.items] == [int(field[-1]) for field in fields]
    assert [item.listed_frames for item in split.items] == [int(f[1]) if len(f) == 3 else None for f in fields]
    assert all(item.path is not None and item.path.is_file() for item in split.items)
    assert {item.frames_per_s for item in split.items} == {1.0 if dataset == "activitynet" else None}
    assert len(split.classes) == (160 if dataset == "kinetics600" else len(published_names(dataset)))


@pytest.fixture(scope="module")
def hmdb(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("hmdb") / "videos"
    return root, make_hmdb51(root)


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("ucf") / "videos"
    return root, make_ucf101(root)


def test_made_clips_have_as_many_frames_as_said(hmdb: tuple[Path, dict[str, int]]) -> None:
    root, frames = hmdb
    assert len(frames) == 40
    assert 3 <= min(frames.values()) < max(frames.values()) <= 40
    for name in list(frames)[::7]:
        with av.open(str(root / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == frames[name]


def test_hmdb51_files_say_which_videos_are_of_a_test(hmdb: tuple[Path, dict[str, int]]) -> None:
    root, frames = hmdb
    splits = read_splits("hmdb51", root)
    assert [split.name for split in splits] == ["1", "2", "3"]
    for split in splits:
        expected = set()
        for path in root.glob(f"*/*_test_split{split.name}.txt"):
            folder = path.name[: -len("_test_split1.txt")]
            expected |= {
                f"{folder}/{line.split()[0]}" for line in path.read_text().splitlines() if line.split()[1] == "2"
            }
        assert set(names_of(split)) == expected
        assert len(split.items) == 15
        assert split.classes == tuple(published_names("hmdb51"))
        for item in split.items:
            assert split.classes[item.label] == item.name.split("/")[0].replace("_", " ")
            assert item.path == root / item.name
    (pooled,) = read_splits("hmdb51", root, wanted="pooled")
    assert pooled.items == tuple(item for split in splits for item in split.items)
    assert len(set(names_of(pooled))) < len(pooled.items)  # some are in two tests
    (full,) = read_splits("hmdb51", root, wanted="full")
    assert sorted(names_of(full)) == sorted(frames)


def test_ucf101_files_say_which_videos_are_of_a_test(ucf: tuple[Path, dict[str, int]]) -> None:
    root, frames = ucf
    splits = read_splits("ucf101", root)
    for split in splits:
        listed = (root / "ucfTrainTestlist" / f"testlist0{split.name}.txt").read_text().split()
        assert names_of(split) == listed
        assert all(split.classes[item.label] == item.name.split("/")[0] for item in split.items)
    assert sum(len(split.items) for split in splits) == 30
    (full,) = read_splits("ucf101", root, wanted="full")
    assert sorted(names_of(full)) == sorted(frames)


@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101"])
def test_lists_of_text4vis_name_the_same_files(dataset: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root, frames = request.getfixturevalue(dataset.rstrip("015"))
    official = read_splits(dataset, root)
    make_text4vis_lists(tmp_path / dataset, dataset, [names_of(split) for split in official], frames)
    for own, other in zip(official, read_splits(dataset, root, tmp_path), strict=True):
        assert [(item.path, item.label) for item in own.items] == [(item.path, item.label) for item in other.items]
        assert [item.listed_frames for item in other.items] == [frames[item.name] for item in own.items]
    (full,) = read_splits(dataset, root, tmp_path, "full")
    assert len(full.items) == 40


def test_lists_of_another_data_set_are_not_taken(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a/b.avi")
    write(tmp_path / "lists" / "ucf101" / "val_rgb_split_1.txt", "Archery/b 3 2\n")
    with pytest.raises(InputError, match="no list of split 1 of hmdb51"):
        read_splits("hmdb51", tmp_path / "videos", tmp_path / "lists", "1")


@pytest.mark.parametrize(
    ("dataset", "file", "line", "said"),
    [
        ("hmdb51", "clap_test_split1.txt", "a.avi 3", "line 2: not a file and 0, 1 or 2"),
        ("hmdb51", "fly_test_split1.txt", "a.avi 2", "no class 'fly'"),
        ("hmdb51", "val_rgb_split_1.txt", "clap/a 3", "line 2: not a path, a number of frames and a label"),
        ("hmdb51", "val_rgb_split_1.txt", "clap/a 3 51", "line 2: hmdb51 has no class of number 51"),
        ("hmdb51", "val_rgb_split_1.txt", "clap/a 3 5", "line 2: clap is class 4 of hmdb51, not 5"),
        ("hmdb51", "val_rgb_split_1.txt", "fly/a 3 5", "line 2: hmdb51 has no class 'fly'"),
        ("ucf101", "testlist01.txt", "a.avi", "line 2: not CLASS/FILE"),
        ("ucf101", "testlist01.txt", "Archery/a.avi 4", "line 2: Archery is class 3 of ucf101, not 4"),
    ],
)
def test_a_wrong_line_is_named(dataset: str, file: str, line: str, said: str, tmp_path: Path) -> None:
    good = {"val": "clap/b 3 4", "clap": "b.avi 2", "fly_": "b.avi 2", "test": "Archery/b.avi"}
    touch(tmp_path / "v", "clap/b.avi", "Archery/b.mp4")
    (tmp_path / "v" / "Archery" / "b.mp4").unlink()
    path = write(tmp_path / "lists" / file, f"{next(v for k, v in good.items() if file.startswith(k))}\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_splits(dataset, tmp_path / "v", tmp_path / "lists", "1")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_folders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.mp4", "cat/x/b.mkv", "cat/c.AVI", "cat/notes.md", "empty/d.txt", ".hidden/e.mp4", "f.mp4")
    (split,) = read_splits("folder", tmp_path)
    assert (split.name, split.classes) == ("full", ("cat", "dog"))
    assert {(item.name, item.label) for item in split.items} == {("cat/x/b.mkv", 0), ("cat/c.AVI", 0), ("dog/a.mp4", 1)}
    with pytest.raises(InputError, match="no test splits"):
        read_splits("folder", tmp_path, wanted="1")


def test_without_lists_folders_have_to_be_classes_of_the_set(tmp_path: Path) -> None:
    touch(tmp_path, "Brush hair/a.avi", "clap/b.avi")
    (split,) = read_splits("hmdb51", tmp_path)
    assert [(split.classes[item.label], item.name) for item in split.items] == [
        ("brush hair", "Brush hair/a.avi"),
        ("clap", "clap/b.avi"),
    ]
    touch(tmp_path, "flying/c.avi")
    with pytest.raises(InputError, match="no class 'flying'") as caught:
        read_splits("hmdb51", tmp_path)
    assert "--dataset folder" in caught.value.hint


def test_a_file_is_found_by_its_name_alone(tmp_path: Path) -> None:
    touch(tmp_path, "deep/er/v_abc.mp4", "k/id1_000055_000065.mp4", "k/ID2.webm", "q.mp4", "r.mp4", "r.avi")
    files = VideoFiles(tmp_path, prefix="v_", timed=True)
    assert files.find("frames_fps1//abc") == tmp_path / "deep/er/v_abc.mp4"
    assert files.find("id1.mp4") == tmp_path / "k/id1_000055_000065.mp4"
    assert files.find("id2_000001_000011.mp4") == tmp_path / "k/ID2.webm"
    assert files.find("r.avi") == tmp_path / "r.avi"
    assert files.find("none") is None
    with pytest.raises(InputError, match="'r' may be"):
        files.find("r")
    assert files.find("q") is not None
    with pytest.raises(InputError, match="two videos"):
        files.find("other/q")


def test_videos_that_are_missing_are_said_to_be(tmp_path: Path) -> None:
    path = write(tmp_path / "kinetics_video_val_se320.txt", "a.mp4 0\r\n\r\nb.mp4 399\r\n")
    touch(tmp_path / "v", "b.mp4")
    (split,) = read_splits("kinetics400", tmp_path / "v", path)
    assert [item.path for item in split.items] == [None, tmp_path / "v" / "b.mp4"]
    (tmp_path / "v" / "b.mp4").unlink()
    with pytest.raises(InputError, match="none of the 2 videos"):
        read_splits("kinetics400", tmp_path / "v", path)


def test_kinetics600_needs_the_classes_of_its_splits(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(InputError) as caught:
        read_splits("kinetics600", tmp_path)
    assert "labels_split1.csv" in caught.value.hint
    write(tmp_path / "k600" / "test_split2_exist.txt", "a.mp4 1\n")
    with pytest.raises(InputError, match="classes are missing"):
        read_splits("kinetics600", tmp_path)
    write(tmp_path / "k600" / "labels_split2.csv", "id,name\n0,arguing\n1,backflip (human)\n")
    (split,) = read_splits("kinetics600", tmp_path)
    assert (split.name, split.classes) == ("2", ("arguing", "backflip (human)"))


@given(st.lists(st.tuples(st.text("ab #&;!(_", min_size=1, max_size=6), st.integers(1, 999)), min_size=1, max_size=5))
def test_a_line_is_split_on_its_last_two_blanks(rows: list[tuple[str, int]]) -> None:
    names = [f"clap/x{n}{text}x" for n, (text, _) in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        touch(root, *(f"{name}.avi" for name in names))
        write(root / "val_rgb_split_1.txt", "".join(f"{n} {f} 4\n" for n, (_, f) in zip(names, rows, strict=True)))
        (split,) = read_splits("hmdb51", root, wanted="1")
        assert [(i.name, i.listed_frames, i.path) for i in split.items] == [
            (name, frames, root / f"{name}.avi") for name, (_, frames) in zip(names, rows, strict=True)
        ]


def test_activitynet_is_its_validation_and_training_lists_together(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "v_aa.mp4", "bb.mkv")
    write(tmp_path / "anet" / "anet_val_video_fps1.txt", "aa 5 1\n")
    write(tmp_path / "anet" / "anet_train_video_fps1.txt", "bb 6 2\naa 5 1\n")
    (split,) = read_splits("activitynet", tmp_path / "videos", tmp_path / "anet")
    assert [(i.name, i.label, i.listed_frames, i.frames_per_s) for i in split.items] == [
        ("aa", 1, 5, 1.0),
        ("bb", 2, 6, 1.0),
    ]
    assert [item.path for item in split.items] == [tmp_path / "videos" / name for name in ("v_aa.mp4", "bb.mkv")]


def test_the_numbers_of_ucf101_have_to_be_the_published_ones(tmp_path: Path) -> None:
    touch(tmp_path, "Archery/b.avi")
    write(tmp_path / "testlist01.txt", "Archery/b.avi\n")
    write(tmp_path / "classInd.txt", "1 ApplyEyeMakeup\n2 Archery\n")
    with pytest.raises(InputError, match=r"classInd.txt, line 2: Archery is class 3 of ucf101, not 2"):
        read_splits("ucf101", tmp_path, wanted="1")
