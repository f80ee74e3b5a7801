"""Models of open_clip whose tokenizer is not open_clip's own: fetched with the weights, and missed before a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from vidx.errors import UnknownChoice, WeightsMissing

pytestmark = pytest.mark.slow  # networks and their libraries take seconds to import

NAME = "clip:ViT-B-16-SigLIP/webli"
COMMIT = "0" * 40
TOKENS = f"from vidx.encoders._open_clip import own_tokens; print(*own_tokens({NAME!r}, ['a dog'])[0].tolist())"
SMALL = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 3, "hf_tokenizer_name": "some/tokenizer", "width": 32, "heads": 1}
    | {"layers": 1},
}


class Handler(BaseHTTPRequestHandler):
    """Answers for the files of a folder as Hugging Face does: /OWNER/NAME/resolve/REVISION/FILE."""

    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.server.folder / self.path.rpartition("/")[2]
        found = "/resolve/" in self.path and path.is_file()
        content = path.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{path.name}"')
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Hub(ThreadingHTTPServer):
    folder: Path
    asked: list[str]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with a tokenizer of three words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"</s>": 0, "a": 1, "dog": 2}, unk_token="</s>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="</s>").save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


@pytest.fixture
def hub(tokenizer: Path) -> Iterator[Hub]:
    """A hub that has the tokenizer, and a few bytes for the weights."""
    (tokenizer / "open_clip_model.safetensors").write_bytes(b"no weights")
    server = Hub(("127.0.0.1", 0), Handler)
    server.folder, server.asked = tokenizer, []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """python(arguments, **variables): its own process, since Hugging Face's tools read variables once."""
    home = {"VIDX_WEIGHTS": str(tmp_path / "weights"), "HF_HOME": str(tmp_path / "home")}
    base = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=base | home | variables, timeout=120)

    return run


def test_a_tokenizer_is_fetched_with_the_weights_and_then_nobody_is_asked(
    hub: Hub, python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    fetched = python("-m", "vidx.cli", "encoders", "fetch", NAME, HF_ENDPOINT=endpoint)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert fetched.stdout.split() == [str(next((tmp_path / "weights").rglob("*.safetensors")))]
    hub.asked.clear()
    tokens = python("-c", TOKENS, HF_ENDPOINT=endpoint)
    assert tokens.stdout.split() == ["1", "2", *["0"] * 62]
    assert hub.asked == []


def test_where_no_hub_is_a_fetch_of_the_tokenizer_is_one_line(
    python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    place = tmp_path / "weights" / "clip-ViT-B-16-SigLIP-webli"
    place.mkdir(parents=True)
    (place / "open_clip_model.safetensors").write_bytes(b"no weights")
    fetched = python("-m", "vidx.cli", "encoders", "fetch", NAME, HF_HUB_OFFLINE="1")
    assert (fetched.returncode, fetched.stdout) == (1, "")
    assert fetched.stderr.startswith(f"Error: can't fetch the tokenizer of {NAME} (")
    assert fetched.stderr.count("\n") == 1


def test_a_run_without_the_tokenizer_ends_before_there_is_a_store(
    tokenizer: Path,
    tmp_path: Path,
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import open_clip

    import vidx

    pretrained = {"web": open_clip.get_pretrained_cfg("ViT-B-32", "openai")}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", SMALL)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", pretrained)
    monkeypatch.setenv("VIDX_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    torch.save(open_clip.create_model("small").state_dict(), tmp_path / "w.pt")
    caplog.clear()
    make_video(tmp_path / "videos.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos.mp4").rename(tmp_path / "videos" / "a.mp4")
    archive, wanted = vidx.open(tmp_path / "store"), {"encoder": "clip:small/web", "weights": tmp_path / "w.pt"}
    with pytest.raises(WeightsMissing, match="the tokenizer of clip:small/web is not on this machine") as caught:
        archive.index(tmp_path / "videos", **wanted)
    assert caught.value.hint == "run `vidx encoders fetch clip:small/web`"
    assert not (tmp_path / "store").exists()
    snapshot = tmp_path / "cache" / "models--some--tokenizer" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    tokenizer.rename(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    absent = snapshot.parents[1] / ".no_exist" / COMMIT / "config.json"  # as those tools note it
    absent.parent.mkdir(parents=True)
    absent.touch()
    assert archive.index(tmp_path / "videos", **wanted)["indexed"] == 1
    assert len(archive.search("a dog").hits) == 1
    assert [record for record in caplog.records if "pretrained" in record.getMessage()] == []


@pytest.mark.parametrize(
    "name", ["clip:hf-hub:x/y", "clip:local-dir:/some/folder", "clip:local-dir:/some/folder/openai"]
)
def test_what_open_clip_would_fetch_or_read_from_elsewhere_is_refused_at_once(name: str) -> None:
    from vidx import encoders

    with pytest.raises(UnknownChoice, match="is none of open_clip's own models"):
        encoders.spec(name)


def test_a_name_without_a_tag_is_told_so_and_a_model_that_is_not_there_by_its_like() -> None:
    from vidx import encoders

    with pytest.raises(UnknownChoice, match="does not say which weights, as clip:ViT-B-32/openai") as caught:
        encoders.spec("clip:ViT-B-32")
    assert "laion2b_s34b_b79k" in caught.value.hint
    with pytest.raises(UnknownChoice) as caught:
        encoders.spec("clip:ViT-B-33/openai")
    assert "ViT-B-32" in caught.value.hint
