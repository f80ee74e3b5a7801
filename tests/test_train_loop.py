"""The training loop: goes on where it was stopped, to the last digit, and keeps what was best."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from vidx.errors import InputError
from vidx.train.logs import LOG, TENSORBOARD
from vidx.train.loop import CHECKPOINT, WEIGHTS, Settings, fit, learning_rate

SETTINGS = Settings(12, 0.05, warmup_steps=2, check_steps=3)


class Line(nn.Module):
    """A line through points, with something random in it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """See `vidx.train.loop.Recipe`."""
        x, y = batch
        return {"square": (self.layer(self.drop(x))[:, 0] - y).square().mean(), "size": 0.01 * self.layer.weight.norm()}


class Fit:
    """See `vidx.train.loop.Recipe`."""

    decides = "minus"

    def __init__(self) -> None:
        self.module = Line()
        self.asked: list[int] = []

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        self.asked.append(number)
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        return x, x @ torch.tensor([1.0, -2, 0.5, 0])

    def evaluate(self) -> dict[str, float]:
        x, y = self.batch(10**6)
        with torch.no_grad():
            return {"minus": -float((self.module.layer(x)[:, 0] - y).square().mean())}

    def weights(self) -> dict[str, Tensor]:
        return self.module.state_dict()


class Stopped(Exception):
    pass


def trained(
    folder: Path, settings: Settings = SETTINGS, stop_at: int | None = None
) -> tuple[Fit, list[dict[str, Any]]]:
    """A run that is stopped behind the check of a step, if one is named."""
    recipe, told = Fit(), []

    def tell(line: dict[str, Any]) -> None:
        told.append(line)
        if line["step"] == stop_at:
            raise Stopped

    if stop_at is None:
        fit(recipe, settings, folder, tell)
    else:
        with pytest.raises(Stopped):
            fit(recipe, settings, folder, tell)
    return recipe, told


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{**json.loads(line), "seconds": 0} for line in (folder / LOG).read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("stop_at", [3, 9])
def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(tmp_path: Path, stop_at: int, accumulate: int) -> None:
    settings = replace(SETTINGS, accumulate=accumulate)
    trained(tmp_path / "whole", settings)
    trained(tmp_path / "stopped", settings, stop_at)
    again, _ = trained(tmp_path / "stopped", settings)
    assert min(again.asked) == stop_at * accumulate  # nothing is done twice
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "stopped")]
    assert all(torch.equal(tensor, states[1]["module"][name]) for name, tensor in states[0]["module"].items())


def test_tensorboard_has_the_same_figures_and_none_twice(tmp_path: Path) -> None:
    trained(tmp_path, stop_at=6)
    trained(tmp_path)
    board = EventAccumulator(str(tmp_path / TENSORBOARD)).Reload()
    for name in ("minus", "loss/square", "loss/size"):
        shown = [(event.step, pytest.approx(event.value, rel=1e-5)) for event in board.Scalars(name)]
        assert shown == [(line["step"], line[name]) for line in lines(tmp_path)]


def test_lines_behind_the_last_checkpoint_are_written_once(tmp_path: Path) -> None:
    trained(tmp_path, stop_at=6)
    with open(tmp_path / LOG, "a") as log:
        log.write(json.dumps({"step": 9, "seconds": 1}) + "\n")  # of a run that died before it kept its checkpoint
    trained(tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [3, 6, 9, 12]


def test_it_learns_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    recipe, told = trained(tmp_path, replace(SETTINGS, steps=60))
    figures = [line["minus"] for line in told]
    assert max(figures) > 0.5 * figures[0]  # they are below zero
    kept = Line()
    kept.load_state_dict(load_file(tmp_path / WEIGHTS))
    recipe.module.load_state_dict(kept.state_dict())
    assert recipe.evaluate()["minus"] == pytest.approx(max(figures), abs=1e-5)


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    _, told = trained(tmp_path, replace(SETTINGS, steps=300, learning_rate=0.0, patience=2))
    assert [line["step"] for line in told] == [3, 6, 9]  # the first is better than nothing
    trained(tmp_path, replace(SETTINGS, steps=300, learning_rate=0.0, patience=2))
    assert [line["step"] for line in lines(tmp_path)][-1] == 9


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    trained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="other settings"):
        trained(tmp_path, replace(SETTINGS, learning_rate=0.1))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_loss_that_is_no_number_ends_it_and_what_was_best_stays(tmp_path: Path) -> None:
    class Spoiled(Fit):
        def batch(self, number: int) -> tuple[Tensor, Tensor]:
            x, y = super().batch(number)
            return x * (float("nan") if number == 5 else 1), y

    recipe = Spoiled()
    with pytest.raises(InputError, match="no number at step 5"):
        fit(recipe, SETTINGS, tmp_path, lambda line: None)
    assert [line["step"] for line in lines(tmp_path)] == [3]
    tensors = [*load_file(tmp_path / WEIGHTS).values(), *recipe.module.parameters()]
    assert all(tensor.isfinite().all() for tensor in tensors)


_OF_TWO = """
import sys
from pathlib import Path
from vidx.tests.test_train_loop import SETTINGS, Fit
from vidx.train.loop import fit

recipe = Fit()
recipe.module.drop.p = 0.0
fit(recipe, SETTINGS, Path(sys.argv[1]), lambda line: print(line["step"]))
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_batches_joined_in_twos(tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(_OF_TWO)
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0", "--rdzv-backend", "c10d"]
    done = subprocess.run([*command, tmp_path / "both.py", tmp_path / "two"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "6", "9", "12"]  # one of them tells
    recipe = Fit()
    recipe.module.drop.p = 0.0
    fit(recipe, replace(SETTINGS, accumulate=2), tmp_path / "one", lambda line: None)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [learning_rate(Settings(12, 1.0, warmup_steps=4), step) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.04
