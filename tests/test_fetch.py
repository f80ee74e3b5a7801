"""Released files are fetched whole or not at all, whatever a host answers."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vidx import encoders
from vidx.encoders import EncoderSpec, WeightsFile, _fetch
from vidx.encoders._weights import resolved
from vidx.errors import WeightsAltered, WeightsMissing
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


class Host(ThreadingHTTPServer):
    """Serves CONTENT; breaks off after `limit` bytes of an answer; notes what was asked for."""

    limit: int | None = None
    ranges = True
    compares = True  # ETags, as it should when it is asked with If-Range
    etag: str | None = None
    content = CONTENT
    media_type: str | None = None
    length: str | None = "right"  # None: not told; else what is told
    tells_total = True  # where nothing lies behind what was asked for
    chunked = False
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_HEAD(self) -> None:
        self.send_response(200)
        if self.server.media_type:
            self.send_header("Content-Type", self.server.media_type)
        self.end_headers()

    def do_GET(self) -> None:
        host = self.server
        first = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        host.asked.append(f"{self.path} from {first}")
        if self.path == "/absent":
            return self.send_error(404)
        if not host.ranges or (host.compares and self.headers["If-Range"] not in (None, host.etag)):
            first = 0
        if first >= len(host.content):
            return self._nothing_behind()
        self.protocol_version = "HTTP/1.1" if host.chunked else "HTTP/1.0"
        self.send_response(206 if first else 200)
        length = str(len(host.content) - first) if host.length == "right" else host.length
        facts = {"Content-Length": length, "ETag": host.etag, "Content-Type": host.media_type}
        if first:
            facts["Content-Range"] = f"bytes {first}-{len(host.content) - 1}/{len(host.content)}"
        if host.chunked:
            facts |= {"Transfer-Encoding": "chunked", "Content-Length": None, "Connection": "close"}
        for name, value in facts.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        sent = host.content[first:][: host.limit]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if host.chunked else sent)
        if host.chunked and host.limit is None:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True
        return None

    def _nothing_behind(self) -> None:
        self.send_response(416)
        if self.server.tells_total:
            self.send_header("Content-Range", f"bytes */{len(self.server.content)}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
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


@pytest.mark.parametrize("tells_total", [True, False])
@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_fetch_that_ended_just_before_it_was_put_in_place_is_finished(
    host: Host, own_folder: Path, etag: str | None, tells_total: bool
) -> None:
    part = own_folder / "toy" / "w.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    if etag:
        part.with_name("w.pt.part.etag").write_text(etag)
    host.etag, host.tells_total = etag, tells_total
    [path] = _fetch.fetch(remote(host, own_folder), nothing)
    assert path.read_bytes() == CONTENT
    assert host.asked == [f"/w.pt from {len(CONTENT)}"]


OTHERS = {"as long": CONTENT[::-1], "longer": CONTENT[::-1] * 2, "shorter than what is here": CONTENT[:900:-1][:500]}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("told", ["both", "no total", "no new name"])
def test_a_host_that_compares_no_names_joins_no_halves_either(
    host: Host, own_folder: Path, other: bytes, told: str
) -> None:
    host.limit, host.etag = 1000, '"one"'
    with pytest.raises(WeightsMissing):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    host.limit, host.compares, host.content = None, False, other
    host.etag, host.tells_total = None if told == "no new name" else '"two"', told != "no total"
    [path] = _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert path.read_bytes() == other
    assert host.asked == ["/w.pt from 0", "/w.pt from 1000", "/w.pt from 0"]


def test_the_name_of_an_older_file_does_not_stay_beside_a_newer_part(host: Host, own_folder: Path) -> None:
    """The second file has no name; when the third one comes, under the first one's name, nothing may be joined."""
    for etag, content in (('"one"', CONTENT), (None, CONTENT[::-1])):
        host.limit, host.etag, host.content = 1000, etag, content
        with pytest.raises(WeightsMissing):
            _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    host.limit, host.etag, host.content = None, '"one"', CONTENT
    [path] = _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_web_page_in_the_place_of_a_file_is_refused_and_leaves_nothing(
    host: Host, own_folder: Path, sha256: str | None
) -> None:
    host.media_type, host.content = "text/html; charset=utf-8", b"<html>Please log in to this network.</html>"
    with pytest.raises(WeightsMissing, match="answered with a web page") as caught:
        _fetch.fetch(remote(host, own_folder, sha256=sha256), nothing)
    assert "log in" in caught.value.hint
    assert not own_folder.exists()


def test_a_web_page_leaves_the_half_that_is_here(host: Host, own_folder: Path) -> None:
    host.limit, host.etag = 1000, '"one"'
    with pytest.raises(WeightsMissing):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    host.limit, host.media_type, host.ranges = None, "text/html", False
    with pytest.raises(WeightsMissing, match="web page"):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    host.media_type, host.ranges = None, True
    [path] = _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert path.read_bytes() == CONTENT
    assert host.asked[-1] == "/w.pt from 1000"


def test_what_can_not_be_known_to_be_whole_is_refused(host: Host, own_folder: Path) -> None:
    host.length, host.limit = None, 1000
    with pytest.raises(WeightsMissing, match="does not say how long it is"):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert not own_folder.exists()


def test_without_a_length_a_published_digest_says_whether_all_came(host: Host, own_folder: Path) -> None:
    host.length, host.limit = None, 1000
    with pytest.raises(WeightsAltered, match="not what was published"):
        _fetch.fetch(remote(host, own_folder), nothing)
    host.limit = None
    [path] = _fetch.fetch(remote(host, own_folder), nothing)
    assert path.read_bytes() == CONTENT


def test_in_chunks_the_end_is_told(host: Host, own_folder: Path) -> None:
    host.chunked, host.limit = True, 1000
    with pytest.raises(WeightsMissing, match="can't fetch"):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert not (own_folder / "toy" / "w.pt").exists()
    host.limit = None
    [path] = _fetch.fetch(remote(host, own_folder, sha256=None), nothing)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["many", "-5"])
def test_a_length_that_is_no_number_is_one_error(host: Host, own_folder: Path, length: str) -> None:
    host.length = length
    with pytest.raises(WeightsMissing, match=f"'{length}' bytes long"):
        _fetch.fetch(remote(host, own_folder, sha256=None), nothing)


def answering(raw: bytes) -> Iterator[str]:
    """The address of a host that answers every question with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(raw)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


NONSENSE = {
    "no HTTP": b"220 mail.example.org ESMTP\r\n",
    "nothing": b"",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n",
}


@pytest.fixture(params=[*NONSENSE, "no address", "no host"])
def nonsense(request: pytest.FixtureRequest) -> Iterator[str]:
    """An endpoint that makes no sense."""
    if request.param in NONSENSE:
        yield from answering(NONSENSE[request.param])
    else:
        yield {"no address": "nonsense", "no host": "http://[::1"}[request.param]


def test_nonsense_in_the_place_of_a_hub_is_one_error_or_the_built_in_encoder(
    nonsense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", nonsense)
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    with pytest.raises(WeightsMissing, match="can't fetch"):
        _fetch.fetch(encoders.spec(encoders.DEFAULT), nothing)
    if encoders.spec(encoders.FALLBACK).is_here:
        told: list[str] = []
        assert _fetch.default_encoder(told.append, nothing, offline=False) == "conse"
        assert "its host can't be reached" in told[-1]


def test_a_new_store_behind_a_page_to_log_in_gets_the_built_in_encoder(
    host: Host, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not encoders.spec(encoders.FALLBACK).is_here:
        pytest.skip("the weights of the built-in encoder are not on this machine")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{host.server_address[1]}")
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    host.media_type = "text/html"
    told: list[str] = []
    assert _fetch.default_encoder(told.append, nothing, offline=False) == "conse"
    assert "answered with a web page" in told[-1]
    assert not own_folder.exists()


def test_where_the_folder_of_weights_is_a_file_it_is_named(host: Host, own_folder: Path) -> None:
    own_folder.write_text("")
    with pytest.raises(WeightsMissing, match=f"{own_folder} is a file") as caught:
        _fetch.fetch(remote(host, own_folder), nothing)
    assert "VIDX_WEIGHTS" in caught.value.hint
    assert host.asked == []


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
