"""A space's name is a digest of all that makes its vectors comparable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from vidx import encoders
from vidx.errors import StoreDamaged
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space, read_space, write_space

SPACE = Space(
    encoder="X-CLIP base/16",
    weights={"video": "ab", "text": "cd"},
    preprocess=Preprocess(short_side_px=224, crop_px=224),
    frames=8,
    pooling="mean",
    dim=512,
    logit_scale=100.0,
    prompts=["a video of é"],
)
CHANGES: dict[str, Any] = {
    "encoder": "x-clip base/16",
    "weights": {"video": "ab", "text": "ce"},
    "preprocess": Preprocess(short_side_px=224, crop_px=224, filter="bilinear"),
    "frames": 16,
    "pooling": "max",
    "dim": 513,
    "logit_scale": 100.5,
    "test_scale": 1.0,
    "prompts": [],
    "normalise": "imagenet",
}
PREPROCESS_CHANGES: dict[str, Any] = {
    "short_side_px": 256,
    "crop_px": 200,
    "filter": "bilinear",
    "shrink_to": 0,
    "crops": 3,
}


def test_the_name_is_the_encoder_made_safe_and_a_digest_of_sorted_compact_json() -> None:
    text = (
        '{"dim":512,"encoder":"X-CLIP base/16","frames":8,"logit_scale":100.0,"pooling":"mean",'
        '"preprocess":{"crop_px":224,"filter":"bicubic","short_side_px":224,"shrink_to":2},'
        '"prompts":["a video of é"],"test_scale":null,"weights":{"text":"cd","video":"ab"}}'
    )
    assert SPACE.canonical_json() == text
    assert SPACE.name == f"x-clip-base-16-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def test_the_name_does_not_depend_on_the_order_in_which_weights_are_named() -> None:
    assert replace(SPACE, weights=dict(reversed(SPACE.weights.items()))).name == SPACE.name


def test_every_field_of_a_space_is_changed_below() -> None:
    assert set(CHANGES) == {field.name for field in fields(Space)}
    assert set(PREPROCESS_CHANGES) == {field.name for field in fields(Preprocess)}


@pytest.mark.parametrize("field", CHANGES)
def test_another_value_of_any_field_is_another_space(field: str) -> None:
    assert replace(SPACE, **{field: CHANGES[field]}).name != SPACE.name


@pytest.mark.parametrize("field", PREPROCESS_CHANGES)
def test_another_way_to_prepare_frames_is_another_space(field: str) -> None:
    changed = replace(SPACE.preprocess, **{field: PREPROCESS_CHANGES[field]})
    assert replace(SPACE, preprocess=changed).name != SPACE.name


@pytest.mark.parametrize("encoder", ["../../etc", "a b", "ÄÖ", "Mixed.Case_1", "x" * 40])
def test_a_name_is_always_safe_as_a_folder(encoder: str) -> None:
    name = replace(SPACE, encoder=encoder).name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name[-9] == "-"


def test_the_digest_of_the_weights_depends_on_towers_and_digests_and_not_on_their_order() -> None:
    others = [{"video": "ab", "text": "ce"}, {"video": "cd", "text": "ab"}, {"video": "ab"}]
    digests = {replace(SPACE, weights=weights).weights_digest for weights in (SPACE.weights, *others)}
    assert len(digests) == 4
    assert replace(SPACE, weights={"text": "cd", "video": "ab"}).weights_digest == SPACE.weights_digest


@pytest.mark.parametrize("space", [SPACE, *(spec.space for spec in encoders.specs().values())], ids=lambda s: s.encoder)
def test_a_space_that_was_written_is_read_back_equal(tmp_path: Path, space: Space) -> None:
    write_space(tmp_path, space)
    write_space(tmp_path, space)
    assert read_space(tmp_path, space.name) == space
    assert [path.name for path in tmp_path.iterdir()] == [f"{space.name}.json"]


@pytest.mark.parametrize("field", [field for field in CHANGES if field != "preprocess"])
def test_a_space_file_that_was_altered_is_damage(tmp_path: Path, field: str) -> None:
    write_space(tmp_path, SPACE)
    path = tmp_path / f"{SPACE.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: CHANGES[field]}))
    with pytest.raises(StoreDamaged, match="was altered"):
        read_space(tmp_path, SPACE.name)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"preprocess": 3}', '{"encoder": "x"}'])
def test_a_broken_space_file_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / "x-1.json").write_text(content)
    with pytest.raises(StoreDamaged, match=r"x-1\.json can't be read"):
        read_space(tmp_path, "x-1")


def test_a_missing_space_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreDamaged, match=r"x-1\.json can't be read"):
        read_space(tmp_path, "x-1")
