"""Training on a GPU, in each precision; skipped where there is none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vidx.encoders._trained_classifier import load_classifier
from vidx.tests.test_train_classifiers import SIDE_PX, pretrained, root

__all__ = ["pretrained", "root"]  # fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_a_classifier_learns_and_a_finished_run_is_left_as_it_is(
    precision: str, root: Path, pretrained: Path, tmp_path: Path, vidx: Run
) -> None:
    folder, options = tmp_path / "run", ["--epochs", 8, "--batch", 4, "--learning-rate", 1e-2, "--json"]
    command = ("train", "videomae", root, folder, "--weights", pretrained, *options, "--precision", precision)
    done = vidx(*command)
    assert done.returncode == 0, done.stderr
    *checks, tested = map(json.loads, done.stdout.splitlines())
    assert all(np.isfinite(check["loss/classes"]) for check in checks)
    assert tested["test"]["accuracy"] >= 0.75
    written = (folder / "model.safetensors").read_bytes()
    assert vidx(*command).returncode == 0
    assert (folder / "model.safetensors").read_bytes() == written


def test_a_classifier_tells_the_same_on_a_gpu_as_on_a_cpu(
    root: Path, pretrained: Path, tmp_path: Path, vidx: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = vidx("train", "videomae", root, tmp_path / "run", "--weights", pretrained, "--epochs", 1, "--batch", 4)
    assert done.returncode == 0, done.stderr
    clips = np.random.default_rng(5).integers(0, 256, (3, 4, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    on_gpu = load_classifier(tmp_path / "run").probabilities(clips)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_classifier(tmp_path / "run").probabilities(clips) == pytest.approx(on_gpu, abs=1e-3)
