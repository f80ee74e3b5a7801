"""Encoders by name, as the command line lists them, and as a store's first run meets them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vidx import encoders
from vidx.cli_encoders import encoders as command
from vidx.errors import InputError, UnknownChoice
from vidx.schema.spaces import write_space
from vidx.schema.store import Store

KEYS = Path(__file__).parents[2] / "shared" / "reference" / "keys"
OF_FILES = {
    "actionclip-mmaction2-vit-b-16-8f": "actionclip-mmaction2-vitb16-8f",
    "actionclip-mmaction2-vit-b-32-8f": "actionclip-mmaction2-vitb32-8f",
    "actionclip-vitb-16-32f": "actionclip-vitb16-32f",
    "actionclip-vitb-32-8f": "actionclip-vitb32-8f",
    "openai-clip-vit-b-16": "clip-vitb16",
    "openai-clip-vit-b-32": "clip-vitb32",
    "openai-clip-vit-l-14-336px": "clip-vitl14-336",
    "text4vis-k400-vitb-16-f8": "text4vis-vitb16-f8",
    "text4vis-k400-vitb-32-f8": "text4vis-vitb32-f8",
    "text4vis-k400-vitl-14-f8": "text4vis-vitl14-f8",
    "xclip-k400_14_8": "xclip-k400-14-8",
    "xclip-k400_16_8": "xclip-k400-16-8",
    "xclip-k400_32_8": "xclip-k400-32-8",
    "xclip-zero": "xclip-zero",
}


@pytest.mark.skipif(not KEYS.exists(), reason="the listings of released keys are not beside this repository")
@pytest.mark.parametrize("file", OF_FILES)
def test_patches_are_those_of_the_released_files(file: str) -> None:
    sections = json.loads((KEYS / f"{file}.json").read_text())["sections"]
    shapes = {key: shape for section in sections.values() for key, shape in section.items()}
    [patch] = {shape[-1] for key, shape in shapes.items() if key.endswith("visual.conv1.weight")}
    assert encoders.spec(OF_FILES[file]).patch_px == patch


def test_every_tower_of_patches_has_their_size_and_pictures_are_full_of_them() -> None:
    of_patches = [spec for spec in encoders.specs().values() if spec.patch_px is not None]
    families = {"clip", "xclip", "text4vis", "actionclip", "shapes"}
    assert [spec.name for spec in encoders.specs().values() if spec.family in families] == [s.name for s in of_patches]
    for spec in of_patches:
        assert spec.patch_px in (8, 14, 16, 32)
        assert spec.space.preprocess.crop_px % spec.patch_px == 0


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("xclip-base-patch23", "xclip-base-patch32"),
        ("clip-vitb-32", "clip-vitb32"),
        ("text4vis", "text4vis-vitb32-f8"),
        ("XCLIP-zero", "xclip-zero"),
        ("resnet", "xclip-base-patch32, conse"),
    ],
)
def test_an_unknown_name_is_answered_with_a_few_that_are_close(name: str, close: str) -> None:
    with pytest.raises(UnknownChoice, match=f"no encoder called '{name}'") as caught:
        encoders.spec(name)
    assert close in caught.value.hint
    assert caught.value.hint.count(",") <= 4


def test_a_classifier_is_refused_with_encoders_that_search() -> None:
    with pytest.raises(InputError, match="gives labels, not vectors") as caught:
        encoders.here("movinet-a0-base")
    assert "xclip-base-patch32" in caught.value.hint
    assert "vidx encoders" not in caught.value.hint


def test_classifiers_are_listed_apart() -> None:
    lines = CliRunner().invoke(command, catch_exceptions=False).stdout.splitlines()
    [heading] = [number for number, line in enumerate(lines) if line.startswith("classifiers, ")]
    assert lines[heading - 1].startswith("clip:MODEL/PRETRAINED ")
    names = [line.split()[0] for line in lines]
    classifiers = {spec.name for spec in encoders.specs().values() if spec.classifies}
    assert set(names[heading + 1 :]) == classifiers
    assert classifiers.isdisjoint(names[:heading])
    assert len(lines) == len(encoders.specs()) + 2


def test_a_space_is_found_by_the_name_its_encoder_has_on_hugging_face(store: Store) -> None:
    space = encoders.spec("xclip-base-patch32").space
    write_space(store.path / "spaces", space)
    assert store.find_space("microsoft/xclip-base-patch32") == space
    with pytest.raises(InputError, match="was indexed with microsoft/xclip-base-patch16"):
        store.find_space("microsoft/xclip-base-patch16")


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_difference_that_is_no_number_is_null(tmp_path: Path, value: float) -> None:
    torch = pytest.importorskip("torch")
    from vidx.tests.test_reference import write

    path = write(tmp_path / "x.safetensors", change={"frame_features": torch.full((2, 3, 64), value)})
    broken = tmp_path / "y.safetensors"
    broken.write_bytes(b"no reference")
    run = CliRunner().invoke(command, ["check", "--json", str(path), str(broken)], standalone_mode=False)

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in run.stdout.splitlines()]
    [beyond] = [line for line in lines if line.get("output") == "frame_features"]
    assert (beyond["difference"], beyond["within"]) == (None, False)
    [refused] = [line for line in lines if line.get("file") == str(broken) and "error" in line]
    assert refused["hint"] == "see `vidx encoders check --help`"
    said = CliRunner().invoke(command, ["check", str(broken)], standalone_mode=False).stdout
    assert "see `vidx encoders check --help`" in said.splitlines()[0]


class LogInPage(BaseHTTPRequestHandler):
    """What a network in a hotel answers with, whatever is asked for."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"<html>Please log in to this network.</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def log_in_page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), LogInPage)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(not encoders.spec("conse").is_here, reason="needs the weights of the conse extra")
def test_the_first_run_behind_a_page_to_log_in_indexes_with_the_built_in_encoder(
    vidx: Callable[..., subprocess.CompletedProcess[str]],
    log_in_page: str,
    tmp_path: Path,
    make_video: Callable[..., Path],
) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", n_frames=20)
    weights, store = tmp_path / "weights", tmp_path / "store"
    environment = {**os.environ, "HF_ENDPOINT": log_in_page, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": ""}
    environment["VIDX_WEIGHTS"] = str(weights)
    run = vidx("index", tmp_path / "videos", "--store", store, env=environment)
    assert run.returncode == 0, run.stderr
    assert "using conse" in run.stderr
    assert "web page" in run.stderr
    assert not list(weights.rglob("*.safetensors*"))
    again = ["index", tmp_path / "videos", "--store", tmp_path / "other", "--encoder"]
    for name, words in (("xclip-base-patch32", "not on this machine"), ("", "encoder can't be ''")):
        refused = vidx(*again, name, env=environment)
        assert refused.returncode in (1, 2)
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / "other").exists()
