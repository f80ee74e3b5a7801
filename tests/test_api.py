"""From Python: options of any kind are taken or refused in one line, as docs/reference/python.md promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vidx
from vidx.config import IndexOptions, SearchOptions
from vidx.errors import InputError, StoreMissing, VidxError
from vidx.schema.store import Store

INDEX_WRONG = [
    *[{"clip_s": clip_s} for clip_s in (math.nan, math.inf, 0, -1, "ten", True)],
    *[{"stride_s": 0}, {"stall_s": 0.0}, {"workers": -3}, {"workers": 1.5}, {"batch_size": 0}, {"commit_clips": 0}],
    *[{"memory_bytes": 5}, {"commit_s": math.nan}, {"decode": "quick"}, {"decoder": 3}, {"encoder": ""}],
    *[{"encoder": 3}, {"segment": "scenes"}, {"skip_still": "yes"}],
    *[{"weights": 5}, {"weights": [None]}, {"follow": "yes"}, {"thumbnails": 1}, {"clips": 10}, {"clip": 10}],
]
SEARCH_WRONG = [
    *[{"k": k} for k in (-1, 0, 10_001, 2.5, "5", None, True)],
    *[{"by": "frame"}, {"min_score": math.nan}, {"rerank": -1}, {"within_s": -1}, {"after": "2024-05-01"}],
    *[{"like": 5}, {"unwanted": [5]}, {"encoder": ""}, {"where": 1}, {"dedupe": "no"}, {"limit": 5}, {"not": "dog"}],
]


@pytest.mark.parametrize("options", INDEX_WRONG, ids=str)
def test_options_of_an_index_run_that_make_no_sense_are_refused_and_leave_no_store(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.txt").write_text("a")
    with pytest.raises(InputError) as caught:
        vidx.open(tmp_path / "store").index(tmp_path / "videos", **options)
    assert next(iter(options)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("options", SEARCH_WRONG, ids=str)
def test_options_of_a_search_that_make_no_sense_are_refused(store: Store, options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        vidx.open(store.path).search("a dog", **options)
    assert next(iter(options)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@given(st.sampled_from(fields(SearchOptions)), st.none() | st.integers() | st.floats() | st.text() | st.booleans())
def test_whatever_an_option_is_given_nothing_but_an_input_error_comes_of_it(field: Any, value: Any) -> None:
    try:
        options = SearchOptions(**{field.name: value})
    except InputError:
        return
    assert 1 <= options.k <= 10_000
    assert options.min_score is None or not math.isnan(options.min_score)
    assert all(isinstance(text, str) for text in (*options.like, *options.unwanted, *options.then))


def test_a_single_text_or_path_is_as_good_as_a_tuple_of_one() -> None:
    plain = SearchOptions(unwanted="dog", like="a.mp4", then="sits")  # type: ignore[arg-type]
    assert plain == SearchOptions(unwanted=("dog",), like=("a.mp4",), then=("sits",))
    paths = SearchOptions(like=[Path("a.mp4"), "b.mp4@3"], unwanted=["dog", "cat"])  # type: ignore[arg-type]
    assert paths == SearchOptions(like=("a.mp4", "b.mp4@3"), unwanted=("dog", "cat"))
    for weights in ("w.pt", Path("w.pt"), ["w.pt"], (Path("w.pt"),)):
        assert IndexOptions(weights=weights).weights == (Path("w.pt"),)  # type: ignore[arg-type]


def test_numbers_may_be_those_of_numpy_and_whole_ones_serve_as_lengths_of_time() -> None:
    assert SearchOptions(k=np.int64(3)).k == 3  # type: ignore[arg-type]
    assert IndexOptions(clip_s=5, stride_s=np.float32(2.5)) == IndexOptions(clip_s=5.0, stride_s=2.5)  # type: ignore[arg-type]
    assert SearchOptions(after=datetime(2024, 5, 1)).after == datetime(2024, 5, 1)


def test_an_option_that_is_not_there_names_the_closest() -> None:
    with pytest.raises(InputError) as caught:
        vidx.open("store").search("a dog", unwanteds="cat")
    assert "unwanted" in caught.value.hint


@pytest.mark.parametrize("path", [3, b"store", ["store"]])
def test_a_path_that_is_none_is_refused(tmp_path: Path, path: Any) -> None:
    with pytest.raises(InputError):
        vidx.open(path)
    with pytest.raises(InputError):
        vidx.open(tmp_path / "store").index(path)


def test_a_text_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="is no text"):
        vidx.open(store.path).search(Path("a.mp4"))  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_leaves_no_store(tmp_path: Path) -> None:
    with pytest.raises(VidxError, match="no folder"):
        vidx.open(tmp_path / "store").index(tmp_path / "absent")
    assert not (tmp_path / "store").exists()


def test_weights_for_a_new_store_need_the_encoder_they_are_of(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", n_frames=5)
    (tmp_path / "w.pt").write_bytes(b"weights")
    with pytest.raises(InputError, match="conse takes no weights") as caught:
        vidx.open(tmp_path / "store").index(tmp_path / "videos", weights=tmp_path / "w.pt")
    assert "--encoder" in caught.value.hint
    assert not (tmp_path / "store").exists()


def test_an_archive_that_is_not_there_yet_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        vidx.open(tmp_path / "none").search("a dog")
