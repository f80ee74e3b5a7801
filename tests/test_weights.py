"""Weights are found, given by hand or fetched; which file it is, its sha256 decides."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vidx import encoders
from vidx.encoders import EncoderSpec, WeightsFile, _registry
from vidx.encoders._weights import digest_of, located, resolved
from vidx.errors import InputError, WeightsAltered, WeightsMissing
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SPACE = Space("toy", {}, Preprocess(8, 8), 2, "mean", 4)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "weights"


def spec(**changes: object) -> EncoderSpec:
    file = replace(WeightsFile("bring it", None, 10, None, role="video"), **changes)  # type: ignore[arg-type]
    return EncoderSpec("toy", "xclip", "", "", SPACE, (file,))


def test_given_files_are_taken_in_order_and_their_digests_name_the_space(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    two = replace(spec(), weights=(*spec().weights, replace(spec().weights[0], role="text")))
    found = resolved(two, [tmp_path / "a", tmp_path / "b"])
    assert [file.path for file in found.weights] == [tmp_path / "a", tmp_path / "b"]
    assert found.space.weights == {
        "video": hashlib.sha256(b"a").hexdigest(),
        "text": hashlib.sha256(b"b").hexdigest(),
    }
    assert resolved(two, [tmp_path / "b", tmp_path / "a"]).space.name != found.space.name


def test_more_files_than_an_encoder_takes_are_refused_and_so_are_those_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes 1 weights files, not 2"):
        resolved(spec(), [tmp_path, tmp_path])
    with pytest.raises(InputError, match="no file"):
        resolved(spec(), [tmp_path / "absent"])


def test_what_is_nowhere_is_missing_with_the_way_to_get_it() -> None:
    with pytest.raises(WeightsMissing, match="not on this machine") as caught:
        resolved(spec())
    assert caught.value.hint == "bring it"


def test_a_file_given_once_is_found_again_by_its_digest_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    space = resolved(spec(), [path]).space
    assert resolved(spec(), digests=space.weights).weights[0].path == path
    path.write_bytes(b"A")
    os.utime(path, ns=(1, 1))
    gone = resolved(spec(), digests=space.weights)
    assert not gone.is_here
    assert gone.space == space  # what was made is still known


def test_a_file_put_back_with_another_time_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    space = resolved(spec(), [path]).space
    path.unlink()
    path.write_bytes(b"a")
    os.utime(path, ns=(1, 1))
    assert resolved(spec(), digests=space.weights).weights[0].path == path


def test_a_file_that_is_gone_is_named_with_its_last_path_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    space = resolved(spec(), [path]).space
    path.unlink()
    gone = resolved(spec(), digests=space.weights).weights[0]
    with pytest.raises(WeightsMissing, match="not on this machine") as caught:
        located(gone, "toy")
    assert str(path) in str(caught.value)
    assert hashlib.sha256(b"a").hexdigest() in str(caught.value)


def test_weights_for_an_encoder_that_takes_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(InputError, match="conse takes no weights"):
        encoders.here("conse", [tmp_path / "a"])
    with pytest.raises(InputError, match="toy takes no weights"):
        resolved(replace(spec(), weights=()), [tmp_path / "a"])


def test_a_fetched_file_that_was_altered_is_to_be_removed_first(own_folder: Path) -> None:
    place = own_folder / "toy" / "w.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not it")
    with pytest.raises(WeightsAltered) as caught:
        resolved(spec(place=place, sha256=SHA256))
    assert "remove it, then bring it" in caught.value.hint


def test_a_digest_is_computed_anew_when_size_or_time_differ(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        os.utime(path, ns=(len(content) * 10**9, hash(content) % 10**9 * 10**9))
        assert digest_of(path) == hashlib.sha256(content).hexdigest()


def test_a_published_digest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"not it")
    with pytest.raises(WeightsAltered, match="is not the file it should be"):
        resolved(spec(path=tmp_path / "a", sha256=SHA256))


def test_a_note_of_known_files_that_is_no_json_is_as_none(own_folder: Path, tmp_path: Path) -> None:
    own_folder.mkdir()
    (own_folder / "known.json").write_text("[")
    (tmp_path / "a").write_bytes(b"a")
    assert resolved(spec(), [tmp_path / "a"]).is_here


def test_an_encoder_may_be_named_as_on_hugging_face() -> None:
    assert encoders.spec("microsoft/xclip-base-patch32") is encoders.spec("xclip-base-patch32")


def test_every_registered_checkpoint_is_complete() -> None:
    checkpoints = _registry._checkpoints()
    assert len(checkpoints) > 40
    for name, facts in checkpoints.items():
        assert ("address" in facts) != ("page" in facts), name
        assert facts.keys() >= {"family", "recipe", "frames", "side_px", "dim", "parameters", "trained_on", "licence"}
        assert facts.get("base", name) in checkpoints
        made = encoders.specs()[name]
        assert made.space.preprocess.crop_px == facts["side_px"]
        assert all(file.source and file.role for file in made.weights)


@pytest.mark.parametrize(
    ("name", "short_side_px", "crop_px", "filter_", "normalise"),
    [
        ("clip-vitl14-336", 336, 336, "bicubic", "clip"),
        ("xclip-base-patch32", 224, 224, "bilinear", "imagenet"),
        ("xclip-k400-32-8", 256, 224, "opencv", "imagenet"),
        ("xclip-k400-14-16-336", 384, 336, "opencv", "imagenet"),
        ("text4vis-vitb32-f8", 256, 224, "bicubic", "clip"),
        ("text4vis-vitl14-336-f32", 336, 336, "bicubic", "clip"),
        ("actionclip-vitb16-16f", 256, 224, "bicubic", "clip"),
        ("actionclip-mmaction2-vitb32-8f", 256, 224, "opencv", "clip-mmaction2"),
    ],
)
def test_frames_are_prepared_as_the_authors_do(
    name: str, short_side_px: int, crop_px: int, filter_: str, normalise: str
) -> None:
    space = encoders.spec(name).space
    assert space.preprocess == Preprocess(short_side_px, crop_px, filter=filter_)
    assert space.normalise == normalise


def test_labels_go_into_the_templates_of_the_authors() -> None:
    assert encoders.spec("xclip-base-patch32").templates == ("{}",)
    assert encoders.spec("text4vis-vitb32-f8").templates == ("a video of a person {}.",)
    of_actionclip = encoders.spec("actionclip-vitb32-8f").templates
    assert (len(of_actionclip), len(set(of_actionclip))) == (16, 16)
    assert of_actionclip[0] == "a photo of action {}"
    assert of_actionclip[15] == "The woman is {}"
    assert all(template.count("{}") == 1 for template in of_actionclip)
