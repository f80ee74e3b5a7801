"""A comparison of two encoders: its figures come from their vectors, its examples are where one does better."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vidx import cli, encoders
from vidx.indexer.frames import Look, looked_at
from vidx.indexer.sampling import Sampling
from vidx.tests.made_datasets import make_hmdb51
from vidx.tests.small_networks import FRAMES, networks, weights

__all__ = ["networks", "weights"]  # fixtures

pytestmark = pytest.mark.slow  # networks and their libraries take seconds to import

NAMES = ("text4vis-vitb32-f8", "clip-vitb32")
TURNED = {"enters": "leaves", "left": "right", "up": "down"}


def compared(tmp_path: Path) -> tuple[dict[str, Any], Path, list[Path], list[str]]:
    root = tmp_path / "videos"
    make_hmdb51(root, per_class=4)
    paths = sorted(root.glob("*/*.avi"))
    words = list(TURNED)
    texts = [f"thing {n} goes {words[n % 3]}" if n % 4 else f"thing {n} in a box" for n in range(len(paths))]
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "text"), *((p.relative_to(root), t) for p, t in zip(paths, texts, strict=True))]
        )
    command = ["eval", "compare", *NAMES, "--pairs", str(tmp_path / "pairs.csv"), "--root", str(root)]
    command += ["--store", str(tmp_path / "store"), "--report", str(tmp_path / "report"), "--json"]
    result = CliRunner().invoke(cli.vidx, command, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), tmp_path / "report", paths, texts


def test_figures_of_a_comparison_come_from_the_vectors_of_each_encoder(tmp_path: Path) -> None:
    found, report, paths, texts = compared(tmp_path)
    ranks = {}
    for figures, name in zip(found["figures"]["encoders"], NAMES, strict=True):
        encoder = encoders.build(encoders.here(name))
        assert figures["encoder"] == name
        preprocess = encoder.spec.space.preprocess
        look = Look(Sampling("starts", FRAMES), type(preprocess)(**{**vars(preprocess), "shrink_to": 0}))
        videos = np.concatenate([encoder.encode_video(one.views[0]) for one in looked_at((p, [look]) for p in paths)])
        vectors = encoder.encode_text(texts)
        similarities = vectors @ videos.T
        ranks[name] = [1 + sum(other > row[n] for other in row) for n, row in enumerate(similarities)]
        assert figures["text_to_video"]["mean_rank"] == pytest.approx(np.mean(ranks[name]))
        assert figures["text_to_video"]["r5"] == pytest.approx(np.mean(np.array(ranks[name]) <= 5))
        telling = [n for n in range(len(texts)) if n % 4]
        turned = encoder.encode_text([" ".join(TURNED.get(word, word) for word in texts[n].split()) for n in telling])
        right = [videos[n] @ vectors[n] > videos[n] @ other for n, other in zip(telling, turned, strict=True)]
        assert figures["directions"]["all"] == {"accuracy": pytest.approx(np.mean(right)), "n": len(telling)}
        assert set(figures["directions"]) == {"enter / leave", "left / right", "up / down", "all"}

    page = (report / "report.md").read_text()
    for better, worse in (NAMES, NAMES[::-1]):
        gain = np.array(ranks[worse]) - np.array(ranks[better])
        assert f"{better} ranks the video of {(gain > 0).sum()} of {len(texts)} texts higher than {worse}" in page
        if gain.max() > 0:
            assert texts[int(np.argmax(gain))] in page
    for number in (1, 2):
        sheet = Image.open(io.BytesIO((report / f"examples_{number}.png").read_bytes()))
        assert sheet.width > 400
        assert np.asarray(sheet.convert("L")).std() > 5  # there are pictures on it
