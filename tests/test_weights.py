"""Weights are found, given by hand or fetched; which file it is, its sha256 decides."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vidx import encoders
from vidx.encoders import EncoderSpec, WeightsFile, _fetch, _registry
from vidx.encoders._weights import digest_of, resolved
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
    return EncoderSpec("toy", "toy", "", "", SPACE, (file,))


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


class Host(ThreadingHTTPServer):
    """Serves CONTENT; breaks off after `limit` bytes of an answer; notes what was asked for."""

    limit: int | None = None
    ranges = True
    etag: str | None = None
    content = CONTENT
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        first = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.asked.append(f"{self.path} from {first}")
        if self.path == "/absent":
            return self.send_error(404)
        first = first if self.server.ranges else 0
        if self.headers["If-Range"] not in (None, self.server.etag):
            first = 0
        content = self.server.content
        if first >= len(content):
            return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(content[first:][: self.server.limit])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def remote(host: Host, folder: Path, *, sha256: str | None = SHA256, name: str = "w.pt") -> EncoderSpec:
    address = f"http://127.0.0.1:{host.server_address[1]}/{name}"
    return spec(address=address, place=folder / "toy" / name, sha256=sha256)


def nothing(_have: int, _total: int) -> None:
    pass


def test_a_file_is_fetched_once_and_is_then_here(host: Host, own_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    [path] = _fetch.fetch(remote(host, own_folder), lambda have, total: seen.append((have, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    _fetch.fetch(remote(host, own_folder), nothing)
    assert len(host.asked) == 1
    assert resolved(remote(host, own_folder)).space.weights == {"video": SHA256}


def test_a_fetch_that_broke_off_goes_on_where_it_stopped(host: Host, own_folder: Path) -> None:
    host.limit = 1000
    with pytest.raises(WeightsMissing, match="can't fetch http") as caught:
        _fetch.fetch(remote(host, own_folder), nothing)
    assert "run it again to go on" in caught.value.hint
    host.limit = None
    [path] = _fetch.fetch(remote(host, own_folder), nothing)
    assert path.read_bytes() == CONTENT
    assert host.asked == ["/w.pt from 0", "/w.pt from 1000"]


def test_a_host_without_ranges_sends_all_of_it_again(host: Host, own_folder: Path) -> None:
    host.limit, host.ranges = 1000, False
    with pytest.raises(WeightsMissing):
        _fetch.fetch(remote(host, own_folder), nothing)
    host.limit = None
    [path] = _fetch.fetch(remote(host, own_folder), nothing)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"one"', None])
def test_of_a_file_that_may_have_changed_no_two_halves_are_joined(
    host: Host, own_folder: Path, etag: str | None
) -> None:
    host.limit, host.etag = 1000, etag
    with pytest.raises(WeightsMissing):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    host.limit, host.etag, host.content = None, etag and '"two"', CONTENT[::-1]
    [path] = _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert path.read_bytes() == CONTENT[::-1]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_without_a_published_digest_goes_on_where_it_stopped_if_it_is_the_same(
    host: Host, own_folder: Path
) -> None:
    host.limit, host.etag = 1000, '"one"'
    with pytest.raises(WeightsMissing):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    host.limit = None
    [path] = _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert path.read_bytes() == CONTENT
    assert host.asked == ["/w.pt from 0", "/w.pt from 1000"]


def test_a_fetch_that_ended_just_before_it_was_put_in_place_is_finished(host: Host, own_folder: Path) -> None:
    part = own_folder / "toy" / "w.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    [path] = _fetch.fetch(remote(host, own_folder), nothing)
    assert path.read_bytes() == CONTENT


def test_what_is_not_what_was_published_is_thrown_away(host: Host, own_folder: Path) -> None:
    with pytest.raises(WeightsAltered, match="not what was published"):
        _fetch.fetch(remote(host, own_folder, sha256="0" * 64), nothing)
    assert not list(own_folder.glob("toy/*"))


def test_without_a_published_digest_the_first_one_is_recorded(host: Host, own_folder: Path) -> None:
    _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert SHA256 in json.loads((own_folder / "known.json").read_text())


def test_a_host_that_has_no_such_file_is_told(host: Host, own_folder: Path) -> None:
    with pytest.raises(WeightsMissing, match="Not Found") as caught:
        _fetch.fetch(remote(host, own_folder, name="absent"), nothing)
    assert "--weights FILE" in caught.value.hint


def test_with_the_network_switched_off_nobody_is_asked(
    host: Host, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match="HF_HUB_OFFLINE"):
        _fetch.fetch(remote(host, own_folder), nothing)
    assert host.asked == []


def test_what_has_no_address_says_how_to_bring_it() -> None:
    with pytest.raises(WeightsMissing, match="no address") as caught:
        _fetch.fetch(spec(), nothing)
    assert caught.value.hint == "bring it"


@pytest.mark.parametrize("offline", [True, False])
def test_a_new_store_gets_the_built_in_encoder_where_the_hub_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    told: list[str] = []
    default = encoders.spec(encoders.DEFAULT)
    if default.is_here:
        pytest.skip("the weights of the default encoder are on this machine")
    assert _fetch.default_encoder(told.append, nothing, offline=offline) == "conse"
    assert "MB" in told[0] or offline
    assert "vidx encoders fetch xclip-base-patch32" in told[-1]
    assert len(told) == 1 if offline else len(told) == 2


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
