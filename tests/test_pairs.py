"""Pairs of videos and texts: every form of file gives the same pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidx.errors import InputError
from vidx.learn.pairs import read_pairs

SHARED = Path(__file__).parents[2] / "shared" / "videos"
ENTRIES = [("a", "a cat"), ("b", "a dog, running"), ("a", "it sleeps")]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.avi"):
        (folder / name).touch()
    return folder


FORMS = {
    "p.csv": "key,vid_key,video_id,sentence\r\n" + "".join(f'0,msr9,{v},"{t}"\r\n' for v, t in ENTRIES),
    "p.tsv": "Filename\tCaption\n" + "".join(f"{v}\t{t}\n" for v, t in ENTRIES),
    "AllVideoDescriptions.txt": "# comment\n\n" + "".join(f"{v} {t}\n" for v, t in ENTRIES),
    "msrvtt.json": json.dumps({"videos": [], "sentences": [{"video_id": v, "caption": t} for v, t in ENTRIES]}),
    "didemo.json": json.dumps([{"video": v, "description": t, "times": [[0, 1]]} for v, t in ENTRIES]),
    "lines.jsonl": "".join(json.dumps({"path": v, "text": t}) + "\n" for v, t in ENTRIES),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pairs(form: str, tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / form, FORMS[form])
    pairs = read_pairs(path, root)
    assert pairs.names == ("a", "b")
    assert pairs.paths == (root / "a.mp4", root / "b.avi")
    assert pairs.texts == tuple(text for _, text in ENTRIES)
    assert pairs.video_of_text.dtype == np.int64
    assert pairs.video_of_text.tolist() == [0, 1, 0]
    joined = read_pairs(path, root, paragraphs=True)
    assert (joined.texts, joined.video_of_text.tolist()) == (("a cat it sleeps", "a dog, running"), [0, 1])
    with pytest.raises(InputError, match="which split"):
        read_pairs(path, root, split="test")


def test_msvd_names_files_by_their_times_and_keeps_english(tmp_path: Path) -> None:
    (tmp_path / "x_-1_33_40.avi").touch()
    header = "VideoID,Start,End,WorkerID,Language,Description\n"
    lines = "x_-1,33,40,1,English,a man\nx_-1,33,40,2,German,ein Mann\nx_-1,33,40,3,German,\n"
    pairs = read_pairs(write(tmp_path / "msvd.csv", header + lines), tmp_path)
    assert (pairs.names, pairs.texts) == (("x_-1_33_40",), ("a man",))


def test_a_split_chooses_videos(tmp_path: Path, root: Path) -> None:
    videos = [{"video_id": "a", "split": "train"}, {"video_id": "b", "split": "test"}]
    sentences = [{"video_id": v, "caption": t} for v, t in ENTRIES]
    path = write(tmp_path / "m.json", json.dumps({"videos": videos, "sentences": sentences}))
    assert read_pairs(path, root, split="test").texts == ("a dog, running",)
    assert read_pairs(path, root, split="train").texts == ("a cat", "it sleeps")
    with pytest.raises(InputError, match="no split 'val'"):
        read_pairs(path, root, split="val")
    table = write(tmp_path / "t.csv", "video,text,split\na,one,x\nb,two,y\n")
    assert read_pairs(table, root, split="y").names == ("b",)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", "video,text\na,one\na, \n", "line 3: no text"),
        ("p.csv", "video,text\na,one\na\n", "line 3: not as many fields"),
        ("p.csv", "video,words\na,one\n", "no column of texts"),
        ("p.csv", "clip,text\na,one\n", "no column of videos"),
        ("p.txt", "a one\nb\n", "line 2: no text"),
        ("p.jsonl", '{"path": "a", "text": "one"}\n{"path": \n', "line 2: no JSON"),
        ("p.json", '[{"path": "a", "text": "one"}, {"path": "a", "text": 5}]', "entry 2: path or text is no text"),
        ("p.json", "[3]", "entry 1: no object"),
        ("p.csv", "video,text\nz,one\n", "none of the 1 videos"),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str, said: str, tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_pairs(write(tmp_path / name, text), root)
    assert said in str(caught.value)


def test_a_video_that_is_missing_stays_in_the_list(tmp_path: Path, root: Path) -> None:
    pairs = read_pairs(write(tmp_path / "p.csv", "video,text\nz,one\na,two\n"), root)
    assert (pairs.names, pairs.paths) == (("z", "a"), (None, root / "a.mp4"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared test videos are not beside this repository")
def test_the_descriptions_of_the_shared_videos_are_read() -> None:
    pairs = read_pairs(SHARED / "LABELS.csv", SHARED)
    assert len(pairs.names) == len(pairs.texts) == 45
    assert all(path is not None and path == SHARED / name for name, path in zip(pairs.names, pairs.paths, strict=True))
