"""The encoder that comes with vidx: ground truth, of which it must know enough to test all that stands on encoders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vidx import encoders
from vidx.encoders._trained import TOKENIZER, WEIGHTS
from vidx.encoders._weights import digest_of
from vidx.encoders.shapes import SHIPPED
from vidx.errors import WeightsAltered
from vidx.indexer.frames import Look, looked_at
from vidx.indexer.sampling import Sampling
from vidx.train.shapes.data import SIDE_PX, clips, stream
from vidx.train.shapes.pack import pack
from vidx.train.shapes.pool import PoolClip, make_pool
from vidx.train.shapes.report import figures_of
from vidx.train.shapes.scenes import PAIRS

pytestmark = [
    pytest.mark.slow,  # networks and their libraries take seconds to import
    pytest.mark.usefixtures("one_thread"),
]
MOST_BYTES = 12 * 10**6


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[PoolClip]:
    """Clips that no training drew, as files."""
    return make_pool(tmp_path_factory.mktemp("pool"), 120, seed=1234)


@pytest.fixture(scope="module")
def figures(pool: list[PoolClip]) -> dict[str, float]:
    return figures_of(encoders.build(encoders.here("shapes")), pool)


def test_it_finds_clips_by_what_happens_in_them(figures: dict[str, float]) -> None:
    assert figures["recall_1"] > 0.8
    assert figures["recall_5"] > 0.95
    assert figures["motion"] > 0.8


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_it_tells_a_motion_from_its_reverse(figures: dict[str, float], pair: tuple[str, str]) -> None:
    assert figures[f"pair/{pair[0]}-{pair[1]}"] > 0.9


def test_its_files_are_small_and_in_half_precision() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < MOST_BYTES
    assert {tensor.dtype for tensor in load_file(SHIPPED / WEIGHTS).values()} == {torch.float16}
    spec = encoders.spec("shapes")
    assert spec.is_here
    assert spec.weights[0].size_bytes == (SHIPPED / WEIGHTS).stat().st_size
    assert spec.space.weights == {
        "video": digest_of(SHIPPED / WEIGHTS),
        "tokenizer": digest_of(SHIPPED / TOKENIZER),
    }


def test_packing_keeps_the_vectors_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    singles = {name: tensor.float() for name, tensor in load_file(SHIPPED / WEIGHTS).items()}
    save_file(singles, run / WEIGHTS)
    (run / TOKENIZER).write_bytes((SHIPPED / TOKENIZER).read_bytes())
    for packed in pack(run, tmp_path / "packed"):
        assert packed.read_bytes() == (SHIPPED / packed.name).read_bytes()


def test_strong_compression_changes_little(
    pool: list[PoolClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidx.train.shapes.pool._CRF", "30")
    again = make_pool(tmp_path, 40, seed=1234)
    encoder = encoders.build(encoders.here("shapes"))
    look = Look(Sampling("centres", 8), encoder.spec.space.preprocess)

    def vectors(of: list[PoolClip]) -> np.ndarray:
        return encoder.encode_video(
            np.concatenate([looked.views[0] for looked in looked_at((clip.path, (look,)) for clip in of)])
        )

    assert [clip.text for clip in again] == [clip.text for clip in pool[:40]]
    assert again[0].path.read_bytes() != pool[0].path.read_bytes()
    assert (vectors(again) * vectors(pool[:40])).sum(axis=1).min() > 0.9


def test_a_clip_and_its_reversal_are_far_apart() -> None:
    made = clips(stream(77), 32, side=SIDE_PX).pictures
    encoder = encoders.build(encoders.here("shapes"))
    forwards, backwards = (encoder.encode_video(np.ascontiguousarray(each)) for each in (made, made[:, ::-1]))
    assert (forwards * backwards).sum(axis=1).mean() < 0.8


def test_an_altered_file_is_told(tmp_path: Path) -> None:
    changed = tmp_path / TOKENIZER
    changed.write_bytes((SHIPPED / TOKENIZER).read_bytes().replace(b"circle", b"cirque"))
    (tmp_path / WEIGHTS).write_bytes((SHIPPED / WEIGHTS).read_bytes())
    encoder = encoders.build(encoders.here("shapes", [tmp_path / WEIGHTS]))
    with pytest.raises(WeightsAltered, match=r"tokenizer\.json"):
        encoder.encode_text(["a circle"])


def test_a_search_from_the_command_line_finds_what_rises_and_not_what_sinks(
    pool: list[PoolClip], tmp_path: Path, vidx: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    store, folder = tmp_path / "store", pool[0].path.parent
    done = vidx("index", folder, "--store", store, "--encoder", "shapes", "--clip", 2)
    assert "120 indexed" in done.stdout, done.stderr
    motions = {clip.path.name: clip.contents[0].motion for clip in pool}
    for motion, text in (("up", "a shape moves up"), ("down", "a shape moves down")):
        hits = json.loads(vidx("search", text, "--store", store, "-k", 5, "--format", "json").stdout)["hits"]
        assert [motions[Path(hit["path"]).name] for hit in hits] == [motion] * 5
        assert [(hit["start_s"], hit["end_s"]) for hit in hits] == [(0, 2)] * 5
